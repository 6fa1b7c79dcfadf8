//! Packet memory as the parser wants to see it.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    programs::{TcContext, XdpContext},
};
use dhcp_guard_common::{
    message,
    parse::{self, Frame},
};

/// A frame that arrives.
pub(crate) struct Packet {
    ctx: *mut xdp_md,
    linear: Linear,
}

impl Packet {
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.as_ptr().cast(), linear: Linear { start: ctx.data(), end: ctx.data_end() } }
    }
}

/// The linear part of a frame: as far as it can be read without asking the kernel.
pub(crate) struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    /// Of a frame that leaves.
    #[inline(always)]
    pub(crate) fn of(ctx: &TcContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    /// The address of `len` bytes at `at`, if they are inside the packet.
    ///
    /// The verifier accepts exactly this shape: add, compare the sum with the end, use the same sum.
    #[inline(always)]
    fn address(&self, at: usize, len: usize) -> Option<usize> {
        let address = self.start + at;
        let after = address + len;
        // LLVM would turn `address + 1 > end` into `address >= end`, from which the verifier learns nothing.
        let after = if len == 1 { opaque(after) } else { after };
        if after > self.end { None } else { Some(address) }
    }
}

/// A value that LLVM knows nothing of: it cannot see through this move of a register to itself (which must exist: line
/// information for an empty piece of assembly is refused by the kernel).
#[inline(always)]
fn opaque(mut value: usize) -> usize {
    // SAFETY: changes nothing.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

/// One load: LLVM makes eight of an address that it does not know to be aligned, and the machines that this runs on do not
/// mind.
///
/// # Safety
/// Eight bytes of the packet must be there.
#[inline(always)]
unsafe fn load(address: usize) -> u64 {
    let word;
    // SAFETY: promised by the caller.
    unsafe { asm!("{0} = *(u64 *)({1} + 0)", out(reg) word, in(reg) address, options(pure, readonly, nostack)) };
    word
}

impl Frame for Linear {
    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Option<[u16; N]> {
        let address = self.address(at, 2 * N)?;
        // SAFETY: `address` checked the bounds, as the verifier confirms. Drivers start frames at an even address and
        // `at` is even, so the words are aligned; [u16; N] has no invalid values.
        Some(unsafe { *(address as *const [u16; N]) })
    }

    #[inline(always)]
    fn byte(&self, at: usize) -> Option<u8> {
        let address = self.address(at, 1)?;
        // SAFETY: `address` checked the bounds, as the verifier confirms.
        Some(unsafe { *(address as *const u8) })
    }

    #[inline(always)]
    fn longs<const N: usize, const LEN: usize>(&self, at: usize, offsets: [usize; N]) -> Option<[u64; N]> {
        let address = self.address(at, LEN)?;
        // SAFETY: `address` checked the bounds of all, as the verifier confirms.
        Some(offsets.map(|offset| unsafe { load(address + offset) }))
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Option<[u16; N]> {
        self.linear.words(at)
    }

    #[inline(always)]
    fn byte(&self, at: usize) -> Option<u8> {
        self.linear.byte(at)
    }

    #[inline(always)]
    fn longs<const N: usize, const LEN: usize>(&self, at: usize, offsets: [usize; N]) -> Option<[u64; N]> {
        self.linear.longs::<N, LEN>(at, offsets)
    }

    #[inline(always)]
    fn skip_extensions(&self, kind: u8, at: usize) -> Option<usize> {
        match dhcp_guard_skip_extensions(self.ctx, kind.into(), at as u32) {
            0 => None,
            // The verifier knows nothing of the answer and needs a bound, which LLVM knows to be there already.
            at => Some(opaque(at as usize) & OFFSETS),
        }
    }

    #[inline(always)]
    fn walk_options(&self, payload: usize) -> u8 {
        dhcp_guard_walk_options(self.ctx, payload as u32) as u8
    }
}

/// More than all headers of the largest size come to.
const OFFSETS: usize = 0x7fff;

/// Global, so that the verifier looks at it once (see [`crate::judge`]). 0: there is no UDP header.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dhcp_guard_skip_extensions(ctx: *mut xdp_md, kind: u32, at: u32) -> u32 {
    let packet = Packet::of(&XdpContext::new(ctx));
    parse::skip_extensions(&packet, kind as u8, opaque(at as usize) & 0xff).unwrap_or(0) as u32
}

/// As above. 0: there is no message type.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dhcp_guard_walk_options(ctx: *mut xdp_md, payload: u32) -> u32 {
    let packet = Packet::of(&XdpContext::new(ctx));
    message::walk_options(&packet, opaque(payload as usize) & OFFSETS).into()
}
