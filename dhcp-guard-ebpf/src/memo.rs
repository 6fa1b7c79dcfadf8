//! The memory of clients that are over their own limit.
//!
//! While a limiter says "nothing before `until`", no lookup can change the verdict: each CPU remembers such clients, one
//! for each place in a small array, and answers the bulk of a flood from there. The packets counted in a memo belong to
//! the client's entry: they are handed over when the memo's certainty ends or its place is needed, and user space adds
//! what is still pending, so the client's packets and drops stay exact.

use dhcp_guard_common::{
    layout::{ClientKey, MEMO_KNOWN, MEMO_STRANGER, MEMOS, Memo, PortKey},
    parse::MacWords,
    verdict::Reason,
};

use crate::{clients, clock::Now, maps};

/// The place for a MAC on a port, on this CPU.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    memo: *mut Memo,
    port: u64,
    mac: u64,
}

impl Place {
    #[inline(always)]
    pub(crate) fn of(port: PortKey, source: MacWords) -> Option<Self> {
        let mac = ClientKey::new(0, source).0;
        // All of the last four bytes: vendors count in one of them, lab machines in another.
        let folded = u32::from(source[1] ^ source[2]);
        let place = (folded ^ folded >> 8) & (MEMOS - 1);
        let memo = maps::MEMOS.get_ptr_mut(place)?;
        let port = u64::from(port.ifindex) | u64::from(port.outer_vlan) << 32 | u64::from(port.inner_vlan) << 48;
        Some(Self { memo, port, mac })
    }

    /// Counts the packet here if its verdict is certain: the port's slot and the reason.
    #[inline(always)]
    pub(crate) fn answer(self, now: Now) -> Option<(u32, bool)> {
        // SAFETY: a per-CPU value that only this CPU changes.
        let memo = unsafe { &mut *self.memo };
        if memo.mac != self.mac || memo.port != self.port || memo.until <= now.grains {
            return None;
        }
        memo.pending += 1;
        memo.last_seen = now.ticks;
        Some((ClientKey(memo.client).slot(), memo.monitor != 0))
    }

    /// Remembers that `client` is over its limit until `until`, unless the place holds another certainty.
    #[inline(always)]
    pub(crate) fn remember(self, client: ClientKey, known: bool, monitor: bool, until: u64, now: Now) {
        // SAFETY: a per-CPU value that only this CPU changes.
        let memo = unsafe { &mut *self.memo };
        if memo.until > now.grains {
            return;
        }
        if memo.pending > 0 {
            clients::hand_over(ClientKey(memo.client), memo.table == MEMO_KNOWN, memo.pending, memo.last_seen);
        }
        // User space may copy the memo at any moment: it must never see the old client's count under the new client.
        // SAFETY: as above; volatile, so that this store stays in front of the others.
        unsafe { (&raw mut memo.pending).write_volatile(0) };
        memo.client = client.0;
        memo.last_seen = now.ticks;
        memo.table = if known { MEMO_KNOWN } else { MEMO_STRANGER };
        memo.monitor = monitor.into();
        (memo.port, memo.mac, memo.until) = (self.port, self.mac, until);
    }
}

/// The only reason a memo can stand for.
pub(crate) const fn reason(monitor: bool) -> Reason {
    if monitor { Reason::WouldDropClientLimit } else { Reason::DropClientLimit }
}
