//! The few atomic operations the program needs, and the only place that may use them.
//!
//! `core::sync::atomic` has no compare-exchange for this target, and several forms miscompile with LLVM 22: a relaxed add
//! whose result is used returns the addend, 32-bit compare-exchange and atomic loads do not compile for every CPU level.
//! What is here compiles to one instruction each (kernel 5.12), and a test in the kernel checks what it does.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use dhcp_guard_common::gcra::Word;

/// A `u64` in a map value that several CPUs change.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut u64);

impl Shared {
    /// # Safety
    /// `word` must point into a map value. Its memory stays valid for the run of the program (RCU does that), but a
    /// stranger's entry may become another one's meanwhile: whoever writes then touches that one's word.
    #[inline(always)]
    pub(crate) unsafe fn new(word: *mut u64) -> Self {
        Self(word)
    }

    /// Adds. The result is not offered: see the module's warning.
    #[inline(always)]
    pub(crate) fn add(self, value: u64) {
        // SAFETY: `new` promises a valid, aligned word.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0, value) };
    }

    /// Writes without waiting for anybody. For marks where the last writer may win.
    #[inline(always)]
    pub(crate) fn store(self, value: u64) {
        // SAFETY: as in `add`; volatile, so that it is one store.
        unsafe { self.0.write_volatile(value) };
    }
}

impl Word for Shared {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: as in `add`; volatile, so that it is one load and not repeated.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn compare_and_swap(&self, old: u64, new: u64) -> bool {
        // SAFETY: as in `add`.
        let (found, _) =
            unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(self.0, old, new) };
        found == old
    }
}
