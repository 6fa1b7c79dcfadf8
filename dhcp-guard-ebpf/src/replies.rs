//! Servers' messages that leave through a guarded interface, towards the machines behind it: counted, never stopped.
//!
//! XDP sees only what comes in. Where servers are behind the host, whether they still answer shows on the way out alone.

use aya_ebpf::bindings::__sk_buff;
use dhcp_guard_common::{
    layout::{Control, PortKey},
    message, parse,
};

use crate::{atomic::Shared, control, maps, packet::Context as _, ports, tcx};

/// Counts the frame for the port that it leaves through, if it is a server's message. For all others it is a parse.
///
/// What the driver is still to fetch into the frame's linear part is not looked at: headers are there.
#[inline(always)]
pub(crate) fn count(skb: *mut __sk_buff) {
    let frame = skb.linear();
    // Its outermost tag is in the frame, or beside it until the driver sends it.
    let Some(dhcp) = parse::walk_under(&frame, || tcx::tag(skb)) else { return };
    if !message::is_reply(&frame, &dhcp) {
        return;
    }
    let version = control::version();
    let port = PortKey::new(tcx::ifindex(skb), dhcp.vlans);
    let Some(found) = ports::find(port, version, Control::bank(version)) else { return };
    if let Some(replies) = maps::REPLIES.get_ptr_mut(found.slot) {
        // SAFETY: a lookup made the pointer.
        unsafe { Shared::new(replies) }.add(1);
    }
}
