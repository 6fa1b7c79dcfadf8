//! Rules about single clients: quarantine and allowlist.

use dhcp_guard_common::{
    hash,
    layout::{ClientKey, ClientRule},
};

use crate::{control, filter, maps};

/// The rule about a client, if there is one. Costs one load while nobody has a rule.
#[inline(always)]
pub(crate) fn of(client: ClientKey) -> Option<ClientRule> {
    if !control::has_client_rules() || !filter::may_list(hash::mix(client.0, maps::seeds())) {
        return None;
    }
    // SAFETY: a lookup made the pointer. User space replaces rules as a whole, so this one does not change.
    maps::RULES.get_ptr(client).map(|rule| unsafe { *rule })
}

/// The tick until which the rule keeps the client's DHCP away.
#[inline(always)]
pub(crate) fn end_of_quarantine(rule: ClientRule) -> u64 {
    if rule.muted_until > rule.isolated_until { rule.muted_until } else { rule.isolated_until }
}
