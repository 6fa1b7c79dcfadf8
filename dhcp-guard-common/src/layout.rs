//! Keys and values of the BPF maps: fixed-width integers in C layout, no padding that is not spelled out.
//!
//! Who writes what: user space writes [`PortKey`] → slot, [`PortPolicy`] and the known clients' keys; the program
//! writes everything else in place. Times are in ticks (kernel jiffies) unless a field says grains.

use crate::{
    gcra::Limit,
    parse::{MacWords, Vlans},
    verdict::{MessageType, Reason},
};

/// Changes with every change of a key, a value, or the order of a closed list in [`crate::verdict`].
pub const LAYOUT_VERSION: u32 = 1;

/// Most ports a host can have; the maps are sized for fewer by default.
pub const MAX_PORTS: u32 = 4096;

/// What is policed and quarantined: an interface and a VLAN stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// Outer VLAN id, 0 for none.
    pub outer_vlan: u16,
    /// Inner VLAN id, 0 for none.
    pub inner_vlan: u16,
}

impl PortKey {
    /// The port of frames with these tags on this interface.
    #[must_use]
    #[inline(always)]
    pub const fn new(ifindex: u32, vlans: Vlans) -> Self {
        Self { ifindex, outer_vlan: vlans.outer, inner_vlan: vlans.inner }
    }

    /// The port for frames whose VLANs have none of their own.
    #[must_use]
    #[inline(always)]
    pub const fn default_of(ifindex: u32) -> Self {
        Self { ifindex, outer_vlan: 0, inner_vlan: 0 }
    }
}

/// A client: a port's slot and a source MAC in one word, so that comparing and hashing are one step.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u64);

impl ClientKey {
    /// The client with source MAC `mac` on the port in `slot`. Only the low 16 bits of the slot count.
    #[must_use]
    #[inline(always)]
    pub const fn new(slot: u32, mac: MacWords) -> Self {
        Self(mac[0] as u64 | (mac[1] as u64) << 16 | (mac[2] as u64) << 32 | (slot as u64) << 48)
    }

    /// The slot of the client's port.
    #[must_use]
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 >> 48) as u32
    }

    /// The client's source MAC in transmission order.
    #[must_use]
    pub const fn mac(self) -> [u8; 6] {
        let [a, b] = ((self.0 & 0xffff) as u16).to_ne_bytes();
        let [c, d] = ((self.0 >> 16 & 0xffff) as u16).to_ne_bytes();
        let [e, f] = ((self.0 >> 32 & 0xffff) as u16).to_ne_bytes();
        [a, b, c, d, e, f]
    }

    /// The client with a MAC in transmission order.
    #[must_use]
    pub const fn from_mac(slot: u32, mac: [u8; 6]) -> Self {
        Self::new(
            slot,
            [
                u16::from_ne_bytes([mac[0], mac[1]]),
                u16::from_ne_bytes([mac[2], mac[3]]),
                u16::from_ne_bytes([mac[4], mac[5]]),
            ],
        )
    }
}

/// The port is trusted (DHCP server, relay, uplink towards them): only its own limit applies.
pub const PORT_TRUSTED: u64 = 1;
/// The port is watched, not policed: verdicts are computed and counted, nothing is dropped.
pub const PORT_MONITOR: u64 = 1 << 1;

/// What user space decided about a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPolicy {
    /// Everything together.
    pub total: Limit,
    /// What strangers may take of it.
    pub strangers: Limit,
    /// How many new MACs may be given a place in the strangers' table for the sake of counting their drops.
    pub new_clients: Limit,
    /// Each client.
    pub client: Limit,
    /// [`PORT_TRUSTED`], [`PORT_MONITOR`].
    pub flags: u64,
}

/// Limiter words and marks of a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortState {
    /// Word of [`PortPolicy::total`].
    pub total: u64,
    /// Word of [`PortPolicy::strangers`].
    pub strangers: u64,
    /// Word of [`PortPolicy::new_clients`].
    pub new_clients: u64,
    /// Tick of the latest packet that was over the port's own limits.
    pub last_excess: u64,
    /// Tick of the latest server message, on a port that is not trusted.
    pub last_server: u64,
    /// Tick of the latest frame with VLANs that have no port of their own (on the interface's default port).
    pub last_unknown_vlan: u64,
    /// Keeps one port's words on one cache line.
    pub reserved: [u64; 2],
}

/// Limiter word and counts of a client.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientState {
    /// Word of [`PortPolicy::client`].
    pub limiter: u64,
    /// DHCP packets to servers, since the client got this entry.
    pub packets: u64,
    /// Of these, packets over any limit (dropped, or in `monitor` mode passed all the same).
    pub excess: u64,
    /// Of these, packets over the client's own limit. Only they say that it is the client who misbehaves: the rest was
    /// lost to the company it keeps on its port.
    pub own_excess: u64,
    /// Tick of the first packet.
    pub first_seen: u64,
    /// Tick of the latest packet.
    pub last_seen: u64,
    /// Tick of the latest packet over the client's own limit; 0: never.
    pub last_excess: u64,
}

/// A per-CPU memory of a client that is over its own limit: until `until` nothing about it can change, so its packets
/// are dropped without any lookup. It keeps the count and hands it over to the client's entry when it is let go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memo {
    /// The client's port as [`PortKey`], in one word.
    pub port: u64,
    /// The client as [`ClientKey`] with the slot 0: just the MAC.
    pub mac: u64,
    /// Certain before this time, in grains.
    pub until: u64,
    /// The client as [`ClientKey`].
    pub client: u64,
    /// Packets dropped here and not yet handed over.
    pub pending: u64,
    /// Tick of the latest of them.
    pub last_seen: u64,
    /// [`MEMO_KNOWN`] or [`MEMO_STRANGER`]: which table has the client's entry.
    pub table: u64,
    /// 1: the port is in `monitor` mode, the packets pass.
    pub monitor: u64,
}

/// [`Memo::table`]: the client is in the known table.
pub const MEMO_KNOWN: u64 = 0;
/// [`Memo::table`]: the client is in the strangers' table.
pub const MEMO_STRANGER: u64 = 1;
/// Memos for each CPU; a client has its place by its MAC.
pub const MEMOS: u32 = 256;

/// Packets of one port, on one CPU, for each reason and message type.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCounters {
    /// Rows in the order of [`Reason::ALL`], columns in the order of [`MessageType::ALL`].
    pub by: [[u64; MessageType::COUNT]; Reason::COUNT],
}

impl PortCounters {
    /// Nothing counted.
    pub const ZERO: Self = Self { by: [[0; MessageType::COUNT]; Reason::COUNT] };

    /// Adds another CPU's, or another port's.
    pub fn add(&mut self, other: &Self) {
        for (into, from) in self.by.as_flattened_mut().iter_mut().zip(other.by.as_flattened()) {
            *into += from;
        }
    }
}

/// What the program could not do, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Events not sent because the CPU's budget was spent.
    pub events_suppressed: u64,
    /// Events lost because the ring buffer was full.
    pub events_lost: u64,
    /// New clients that could not be given an entry because the table refused.
    pub insert_failed: u64,
    /// Packets of clients without an entry: counted for their port, not for their MAC.
    pub untracked: u64,
    /// Packets that lost a limiter to other CPUs and count as over the limit.
    pub lost_races: u64,
    /// The events' own limiter word.
    pub event_budget: u64,
}

/// A state change, sent to the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// One of the `EVENT_` constants.
    pub kind: u32,
    /// The port's slot; `u32::MAX` for none.
    pub slot: u32,
    /// When, in ticks.
    pub at: u64,
    /// Source MAC as [`ClientKey`] with the slot.
    pub client: u64,
    /// The frame's interface and VLANs.
    pub port: PortKey,
}

/// A client went over its own limit, for the first time or after [`QUIET_S`] of keeping to it.
pub const EVENT_CLIENT_OVER_LIMIT: u32 = 1;
/// A port went over its limit, or strangers over their share of it.
pub const EVENT_PORT_OVER_LIMIT: u32 = 2;
/// A server's message came from a port that is not trusted.
pub const EVENT_ROGUE_SERVER: u32 = 3;
/// A frame had VLANs without a port of their own; the interface's default port took it.
pub const EVENT_UNKNOWN_VLAN: u32 = 4;
/// The strangers' table refused a new client.
pub const EVENT_TABLE_FULL: u32 = 5;

/// A mark (`last_excess` and its like) that is older than this many seconds has gone quiet: the next packet is a state
/// change again, and worth an event.
pub const QUIET_S: u64 = 10;

/// Slot of frames from an interface that has no port at all. User space gives it to nobody.
pub const NO_PORT_SLOT: u32 = 0;

const _: () = {
    assert!(size_of::<PortKey>() == 8 && align_of::<PortKey>() == 4);
    assert!(size_of::<ClientKey>() == 8);
    assert!(size_of::<PortPolicy>() == 72);
    assert!(size_of::<PortState>() == 64);
    assert!(size_of::<ClientState>() == 56);
    assert!(size_of::<Memo>() == 64);
    assert!(size_of::<Event>() == 32);
    assert!(size_of::<PortCounters>() == 8 * MessageType::COUNT * Reason::COUNT);
    assert!(MAX_PORTS <= 1 << 16, "a slot has 16 bits in ClientKey");
    assert!(MEMOS.is_power_of_two());
};

/// aya moves values between user space and maps as bytes.
#[cfg(feature = "user")]
mod pod {
    macro_rules! plain_old_data {
        ($($name:ident),+) => {$(
            // SAFETY: `repr(C)` or `repr(transparent)`, integers only, no padding (the sizes are asserted above).
            unsafe impl aya::Pod for super::$name {}
        )+};
    }
    plain_old_data!(PortKey, ClientKey, PortPolicy, PortState, ClientState, Memo, PortCounters, Troubles, Event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_key_keeps_slot_and_mac() {
        let mac = [0x02, 0x13, 0x57, 0x9b, 0xdf, 0xfe];
        let key = ClientKey::from_mac(0xbeef, mac);
        assert_eq!((key.slot(), key.mac()), (0xbeef, mac));
    }
}
