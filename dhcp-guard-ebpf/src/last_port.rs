//! The port that this CPU saw last, and the short way for a flood of random MACs on it.
//!
//! Once a stranger without an entry was dropped for the strangers' share and got none, the same is certain for every
//! other one on that port until the share, or the budget for new clients, has room again: milliseconds, in which tens of
//! thousands may come. For these it is enough to see that they are in no table and have no entry.

use dhcp_guard_common::{
    hash,
    layout::{ClientKey, NO_PORT_SLOT},
    parse::{Dhcp, Towards},
};

use crate::{
    arrival::{self, Arrival, Fresh},
    cpu::Cpu,
    head::{self, Head},
    judge::Verdict,
    maps, ports,
};

/// In the CPU's [`Arrival`], where it outlasts the packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LastPort {
    /// [`PortKey::word`](dhcp_guard_common::layout::PortKey::word). The port is that of just these VLANs.
    port: u64,
    /// `Control::version` that this was true under.
    version: u64,
    slot: u64,
    /// No newcomer gets through or gets an entry before this time, in grains.
    newcomers_until: u64,
    /// Nor does a stranger that was seen lately.
    again_until: u64,
    /// What becomes of them: [`Verdict::for_memo`].
    verdict: u64,
    /// 1: not of one whose chaddr is not its source. That has a rule of its own.
    needs_chaddr: u64,
}

/// Until when strangers without an entry are certain to be dropped, in grains.
#[derive(Clone, Copy)]
pub(crate) struct Shut {
    pub(crate) newcomers_until: u64,
    pub(crate) again_until: u64,
    pub(crate) needs_chaddr: bool,
}

/// A client on the port that was last seen.
#[derive(Clone, Copy)]
pub(crate) struct Near {
    pub(crate) slot: u32,
    pub(crate) hash: u64,
    /// Whether it may be in one of the tables that user space fills.
    pub(crate) listed: bool,
}

impl Near {
    /// Somebody on another port.
    const NOT: Self = Self { slot: NO_PORT_SLOT, hash: 0, listed: false };

    /// A client on the port in this slot.
    #[inline(always)]
    pub(crate) fn of(slot: u32, client: ClientKey) -> Self {
        let hash = hash::mix(client.0, maps::seeds());
        Self { slot, hash, listed: head::may_list(hash) }
    }
}

/// Remembers the port.
#[inline(always)]
pub(crate) fn remember(arrival: &Arrival, slot: u32) {
    let last = LastPort {
        port: arrival.port().word(),
        version: arrival.version,
        slot: slot.into(),
        newcomers_until: 0,
        again_until: 0,
        verdict: 0,
        needs_chaddr: 0,
    };
    // SAFETY: a field of a per-CPU value that only this CPU changes.
    unsafe { *arrival.last_port.get() = last };
}

/// Remembers that strangers without an entry are certain to be dropped. The port must be the one last seen.
#[inline(always)]
pub(crate) fn shut(arrival: &Arrival, verdict: Verdict, shut: Shut) {
    // SAFETY: as in `remember`.
    let last = unsafe { &mut *arrival.last_port.get() };
    if last.port != arrival.port().word() || last.version != arrival.version {
        return;
    }
    last.newcomers_until = shut.newcomers_until;
    last.again_until = shut.again_until;
    last.verdict = verdict.for_memo();
    last.needs_chaddr = shut.needs_chaddr.into();
}

/// What the last port has to say about a packet.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// Its verdict is certain; it is counted for its client as far as it will be.
    Certain(Verdict),
    /// Somebody to be judged. [`Near::slot`] is [`NO_PORT_SLOT`] for somebody on another port.
    Judge(Near),
}

#[inline(always)]
pub(crate) fn ask(cpu: Cpu, fresh: &Fresh, dhcp: &Dhcp) -> Answer {
    // SAFETY: as in `remember`.
    let last = unsafe { &*(*cpu.arrival()).last_port.get() };
    if last.port != fresh.port || last.version != fresh.version {
        return Answer::Judge(Near::NOT);
    }
    let slot = last.slot as u32;
    let hash = hash::mix(ClientKey(fresh.who).on(slot).0, maps::seeds());
    let Some(head) = Head::of(hash) else { return Answer::Judge(Near::NOT) };
    let listed = head.may_list();
    if listed {
        return Answer::Judge(Near { slot, hash, listed });
    }
    match certain(last, slot, head, fresh, dhcp) {
        Some(verdict) => Answer::Certain(verdict),
        None => Answer::Judge(Near { slot, hash, listed }),
    }
}

/// The verdict on a stranger, if it is certain.
#[inline(always)]
fn certain(last: &LastPort, slot: u32, head: Head, fresh: &Fresh, dhcp: &Dhcp) -> Option<Verdict> {
    if last.newcomers_until <= fresh.now.grains {
        return None;
    }
    if dhcp.towards != Towards::Server || arrival::is_malformed(dhcp.source) {
        return None;
    }
    if fresh.sender.chaddr_differs && last.needs_chaddr != 0 {
        return None;
    }
    if head.may_have_entry() {
        return None;
    }
    let seen = head.was_seen();
    if seen && last.again_until <= fresh.now.grains {
        return None;
    }
    head.remember(seen);
    ports::mark_distinct(maps::PORT_STATES.get_ptr_mut(slot)?, head.hash());
    Some(Verdict::from_memo(last.verdict))
}
