//! What this CPU remembers from packet to packet: nobody else writes it, and XDP and TCX both run to their
//! end with bottom halves off, so that neither can begin while the other is at it.

use dhcp_guard_common::layout::{CLIENT_MEMO_BITS, CPU_OWN_WORDS, ClientMemo, CpuState};

use crate::{arrival::Arrival, clock::Now, maps};

const _: () = assert!(size_of::<Arrival>() <= size_of::<[u64; CPU_OWN_WORDS]>(), "`CpuState::own` is large enough");

/// This CPU's part of the map.
#[derive(Clone, Copy)]
pub(crate) struct Cpu(*mut CpuState);

impl Cpu {
    /// `None` does not happen.
    #[inline(always)]
    pub(crate) fn this() -> Option<Self> {
        maps::CPU.get_ptr_mut(0).map(Self)
    }

    /// Whether any memo can be certain now.
    #[inline(always)]
    pub(crate) fn has_memos(self, now: Now) -> bool {
        // SAFETY: a field of a per-CPU value that only this CPU changes.
        unsafe { (*self.0).memos_until > now.grains }
    }

    /// The memo at this place; as many bits of it count as there are places.
    #[inline(always)]
    pub(crate) fn memo(self, place: u64) -> *mut ClientMemo {
        let place = place & ((1 << CLIENT_MEMO_BITS) - 1);
        // SAFETY: an element of an array in a map value; the index is below its length.
        unsafe { (&raw mut (*self.0).memos).cast::<ClientMemo>().add(place as usize) }
    }

    /// Says that some memo is certain until then, in grains.
    #[inline(always)]
    pub(crate) fn expect_memos_until(self, until: u64) {
        // SAFETY: as in `has_memos`.
        unsafe {
            if (*self.0).memos_until < until {
                (*self.0).memos_until = until;
            }
        }
    }

    /// The place for the packet that is being judged, and for the ports last seen.
    #[inline(always)]
    pub(crate) fn arrival(self) -> *mut Arrival {
        // SAFETY: a field of a per-CPU value, which is large enough and of whole words.
        unsafe { (&raw mut (*self.0).own).cast() }
    }
}
