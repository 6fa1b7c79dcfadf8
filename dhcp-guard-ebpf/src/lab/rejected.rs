//! What no kernel may load: for the test that a program that the verifier rejects is reported as that.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Reads a byte of the frame without having looked whether there is one.
#[xdp]
#[expect(clippy::needless_pass_by_value, reason = "the shape that the xdp attribute wants")]
pub(crate) fn rejected(ctx: XdpContext) -> u32 {
    let first = ctx.data() as *const u8;
    // SAFETY: none, which is the point: the verifier refuses it, so it never runs.
    let byte = unsafe { first.read_volatile() };
    if byte == 0 { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}
