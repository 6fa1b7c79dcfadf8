//! The memory of clients whose packets are certain to be dropped.
//!
//! While a limiter says "nothing before `until`", or a quarantine lasts, no lookup can change the verdict: each CPU
//! remembers such clients, one for each place in a small array, and answers the bulk of a flood from there. The packets
//! counted in a memo belong to the client's entry: they are handed over when the memo's certainty ends or its place is
//! needed, and user space adds what is still pending, so the client's packets and drops stay exact.

use dhcp_guard_common::{
    layout::{CLIENT_MEMO_BITS, ClientKey, ClientMemo, MEMO_KNOWN, MEMO_V6},
    parse::Family,
    verdict::Reason,
};

use crate::{
    clients,
    clock::Now,
    cpu::Cpu,
    judge::{SPARES_FOREIGN_CHADDR, Verdict},
};

/// The place for a client on a port, on this CPU.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    memo: *mut ClientMemo,
    port: u64,
    who: u64,
    version: u64,
}

impl Place {
    /// `port` is [`PortKey::word`](dhcp_guard_common::layout::PortKey::word), `who` a client key on no port yet.
    #[inline(always)]
    pub(crate) fn of(cpu: Cpu, port: u64, who: u64, family: Family, version: u64) -> Self {
        // The uppermost bits of a product depend on all of the key: vendors count in one byte, lab machines in another.
        let memo = cpu.memo(who.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - CLIENT_MEMO_BITS));
        let family = match family {
            Family::V4 => 0,
            Family::V6 => MEMO_V6,
        };
        Self { memo, port, who: who | family, version }
    }

    /// Counts the packet here if its verdict is certain.
    #[inline(always)]
    pub(crate) fn answer(self, now: Now, chaddr_differs: bool) -> Option<Verdict> {
        // SAFETY: a per-CPU value that only this CPU changes.
        let memo = unsafe { &mut *self.memo };
        if memo.who != self.who || memo.port != self.port || memo.version != self.version || memo.until <= now.grains {
            return None;
        }
        if chaddr_differs && memo.verdict & SPARES_FOREIGN_CHADDR != 0 {
            return None;
        }
        memo.pending += 1;
        memo.last_seen = now.ticks;
        Some(Verdict::from_word(memo.verdict))
    }

    /// Remembers that `client` is to be dropped with this verdict until `until`, unless the place holds another certainty.
    ///
    /// `flags`: of the memo's verdict.
    #[inline(always)]
    pub(crate) fn remember(self, client: ClientKey, verdict: Verdict, flags: u64, until: u64, now: Now) {
        // SAFETY: a per-CPU value that only this CPU changes.
        let memo = unsafe { &mut *self.memo };
        if memo.until > now.grains && memo.version == self.version {
            return;
        }
        if memo.pending > 0 {
            hand_over(memo);
        }
        // User space may copy the memo at any moment: it must never see the old client's count under the new client.
        // SAFETY: as above; volatile, so that this store stays in front of the others.
        unsafe { (&raw mut memo.pending).write_volatile(0) };
        memo.client = client.0;
        memo.last_seen = now.ticks;
        memo.verdict = verdict.word() | flags;
        (memo.port, memo.who, memo.version, memo.until) = (self.port, self.who, self.version, until);
    }
}

#[inline(always)]
fn hand_over(memo: &ClientMemo) {
    let known = memo.verdict & MEMO_KNOWN != 0;
    let reason = memo.verdict as usize & 0xff;
    let own = reason == Reason::DropClientLimit.index() || reason == Reason::WouldDropClientLimit.index();
    clients::hand_over(ClientKey(memo.client), known, own, memo.pending, memo.last_seen);
}
