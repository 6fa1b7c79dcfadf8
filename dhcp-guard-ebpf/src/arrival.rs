//! What the rules need to know of a packet: all that is left of it when the parser is done.

use core::{arch::asm, cell::UnsafeCell};

use dhcp_guard_common::{
    gcra::GRAIN_BITS,
    layout::{ClientKey, NO_PORT_SLOT, PortKey},
    message::Sender,
    parse::{Dhcp, Family, Towards},
    verdict::MessageType,
};

use crate::{
    clock::Now,
    control,
    cpu::Cpu,
    last_ports::{LAST_PORTS, LastPort, Located},
    maps, memo,
};

/// A DHCP packet, in the CPU's place for it (see [`crate::judge`] for why).
#[repr(C)]
pub(crate) struct Arrival {
    /// [`PortKey::word`] of interface and VLANs.
    port: u64,
    /// The client, on no port yet.
    who: u64,
    /// `Control::version` when the packet came.
    pub(crate) version: u64,
    ticks: u64,
    relay: u64,
    client: u64,
    source: u64,
    message: u64,
    flags: u64,
    /// [`Located`], with [`flag::LISTED`].
    slot: u64,
    hash: u64,
    /// The ports that this CPU saw last, packet after packet.
    pub(crate) last_ports: UnsafeCell<[LastPort; LAST_PORTS]>,
}

/// [`Arrival::flags`].
mod flag {
    pub(super) const V6: u64 = 1;
    pub(super) const TOWARDS_CLIENT: u64 = 1 << 1;
    pub(super) const CHADDR_DIFFERS: u64 = 1 << 2;
    pub(super) const LISTED: u64 = 1 << 3;
}

/// The same while it is still in registers: enough to ask the memo and the ports last seen.
#[derive(Clone, Copy)]
pub(crate) struct Fresh {
    pub(crate) port: u64,
    pub(crate) who: u64,
    pub(crate) version: u64,
    pub(crate) now: Now,
    pub(crate) sender: Sender,
}

impl Fresh {
    #[inline(always)]
    pub(crate) fn new(ifindex: u32, dhcp: &Dhcp, sender: Sender) -> Self {
        Self {
            port: PortKey::new(ifindex, dhcp.vlans).word(),
            who: ClientKey::of(sender, maps::seeds()).0,
            version: control::version(),
            now: Now::read(),
            sender,
        }
    }

    /// Where this CPU may remember it. `None`: it does not.
    #[inline(always)]
    pub(crate) fn memo(&self, cpu: Cpu, dhcp: &Dhcp) -> Option<memo::Place> {
        if !cpu.has_memos(self.now) || dhcp.towards == Towards::Client {
            return None;
        }
        Some(memo::Place::of(cpu, self.port, self.who, dhcp.family, self.version))
    }
}

// SAFETY: each CPU has its own, and the program, at either hook, runs to its end there.
unsafe impl Sync for Arrival {}

impl Arrival {
    /// Puts the packet into this CPU's place for it.
    #[inline(always)]
    pub(crate) fn keep(cpu: Cpu, fresh: &Fresh, dhcp: &Dhcp, message: MessageType, located: Located) -> &'static Self {
        let place = cpu.arrival();
        let family = match dhcp.family {
            Family::V4 => 0,
            Family::V6 => flag::V6,
        };
        let towards = match dhcp.towards {
            Towards::Server => 0,
            Towards::Client => flag::TOWARDS_CLIENT,
        };
        let chaddr = if fresh.sender.chaddr_differs { flag::CHADDR_DIFFERS } else { 0 };
        let listed = if located.listed { flag::LISTED } else { 0 };
        // SAFETY: a lookup made the pointer, to a value of this CPU alone, where no other packet is until this one is done
        // with: both hooks run with bottom halves off. Only `last_ports` last.
        unsafe {
            (*place).port = fresh.port;
            (*place).who = fresh.who;
            (*place).version = fresh.version;
            (*place).ticks = fresh.now.ticks;
            (*place).relay = fresh.sender.relay;
            (*place).client = fresh.sender.client;
            (*place).source = dhcp.source;
            (*place).message = message.index() as u64;
            (*place).flags = family | towards | chaddr | listed;
            (*place).slot = located.slot.into();
            (*place).hash = located.hash;
            // Or LLVM would go on with what it has in registers, and the verifier with all it knows of that.
            forget(place);
            &*place
        }
    }

    /// The index of its message type.
    #[inline(always)]
    pub(crate) fn message(&self) -> usize {
        self.message as usize
    }

    #[inline(always)]
    pub(crate) fn port(&self) -> PortKey {
        PortKey::from_word(self.port)
    }

    /// The client on a port that was seen lately; `None` for one on another port.
    #[inline(always)]
    pub(crate) fn located(&self) -> Option<Located> {
        let slot = self.slot as u32;
        (slot != NO_PORT_SLOT).then_some(Located { slot, hash: self.hash, listed: self.has(flag::LISTED) })
    }

    /// Behind a relay: the relay itself, on the port in a slot. Its frames are its own, too.
    #[inline(always)]
    pub(crate) fn relay_on(&self, slot: u32) -> Option<ClientKey> {
        (self.relay != 0).then(|| ClientKey::new(slot, self.source))
    }

    /// The client on the port in a slot.
    #[inline(always)]
    pub(crate) fn client_on(&self, slot: u32) -> ClientKey {
        ClientKey(self.who).on(slot)
    }

    /// Where this CPU is to remember it until then, in grains; `None` for a server's message.
    #[inline(always)]
    pub(crate) fn memo_until(&self, until: u64) -> Option<memo::Place> {
        if self.is_towards_client() {
            return None;
        }
        let cpu = Cpu::this()?;
        cpu.expect_memos_until(until);
        Some(memo::Place::of(cpu, self.port, self.who, self.family(), self.version))
    }

    #[inline(always)]
    pub(crate) fn now(&self) -> Now {
        Now { ticks: self.ticks, grains: self.ticks << GRAIN_BITS }
    }

    #[inline(always)]
    pub(crate) fn sender(&self) -> Sender {
        Sender { relay: self.relay, client: self.client, chaddr_differs: self.chaddr_differs() }
    }

    #[inline(always)]
    pub(crate) fn family(&self) -> Family {
        if self.has(flag::V6) { Family::V6 } else { Family::V4 }
    }

    #[inline(always)]
    pub(crate) fn is_towards_client(&self) -> bool {
        self.has(flag::TOWARDS_CLIENT)
    }

    #[inline(always)]
    pub(crate) fn chaddr_differs(&self) -> bool {
        self.has(flag::CHADDR_DIFFERS)
    }

    /// A DISCOVER or a Solicit.
    #[inline(always)]
    pub(crate) fn is_discover(&self) -> bool {
        self.message == MessageType::Discover.index() as u64 || self.message == MessageType::V6Solicit.index() as u64
    }

    /// From a source MAC that nobody can have.
    #[inline(always)]
    pub(crate) fn is_malformed(&self) -> bool {
        is_malformed(self.source)
    }

    #[inline(always)]
    fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// A source MAC that nobody can have: a group address, or zero.
#[inline(always)]
pub(crate) fn is_malformed(source: u64) -> bool {
    source & 1 != 0 || source == 0
}

/// Makes LLVM believe that the memory has changed.
#[inline(always)]
fn forget(place: *mut Arrival) {
    // SAFETY: changes nothing.
    unsafe { asm!("{0} = {0}", in(reg) place, options(nostack, preserves_flags)) };
}
