//! The XDP program of dhcp-guard; the same guard as a TCX program, for where XDP is not possible or not right; and one
//! that sees servers' replies leave.
//!
//! Thin on purpose: the frame walk, the limiter arithmetic and the map layout are in `dhcp-guard-common`, which also
//! runs in user space. Here is what needs a kernel: packet memory (`packet`), the clock (`clock`), atomics
//! (`atomic`), maps (`maps`), events (`events`), and the order in which a packet meets the rules (`judge`).
//!
//! What is never here: allocation, loops without a small constant bound, XDP_ABORTED; and, for a frame that is not DHCP
//! while nobody is isolated, a helper, a map or a clock.
#![cfg_attr(
    target_arch = "bpf",
    no_std,
    no_main,
    feature(asm_experimental_arch, core_intrinsics),
    allow(internal_features)
)]

#[cfg(target_arch = "bpf")]
mod admit;
#[cfg(target_arch = "bpf")]
mod arrival;
#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod clients;
#[cfg(target_arch = "bpf")]
mod clock;
#[cfg(target_arch = "bpf")]
mod control;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod cpu;
#[cfg(target_arch = "bpf")]
mod events;
#[cfg(target_arch = "bpf")]
mod head;
#[cfg(target_arch = "bpf")]
mod isolation;
#[cfg(target_arch = "bpf")]
mod judge;
#[cfg(target_arch = "bpf")]
mod last_ports;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod memo;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod ports;
#[cfg(target_arch = "bpf")]
mod replies;
#[cfg(target_arch = "bpf")]
mod rules;
#[cfg(target_arch = "bpf")]
mod strangers;
#[cfg(target_arch = "bpf")]
mod tcx;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::{
            TC_ACT_SHOT, TC_ACT_UNSPEC,
            xdp_action::{XDP_DROP, XDP_PASS},
        },
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use dhcp_guard_common::parse;

    use crate::{clock::Now, control, isolation, judge, maps, packet::Packet, replies, tcx};

    /// Passes what is not DHCP; judges the rest.
    ///
    /// What a flood meets is inlined: with the mitigations that current processors need, the return from a call costs
    /// more than half of the rest.
    ///
    /// `frags`: interfaces with an MTU above one page only take programs that say they can live with a frame in pieces
    /// (kernel 5.18). All headers are in the first piece.
    #[xdp(frags)]
    #[expect(clippy::needless_pass_by_value, reason = "the shape that the xdp attribute wants")]
    fn dhcp_guard(ctx: XdpContext) -> u32 {
        let packet = Packet::of(ctx.ctx);
        match parse::walk(&packet) {
            Some(dhcp) if judge::is_dropped(ctx.ingress_ifindex() as u32, &packet, &dhcp) => XDP_DROP,
            Some(_) => XDP_PASS,
            None if control::isolated_until() == 0 => XDP_PASS,
            None => isolation::dhcp_guard_isolation(ctx.ctx),
        }
    }

    /// The same where the network stack begins. What it does not drop, others decide: TC_ACT_UNSPEC is what TCX calls "next".
    #[classifier]
    #[expect(clippy::needless_pass_by_value, reason = "the shape that the classifier attribute wants")]
    fn dhcp_guard_tcx(ctx: TcContext) -> i32 {
        if tcx::is_dropped(ctx.skb.skb) { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
    }

    /// Counts servers' messages on their way out, and leaves all else to others.
    #[classifier]
    #[expect(clippy::needless_pass_by_value, reason = "the shape that the classifier attribute wants")]
    fn dhcp_replies(ctx: TcContext) -> i32 {
        replies::count(ctx.skb.skb);
        TC_ACT_UNSPEC
    }

    /// Tells user space how the kernel's ticks relate to its own clocks; run on demand, never attached.
    #[xdp(frags)]
    fn read_clock(_: XdpContext) -> u32 {
        if let Some(clock) = maps::CLOCK.get_ptr_mut(0) {
            // SAFETY: a lookup made the pointer; only this program writes, and only one user asks.
            unsafe { *clock = Now::read().ticks };
        }
        XDP_PASS
    }

    /// Nothing here panics; the compiler wants a handler all the same. Were a panic reachable, the verifier would
    /// refuse the endless loop, so this is a proof and not a risk.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// Helpers that are "GPL only" check for this; "Dual MIT/GPL" is the kernel's word for our licence.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
