//! Frames that are not DHCP, from whoever is isolated. The only thing that may stop such a frame, and only looked for
//! while someone is isolated.

use dhcp_guard_common::{
    gcra::Word as _,
    layout::{ClientKey, Control, PORT_ALLOWED, PORT_MONITOR, PORT_TRUSTED, PortKey},
    parse,
    verdict::Note,
};

use crate::{atomic::Shared, clock::Now, control, count::Counters, maps, packet::Packet, ports, rules};

/// Whether the frame's port or its sender is isolated, and not watched only, trusted or allowed.
#[inline(never)]
pub(crate) fn is_dropped(ifindex: u32, packet: &Packet) -> bool {
    let now = Now::read();
    if now.ticks >= control::isolated_until() {
        return false;
    }
    is_isolated(ifindex, packet, now).unwrap_or(false)
}

#[inline(always)]
fn is_isolated(ifindex: u32, packet: &Packet, now: Now) -> Option<bool> {
    let version = control::version();
    let (source, vlans) = parse::link(packet)?;
    let found = ports::find(PortKey::new(ifindex, vlans), version, Control::bank(version))?;
    let policy = ports::policy(found.slot, Control::bank(version))?;
    if policy.flags & (PORT_TRUSTED | PORT_MONITOR | PORT_ALLOWED) != 0 {
        return None;
    }
    let state = maps::PORT_STATES.get_ptr_mut(found.slot)?;
    // SAFETY: a field of a map value.
    let port = unsafe { Shared::new(&raw mut (*state).isolated_until) }.load();
    let rule = rules::of(ClientKey::new(found.slot, source));
    if rule.allowed_until > now.ticks {
        return None;
    }
    if port <= now.ticks && rule.isolated_until <= now.ticks {
        return None;
    }
    Counters::of(found.slot)?.note(Note::IsolatedFrame);
    Some(true)
}
