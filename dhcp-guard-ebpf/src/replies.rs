//! Servers' messages that leave through a guarded interface, towards the machines behind it: counted, never stopped.
//!
//! XDP sees only what comes in. Where servers are behind the host, whether they still answer shows on the way out alone.

use aya_ebpf::programs::TcContext;
use dhcp_guard_common::{
    layout::{Control, PortKey},
    message,
    parse::{self, Dhcp},
};

use crate::{atomic::Shared, control, maps, packet::Linear, ports};

/// Counts the frame for the port that it leaves through, if it is a server's message. For all others it is a parse.
///
/// What the driver is still to fetch into the frame's linear part is not looked at: headers are there.
#[inline(always)]
pub(crate) fn count(ctx: &TcContext) {
    let frame = Linear::of(ctx);
    let Some(dhcp) = parse::walk(&frame) else { return };
    if !message::is_reply(&frame, &dhcp) {
        return;
    }
    let Some(port) = port(ctx, &dhcp) else { return };
    let version = control::version();
    let Some(found) = ports::find(port, version, Control::bank(version)) else { return };
    if let Some(replies) = maps::REPLIES.get_ptr_mut(found.slot) {
        // SAFETY: a lookup made the pointer.
        unsafe { Shared::new(replies) }.add(1);
    }
}

/// The port that the frame leaves through. Its outermost tag is in the frame, or beside it until the driver sends it.
#[inline(always)]
fn port(ctx: &TcContext, dhcp: &Dhcp) -> Option<PortKey> {
    // SAFETY: the context that the kernel passed, whose fields are integers.
    let (ifindex, is_tagged, tag) =
        unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).vlan_present != 0, (*ctx.skb.skb).vlan_tci) };
    let vlans = if is_tagged { dhcp.vlans.under(tag as u16)? } else { dhcp.vlans };
    Some(PortKey::new(ifindex, vlans))
}
