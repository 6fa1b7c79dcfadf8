//! The controls that every figure is a ratio against: what the kernel can do when the program does nothing.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Passes every frame.
#[xdp]
pub(crate) fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Drops every frame.
#[xdp]
pub(crate) fn drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}
