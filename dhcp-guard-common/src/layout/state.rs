//! What the program keeps: limiters, counters, marks and memories.

use super::PortKey;
use crate::verdict::{MessageType, Note, Reason};

/// Limiter words and marks of a port, and when its quarantine and its place on the allowlist end. The deadlines are user space's, all else the
/// program's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortState {
    /// Moves everything else.
    #[cfg(feature = "other-layout")]
    pub moves: [u64; 32],
    /// Word of `PortPolicy::total`.
    pub total: u64,
    /// Word of `PortPolicy::strangers`.
    pub strangers: u64,
    /// Word of `PortPolicy::discover`.
    pub discover: u64,
    /// Word of `PortPolicy::new_clients`.
    pub new_clients: u64,
    /// The port's DHCP is dropped until this tick.
    pub muted_until: u64,
    /// All its frames are dropped until this tick.
    pub isolated_until: u64,
    /// All its packets pass, whatever else says otherwise, until this tick; [`FOREVER`](super::FOREVER) for no end.
    pub allowed_until: u64,
    /// Tick of the latest packet that was over the port's own limits.
    pub last_excess: u64,
    /// Tick of the latest server message, on a port that is not trusted.
    pub last_server: u64,
    /// Tick of the latest frame with VLANs that have no port of their own (on the interface's default port).
    pub last_unknown_vlan: u64,
    /// The server that was told of last, as [`ClientKey`](super::ClientKey), and the tick.
    pub server_told: [u64; 2],
    /// The VLANs without a port that were told of last, as [`PortKey::word`], and the tick.
    pub vlans_told: [u64; 2],
    /// Keeps the bitmap on cache lines of its own.
    pub reserved: [u64; 2],
    /// Which strangers sent something since user space last cleared it: one bit for each, by hash. How many bits are set
    /// says how many MACs there were.
    pub distinct: [u64; DISTINCT_WORDS],
}

/// Words of [`PortState::distinct`].
pub const DISTINCT_WORDS: usize = 16;

/// Limiter words of the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// Moves everything else.
    #[cfg(feature = "other-layout")]
    pub moves: [u64; 3],
    /// Word of `HostPolicy::total`.
    pub total: u64,
    /// Word of `HostPolicy::strangers`.
    pub strangers: u64,
    /// Tick of the latest packet that was over the host's budget.
    pub last_excess: u64,
}

/// Limiter words and counts of a client.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientState {
    /// Word of `PortPolicy::client_v4`.
    #[cfg(not(feature = "other-layout"))]
    pub limiter_v4: u64,
    /// Word of `PortPolicy::client_v6`.
    pub limiter_v6: u64,
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
    /// [`Sender::relay`](crate::message::Sender::relay).
    pub relay: u64,
    /// [`Sender::client`](crate::message::Sender::client).
    pub client: u64,
    /// Word of `PortPolicy::client_v4`.
    #[cfg(feature = "other-layout")]
    pub limiter_v4: u64,
}

/// A per-CPU memory of a client whose packets are certain to be dropped until `until`, unless the version changes: they
/// are answered without any lookup. It keeps the count and hands it over to the client's entry when it is let go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientMemo {
    /// The client's port as [`PortKey::word`].
    pub port: u64,
    /// Who: [`ClientKey::of`](super::ClientKey::of), and [`MEMO_V6`] for its DHCPv6.
    pub who: u64,
    /// `Control::version` that this was true under.
    pub version: u64,
    /// Certain before this time, in grains.
    pub until: u64,
    /// The client as [`ClientKey`](super::ClientKey).
    pub client: u64,
    /// Packets dropped here and not yet handed over.
    pub pending: u64,
    /// Tick of the latest of them.
    pub last_seen: u64,
    /// The reason's index in the lowest byte, the slot in the four above; [`MEMO_KNOWN`], and the program's own flags in
    /// bits 60 to 62.
    pub verdict: u64,
}

/// [`ClientMemo::who`]: the DHCPv6 of this client. Its limiter is another one.
pub const MEMO_V6: u64 = 1 << 62;
/// [`ClientMemo::verdict`]: the client is in the known table, not in the strangers'.
pub const MEMO_KNOWN: u64 = 1 << 63;
/// Client memos of each CPU, as a power of two; a client has its place by its key.
pub const CLIENT_MEMO_BITS: u32 = 8;

/// What a CPU remembers from packet to packet. One value, so that one lookup finds all of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuState {
    /// By the client's key.
    pub memos: [ClientMemo; 1 << CLIENT_MEMO_BITS],
    /// No memo is certain at this time (grains) or later: none need be looked at.
    pub memos_until: u64,
    /// The program's own: the packet that is being judged, and the ports last seen.
    pub own: [u64; CPU_OWN_WORDS],
}

/// Words of [`CpuState::own`].
pub const CPU_OWN_WORDS: usize = 79;

/// A per-CPU memory of the slot that a port has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortMemo {
    /// [`PortKey::word`].
    pub port: u64,
    /// `Control::version` that this was true under.
    pub version: u64,
    /// The slot.
    pub slot: u32,
    /// Always 0.
    pub padding: u32,
}

/// Port memos for each CPU, as a power of two.
pub const PORT_MEMO_BITS: u32 = 6;

/// Packets of one port, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCounters {
    /// In the order of [`Reason::ALL`]. They add up to the port's DHCP packets.
    pub reasons: [u64; Reason::COUNT],
    /// In the order of [`MessageType::ALL`]. They add up to the same.
    pub messages: [u64; MessageType::COUNT],
    /// In the order of [`Note::ALL`].
    pub notes: [u64; Note::COUNT],
}

impl PortCounters {
    /// Nothing counted.
    pub const ZERO: Self =
        Self { reasons: [0; Reason::COUNT], messages: [0; MessageType::COUNT], notes: [0; Note::COUNT] };

    /// Adds another CPU's, or another port's.
    pub fn add(&mut self, other: &Self) {
        let Self { reasons, messages, notes } = self;
        let pairs = reasons.iter_mut().zip(&other.reasons);
        let pairs = pairs.chain(messages.iter_mut().zip(&other.messages)).chain(notes.iter_mut().zip(&other.notes));
        for (into, from) in pairs {
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
    /// Events while no agent had given a sign of life for [`UNATTENDED_S`](super::UNATTENDED_S): the buffer goes with its
    /// program, so nobody will hear of them.
    pub events_unheard: u64,
    /// New clients that did not get an entry because other CPUs were filling the same place.
    pub insert_failed: u64,
    /// Packets that a memo counted for a client which had no entry any more when they were handed over.
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
    /// The client as [`ClientKey`](super::ClientKey) with the slot.
    pub client: u64,
    /// The frame's interface and VLANs.
    pub port: PortKey,
}

/// A client went over its own limit, for the first time or after [`QUIET_S`](super::QUIET_S) of keeping to it.
pub const EVENT_CLIENT_OVER_LIMIT: u32 = 1;
/// A port went over its limit, or strangers over their share of it.
pub const EVENT_PORT_OVER_LIMIT: u32 = 2;
/// A server's message came from a port that is not trusted.
pub const EVENT_ROGUE_SERVER: u32 = 3;
/// A frame had VLANs without a port of their own; the interface's default port took it.
pub const EVENT_UNKNOWN_VLAN: u32 = 4;
/// The host is over its budget, or strangers over their share of it.
pub const EVENT_HOST_OVER_LIMIT: u32 = 5;

const _: () = {
    assert!(size_of::<PortState>() == if cfg!(feature = "other-layout") { 512 } else { 256 });
    assert!(DISTINCT_WORDS * 64 == 1 << 10, "hash::distinct_bit has ten bits");
    assert!(size_of::<HostState>() == if cfg!(feature = "other-layout") { 48 } else { 24 });
    assert!(size_of::<ClientState>() == 80);
    assert!(size_of::<ClientMemo>() == 64);
    assert!(size_of::<PortMemo>() == 24);
    assert!(size_of::<CpuState>() == 640 + (size_of::<ClientMemo>() << CLIENT_MEMO_BITS));
    assert!(size_of::<CpuState>() <= 32 << 10, "the kernel's largest per-CPU value, PCPU_MIN_UNIT_SIZE");
    assert!(size_of::<Event>() == 32);
    assert!(size_of::<PortCounters>() == 8 * (Reason::COUNT + MessageType::COUNT + Note::COUNT));
};
