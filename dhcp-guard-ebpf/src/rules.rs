//! Rules about single clients: quarantine and allowlist.

use dhcp_guard_common::{
    hash,
    layout::{ClientKey, ClientRule},
};

use crate::{control, head, maps};

/// No rule: nothing lasts until any time.
const NONE: ClientRule = ClientRule { muted_until: 0, isolated_until: 0, allowed_until: 0 };

/// The rule about a client. `listed`: whether the filter knows its key, without which it has none.
#[inline(always)]
pub(crate) fn of(client: ClientKey, listed: bool) -> ClientRule {
    if listed && control::has_client_rules() { look_up(client) } else { NONE }
}

/// The rule about somebody whose key was not asked for in the filter yet.
#[inline(always)]
pub(crate) fn of_unlisted(client: ClientKey) -> ClientRule {
    let may_list = || head::may_list(hash::mix(client.0, maps::seeds()));
    if control::has_client_rules() && may_list() { look_up(client) } else { NONE }
}

#[inline(always)]
fn look_up(client: ClientKey) -> ClientRule {
    // SAFETY: a lookup made the pointer. User space replaces rules as a whole, so this one does not change.
    maps::RULES.get_ptr(client).map_or(NONE, |rule| unsafe { *rule })
}

/// The tick until which the rule keeps the client's DHCP away.
#[inline(always)]
pub(crate) fn end_of_quarantine(rule: &ClientRule) -> u64 {
    later_of(rule.muted_until, rule.isolated_until)
}

/// Both rules at once.
#[inline(always)]
pub(crate) fn later(one: &ClientRule, other: &ClientRule) -> ClientRule {
    ClientRule {
        muted_until: later_of(one.muted_until, other.muted_until),
        isolated_until: later_of(one.isolated_until, other.isolated_until),
        allowed_until: later_of(one.allowed_until, other.allowed_until),
    }
}

#[inline(always)]
pub(crate) fn later_of(one: u64, other: u64) -> u64 {
    if one > other { one } else { other }
}
