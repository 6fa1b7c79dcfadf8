//! Per-CPU counting: plain additions, no atomics. XDP runs with bottom halves off, so nothing comes between.

use dhcp_guard_common::{
    layout::{PortCounters, Troubles},
    verdict::{MessageType, Note, Reason},
};

use crate::maps;

/// The counters of a port, on this CPU.
#[derive(Clone, Copy)]
pub(crate) struct Counters(*mut PortCounters);

impl Counters {
    #[inline(always)]
    pub(crate) fn of(slot: u32) -> Option<Self> {
        maps::PORT_COUNTERS.get_ptr_mut(slot).map(Self)
    }

    /// A DHCP packet, by the indexes of its reason and of its type; one that is none counts as the first.
    #[inline(always)]
    pub(crate) fn verdict(self, reason: usize, message: usize) {
        let reason = if reason < Reason::COUNT { reason } else { 0 };
        let message = if message < MessageType::COUNT { message } else { 0 };
        // SAFETY: a per-CPU value that only this CPU changes; both indexes are below their COUNT.
        unsafe {
            *(&raw mut (*self.0).reasons).cast::<u64>().add(reason) += 1;
            *(&raw mut (*self.0).messages).cast::<u64>().add(message) += 1;
        }
    }

    /// Something worth counting about the packet.
    #[inline(always)]
    pub(crate) fn note(self, note: Note) {
        // SAFETY: as in `verdict`.
        unsafe { *(&raw mut (*self.0).notes).cast::<u64>().add(note.index()) += 1 };
    }
}

/// One of the [`Troubles`].
#[inline(always)]
pub(crate) fn trouble(which: fn(&mut Troubles) -> &mut u64) {
    if let Some(troubles) = maps::TROUBLES.get_ptr_mut(0) {
        // SAFETY: a per-CPU value that only this CPU changes, and nobody else holds a reference to.
        unsafe { *which(&mut *troubles) += 1 };
    }
}

/// Packets counted for their port, but for no client.
#[inline(always)]
pub(crate) fn untracked(packets: u64) {
    if let Some(troubles) = maps::TROUBLES.get_ptr_mut(0) {
        // SAFETY: a per-CPU value that only this CPU changes.
        unsafe { (*troubles).untracked += packets };
    }
}
