//! Per-CPU counting: plain additions, no atomics. XDP runs with bottom halves off, so nothing comes between.

use dhcp_guard_common::{
    layout::Troubles,
    verdict::{MessageType, Reason},
};

use crate::maps;

/// A frame that is none of our business.
#[inline(always)]
pub(crate) fn not_dhcp(ifindex: u32) {
    if let Some(count) = maps::NON_DHCP.get_ptr_mut(maps::interface_place(ifindex)) {
        // SAFETY: a per-CPU value that only this CPU changes.
        unsafe { *count += 1 };
    }
}

/// A DHCP packet on the port in `slot`.
#[inline(always)]
pub(crate) fn verdict(slot: u32, reason: Reason, message: MessageType) {
    if let Some(counters) = maps::PORT_COUNTERS.get_ptr_mut(slot) {
        let row = reason.index() * MessageType::COUNT;
        // SAFETY: a per-CPU value that only this CPU changes; both indexes are below their COUNT, and the table is
        // `[[u64; MessageType::COUNT]; Reason::COUNT]`.
        unsafe { *counters.cast::<u64>().add(row + message.index()) += 1 };
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
