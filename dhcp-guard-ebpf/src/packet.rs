//! Packet memory as the parser wants to see it.

use core::arch::asm;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use dhcp_guard_common::{
    message,
    parse::{self, Frame},
};

/// How the kernel hands a frame to a program: each kind of program has its own.
///
/// The two walks are functions that the verifier looks at by themselves (see [`crate::judge`]), and such a function takes
/// the context of one kind of program only; so there is one of each for each kind.
pub(crate) trait Context: Copy {
    /// What can be read of the frame without asking the kernel.
    fn linear(self) -> Linear;
    /// [`parse::skip_extensions`]; 0: there is no UDP header.
    fn skip_extensions(self, kind: u32, at: u32) -> u32;
    /// [`message::walk_options`]; 0: there is no message type.
    fn walk_options(self, payload: u32) -> u32;
}

impl Context for *mut xdp_md {
    #[inline(always)]
    fn linear(self) -> Linear {
        // SAFETY: the context that the kernel passed, whose fields are integers.
        unsafe { Linear { start: (*self).data as usize, end: (*self).data_end as usize } }
    }

    #[inline(always)]
    fn skip_extensions(self, kind: u32, at: u32) -> u32 {
        dhcp_guard_skip_extensions(self, kind, at)
    }

    #[inline(always)]
    fn walk_options(self, payload: u32) -> u32 {
        dhcp_guard_walk_options(self, payload)
    }
}

impl Context for *mut __sk_buff {
    #[inline(always)]
    fn linear(self) -> Linear {
        // SAFETY: the context that the kernel passed, whose fields are integers.
        unsafe { Linear { start: (*self).data as usize, end: (*self).data_end as usize } }
    }

    #[inline(always)]
    fn skip_extensions(self, kind: u32, at: u32) -> u32 {
        dhcp_guard_tcx_skip_extensions(self, kind, at)
    }

    #[inline(always)]
    fn walk_options(self, payload: u32) -> u32 {
        dhcp_guard_tcx_walk_options(self, payload)
    }
}

/// A frame that arrives.
pub(crate) struct Packet<C> {
    ctx: C,
    linear: Linear,
}

impl<C: Context> Packet<C> {
    #[inline(always)]
    pub(crate) fn of(ctx: C) -> Self {
        Self { ctx, linear: ctx.linear() }
    }
}

/// The linear part of a frame: as far as it can be read without asking the kernel.
pub(crate) struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    /// In bytes.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
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

impl<C: Context> Frame for Packet<C> {
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
        match self.ctx.skip_extensions(kind.into(), at as u32) {
            0 => None,
            // The verifier knows nothing of the answer and needs a bound, which LLVM knows to be there already.
            at => Some(opaque(at as usize) & OFFSETS),
        }
    }

    #[inline(always)]
    fn walk_options(&self, payload: usize) -> u8 {
        self.ctx.walk_options(payload as u32) as u8
    }
}

/// More than all headers of the largest size come to.
const OFFSETS: usize = 0x7fff;

#[inline(always)]
fn skip_extensions(ctx: impl Context, kind: u32, at: u32) -> u32 {
    parse::skip_extensions(&Packet::of(ctx), kind as u8, opaque(at as usize) & 0xff).unwrap_or(0) as u32
}

#[inline(always)]
fn walk_options(ctx: impl Context, payload: u32) -> u32 {
    message::walk_options(&Packet::of(ctx), opaque(payload as usize) & OFFSETS).into()
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dhcp_guard_skip_extensions(ctx: *mut xdp_md, kind: u32, at: u32) -> u32 {
    skip_extensions(ctx, kind, at)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dhcp_guard_walk_options(ctx: *mut xdp_md, payload: u32) -> u32 {
    walk_options(ctx, payload)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dhcp_guard_tcx_skip_extensions(ctx: *mut __sk_buff, kind: u32, at: u32) -> u32 {
    skip_extensions(ctx, kind, at)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dhcp_guard_tcx_walk_options(ctx: *mut __sk_buff, payload: u32) -> u32 {
    walk_options(ctx, payload)
}
