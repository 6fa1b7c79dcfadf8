//! The guard at the other hook: TCX, at the entrance of the network stack, where the kernel has made a packet (`__sk_buff`)
//! of the frame. What differs from XDP is here: the outermost VLAN tag is beside the frame, whether the card has taken it
//! off or the kernel did, and perhaps only the beginning of the frame can be read without asking the kernel.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_pull_data};
use dhcp_guard_common::parse;

use crate::{
    control, isolation, judge,
    packet::{Context as _, Packet},
};

/// Bytes of a frame that are looked at: one page, which is what XDP has of a frame in pieces.
const LOOKED_AT: u32 = 4096;

/// Whether the frame is to be dropped.
///
/// It shares what a CPU remembers with the XDP program: both run to their end with bottom halves off, so one is done with
/// its packet before another begins.
#[inline(always)]
pub(crate) fn is_dropped(skb: *mut __sk_buff) -> bool {
    if let Some(None) = parse::glance(&Packet::of(skb)) {
        return is_isolated(skb);
    }
    // It may be DHCP, or ends before that can be told. Only for these is the kernel asked: a sender that decides what the
    // linear part is (a packet ring does, a guest can) must not be able to hide behind that.
    complete(skb);
    let packet = Packet::of(skb);
    match parse::walk_under(&packet, || tag(skb)) {
        Some(dhcp) => judge::is_dropped(ifindex(skb), &packet, &dhcp),
        None => is_isolated(skb),
    }
}

/// Has the kernel fetch the frame into its linear part. Where it has no memory for that, what is there is judged.
#[inline(always)]
fn complete(skb: *mut __sk_buff) {
    // SAFETY: the context that the kernel passed, whose fields are integers.
    let len = unsafe { (*skb).len };
    if skb.linear().len() < len as usize {
        // SAFETY: the context again; whoever reads the frame after this asks for its place anew.
        let _ = unsafe { bpf_skb_pull_data(skb, if len < LOOKED_AT { len } else { LOOKED_AT }) };
    }
}

#[inline(always)]
fn is_isolated(skb: *mut __sk_buff) -> bool {
    control::isolated_until() != 0 && isolation::dhcp_guard_tcx_isolation(skb) != 0
}

/// The interface that the frame came in by, or leaves through.
#[inline(always)]
pub(crate) fn ifindex(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context that the kernel passed, whose fields are integers.
    unsafe { (*skb).ifindex }
}

/// The control information of the tag beside the frame.
#[inline(always)]
pub(crate) fn tag(skb: *mut __sk_buff) -> Option<u16> {
    // SAFETY: as in `ifindex`.
    let (is_tagged, tag) = unsafe { ((*skb).vlan_present != 0, (*skb).vlan_tci) };
    is_tagged.then_some(tag as u16)
}
