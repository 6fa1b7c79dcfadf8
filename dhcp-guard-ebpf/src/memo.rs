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
        // The last bytes differ most between machines; folding in the middle ones spreads vendors that count there.
        let place = (u32::from(source[2].swap_bytes()) ^ u32::from(source[1])) & (MEMOS - 1);
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
        Some(((memo.client >> 48) as u32, memo.monitor != 0))
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
        *memo = Memo {
            port: self.port,
            mac: self.mac,
            until,
            client: client.0,
            pending: 0,
            last_seen: now.ticks,
            table: if known { MEMO_KNOWN } else { MEMO_STRANGER },
            monitor: monitor.into(),
        };
    }
}

/// The only reason a memo can stand for.
pub(crate) const fn reason(monitor: bool) -> Reason {
    if monitor { Reason::WouldDropClientLimit } else { Reason::DropClientLimit }
}
