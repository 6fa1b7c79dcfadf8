//! The clock: the kernel's tick counter, the only one that costs about 1 ns (the JIT inlines it).

use aya_ebpf::{Global, helpers::generated::bpf_jiffies64};
use dhcp_guard_common::gcra::GRAIN_BITS;

/// The kernel's HZ. User space measures it and sets it at load.
#[unsafe(no_mangle)]
static TICKS_PER_S: Global<u64> = Global::new(250);

/// One reading, in both units.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    /// Kernel ticks.
    pub(crate) ticks: u64,
    /// The limiters' unit.
    pub(crate) grains: u64,
}

impl Now {
    #[inline(always)]
    pub(crate) fn read() -> Self {
        // SAFETY: takes no argument and returns an integer.
        let ticks = unsafe { bpf_jiffies64() };
        Self { ticks, grains: ticks << GRAIN_BITS }
    }
}

/// See [`TICKS_PER_S`].
#[inline(always)]
pub(crate) fn ticks_per_s() -> u64 {
    TICKS_PER_S.load()
}
