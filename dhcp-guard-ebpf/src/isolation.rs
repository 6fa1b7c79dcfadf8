//! Frames that are not DHCP, from whoever is isolated. The only thing that may stop such a frame, and only looked for
//! while someone is isolated.

use aya_ebpf::{
    bindings::{
        __sk_buff,
        xdp_action::{XDP_DROP, XDP_PASS},
        xdp_md,
    },
    programs::XdpContext,
};
use dhcp_guard_common::{
    gcra::Word as _,
    layout::{ClientKey, Control, PORT_ALLOWED, PORT_MONITOR, PORT_TRUSTED, PortKey},
    parse::{self, MacWord, Vlans},
    verdict::Note,
};

use crate::{atomic::Shared, clock::Now, control, count::Counters, maps, packet::Packet, ports, rules, tcx};

/// The `xdp_action` for a frame that is not DHCP, while someone is isolated: whether its port or its sender is, and is
/// not watched only, trusted or allowed.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dhcp_guard_isolation(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let now = Now::read();
    if now.ticks >= control::isolated_until() {
        return XDP_PASS;
    }
    match is_isolated(ctx.ingress_ifindex() as u32, || parse::link(&Packet::of(ctx.ctx)), now) {
        Some(true) => XDP_DROP,
        _ => XDP_PASS,
    }
}

/// The same at the other hook: 1 to drop, 0 to pass.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dhcp_guard_tcx_isolation(skb: *mut __sk_buff) -> u32 {
    let now = Now::read();
    if now.ticks >= control::isolated_until() {
        return 0;
    }
    let link = || parse::link_under(&Packet::of(skb), tcx::tag(skb));
    is_isolated(tcx::ifindex(skb), link, now).unwrap_or(false).into()
}

/// `None`: no.
#[inline(always)]
fn is_isolated(ifindex: u32, link: impl FnOnce() -> Option<(MacWord, Vlans)>, now: Now) -> Option<bool> {
    let version = control::version();
    let (source, vlans) = link()?;
    let found = ports::find(PortKey::new(ifindex, vlans), version, Control::bank(version))?;
    let policy = ports::policy(found.slot, Control::bank(version))?;
    if policy.flags & (PORT_TRUSTED | PORT_MONITOR | PORT_ALLOWED) != 0 {
        return None;
    }
    let state = maps::PORT_STATES.get_ptr_mut(found.slot)?;
    // SAFETY: fields of a map value.
    let [isolated_until, allowed_until] =
        unsafe { [Shared::new(&raw mut (*state).isolated_until), Shared::new(&raw mut (*state).allowed_until)] };
    let rule = rules::of_unlisted(ClientKey::new(found.slot, source));
    if rules::later_of(allowed_until.load(), rule.allowed_until) > now.ticks {
        return None;
    }
    if rules::later_of(isolated_until.load(), rule.isolated_until) <= now.ticks {
        return None;
    }
    Counters::of(found.slot)?.note(Note::IsolatedFrame);
    Some(true)
}
