//! Rules about single clients: quarantine and allowlist.

use dhcp_guard_common::layout::{ClientKey, ClientRule};

use crate::{control, maps};

/// No rule: nothing lasts until any time.
const NONE: ClientRule = ClientRule { muted_until: 0, isolated_until: 0, allowed_until: 0 };

/// The rule about a client. `listed`: whether the filter knows its key, without which it has none.
#[inline(always)]
pub(crate) fn of(client: ClientKey, listed: bool) -> ClientRule {
    if listed && control::has_client_rules() { look_up(client) } else { NONE }
}

#[inline(always)]
fn look_up(client: ClientKey) -> ClientRule {
    // SAFETY: a lookup made the pointer. User space replaces rules as a whole, so this one does not change.
    maps::RULES.get_ptr(client).map_or(NONE, |rule| unsafe { *rule })
}

/// The tick until which the rule keeps the client's DHCP away.
#[inline(always)]
pub(crate) fn end_of_quarantine(rule: &ClientRule) -> u64 {
    if rule.muted_until > rule.isolated_until { rule.muted_until } else { rule.isolated_until }
}
