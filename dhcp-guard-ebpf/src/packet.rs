//! Packet memory as the parser wants to see it.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use dhcp_guard_common::parse::Frame;

/// The linear part of the frame.
pub(crate) struct Packet {
    start: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    /// The address of `len` bytes at `at`, if they are inside the packet.
    ///
    /// The verifier accepts exactly this shape: add, compare the sum with the end, use the same sum.
    #[inline(always)]
    fn address(&self, at: usize, len: usize) -> Option<usize> {
        let address = self.start + at;
        let mut after = address + len;
        if len == 1 {
            // LLVM would turn `address + 1 > end` into `address >= end`, from which the verifier learns nothing. It
            // cannot see through this move of a register to itself (which must exist: line information for an empty
            // piece of assembly is refused by the kernel).
            // SAFETY: changes nothing.
            unsafe { asm!("{0} = {0}", inout(reg) after, options(pure, nomem, nostack, preserves_flags)) };
        }
        if after > self.end { None } else { Some(address) }
    }
}

impl Frame for Packet {
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
}
