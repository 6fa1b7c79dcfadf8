//! The ports that this CPU saw last, and the short way for a flood of random MACs on one of them.
//!
//! Once a stranger without an entry was dropped for the strangers' share and got none, the same is certain for every
//! other one on that port until the share, or the budget for new clients, has room again: milliseconds, in which tens of
//! thousands may come. On a port in quarantine it is certain until that ends. For these it is enough to see that they are
//! in no table and have no entry.

use dhcp_guard_common::{
    hash,
    layout::{ClientKey, NO_PORT_SLOT},
    parse::{Dhcp, Towards},
};

use crate::{
    arrival::{self, Arrival, Fresh},
    control,
    cpu::Cpu,
    head::{self, Head},
    judge::Verdict,
    maps, ports,
};

/// How many: each port has its place. A power of two.
pub(crate) const LAST_PORTS: usize = 8;

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
    /// What becomes of them: [`Verdict::word`].
    verdict: u64,
    /// Of [`shut`].
    flags: u64,
}

/// [`Shut::flags`].
pub(crate) mod shut {
    /// Not of one whose chaddr is not its source: that has a rule of its own.
    pub(crate) const SPARES_FOREIGN_CHADDR: u64 = 1;
    /// Whoever is dropped is remembered as seen: it may come back.
    pub(crate) const REMEMBERS: u64 = 1 << 1;
}

/// Until when strangers without an entry are certain to be dropped, in grains.
#[derive(Clone, Copy)]
pub(crate) struct Shut {
    pub(crate) newcomers_until: u64,
    pub(crate) again_until: u64,
    pub(crate) flags: u64,
}

/// A client on a port.
#[derive(Clone, Copy)]
pub(crate) struct Located {
    pub(crate) slot: u32,
    pub(crate) hash: u64,
    /// Whether it may be in one of the tables that user space fills.
    pub(crate) listed: bool,
}

impl Located {
    /// Somebody on a port that was not seen lately.
    const NOT_YET: Self = Self { slot: NO_PORT_SLOT, hash: 0, listed: false };

    /// A client on the port in this slot.
    #[inline(always)]
    pub(crate) fn on(slot: u32, client: ClientKey) -> Self {
        let hash = hash::mix(client.0, maps::seeds());
        Self { slot, hash, listed: head::may_list(hash) }
    }
}

/// The place of a port, as [`PortKey::word`](dhcp_guard_common::layout::PortKey::word). Neighbours have neighbouring
/// places.
#[inline(always)]
fn place(arrival: *const Arrival, port: u64) -> *mut LastPort {
    let number = port ^ port >> 32 ^ port >> 45;
    // SAFETY: an element of an array in a per-CPU value that only this CPU changes; the index is below its length.
    unsafe { (*arrival).last_ports.get().cast::<LastPort>().add(number as usize & (LAST_PORTS - 1)) }
}

/// Remembers the port.
#[inline(always)]
pub(crate) fn remember(arrival: &Arrival, slot: u32) {
    let port = arrival.port().word();
    let last = LastPort {
        port,
        version: arrival.version,
        slot: slot.into(),
        newcomers_until: 0,
        again_until: 0,
        verdict: 0,
        flags: 0,
    };
    // SAFETY: see `place`.
    unsafe { *place(arrival, port) = last };
}

/// Remembers that strangers without an entry are certain to be dropped, if the port is among those remembered.
#[inline(always)]
pub(crate) fn shut(arrival: &Arrival, verdict: Verdict, shut: Shut) {
    let port = arrival.port().word();
    // SAFETY: see `place`.
    let last = unsafe { &mut *place(arrival, port) };
    if last.port != port || last.version != arrival.version {
        return;
    }
    last.newcomers_until = shut.newcomers_until;
    last.again_until = shut.again_until;
    last.verdict = verdict.word();
    last.flags = shut.flags;
}

/// What the ports last seen have to say about a packet.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// Its verdict is certain; it is counted for its client as far as it will be.
    Certain(Verdict),
    /// Somebody to be judged. [`Located::slot`] is [`NO_PORT_SLOT`] for somebody on a port that was not seen lately.
    Judge(Located),
}

#[inline(always)]
pub(crate) fn ask(cpu: Cpu, fresh: &Fresh, dhcp: &Dhcp) -> Answer {
    // SAFETY: see `place`.
    let last = unsafe { &*place(cpu.arrival(), fresh.port) };
    if last.port != fresh.port || last.version != fresh.version {
        return Answer::Judge(Located::NOT_YET);
    }
    let slot = last.slot as u32;
    let hash = hash::mix(ClientKey(fresh.who).on(slot).0, maps::seeds());
    let Some(head) = Head::of(hash) else { return Answer::Judge(Located::NOT_YET) };
    let located = Located { slot, hash, listed: head.may_list() };
    match certain(last, located, head, fresh, dhcp) {
        Some(verdict) => Answer::Certain(verdict),
        None => Answer::Judge(located),
    }
}

/// The verdict on a stranger, if it is certain.
#[inline(always)]
fn certain(last: &LastPort, located: Located, head: Head, fresh: &Fresh, dhcp: &Dhcp) -> Option<Verdict> {
    if located.listed || last.newcomers_until <= fresh.now.grains {
        return None;
    }
    if dhcp.towards != Towards::Server || arrival::is_malformed(dhcp.source) {
        return None;
    }
    if fresh.sender.chaddr_differs && last.flags & shut::SPARES_FOREIGN_CHADDR != 0 {
        return None;
    }
    // There may be a rule about the relay.
    if fresh.sender.relay != 0 && control::has_client_rules() {
        return None;
    }
    if head.may_have_entry() {
        return None;
    }
    let seen = head.was_seen();
    if seen && last.again_until <= fresh.now.grains {
        return None;
    }
    head.remember(seen || last.flags & shut::REMEMBERS == 0);
    ports::mark_distinct(maps::PORT_STATES.get_ptr_mut(located.slot)?, located.hash);
    Some(Verdict::from_word(last.verdict))
}
