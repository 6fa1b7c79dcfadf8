//! What a set of pinned maps says about itself, to whichever agent comes next: an older one, this one again, a newer one.
//!
//! The layout of everything else changes with [`LAYOUT_VERSION`](super::LAYOUT_VERSION). This does not: fields are only
//! ever added at the end of [`Meta`], and [`META_FORMAT`] changes only if one of the old ones must mean something else. So
//! every agent can find in any other's maps what must not be lost when they take turns: who is known, what is spent of each
//! limit, until when somebody is in quarantine.
//!
//! Two things are the same in all layouts, or the format changes: keys are [`PortKey`](super::PortKey) and
//! [`ClientKey`](super::ClientKey), and `PORTS` is a hash map from the first to a slot of 32 bits.

use core::mem::offset_of;

use super::{Bucket, ClientRule, ClientState, HostState, PortState, WAYS};

/// "dhcpgrd" and the format's number, 1.
pub const META_FORMAT: u64 = 0x6468_6370_6772_6401;

/// The only value of the map `META`. User space writes it, but for [`Meta::format`] none of it before all maps are there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`META_FORMAT`]; with anything else the rest means nothing.
    pub format: u64,
    /// [`LAYOUT_VERSION`](super::LAYOUT_VERSION) of the maps.
    pub layout: u64,
    /// 1 once all maps are there and filled, and the program that uses them is on its interfaces.
    pub complete: u64,
    /// The hashes' multipliers: [`Seeds`](crate::hash::Seeds).
    pub seeds: [u64; 2],
    /// The kernel's HZ, as the programs were told.
    pub ticks_per_s: u64,
    /// How many programs have been loaded with these maps. The versions of each begin beyond those of the one before, so
    /// nothing that a CPU remembers under one is taken for the other's.
    pub programs: u64,
    /// Tick at which an agent last said that it reads the counters and decides; 0: none did.
    pub heartbeat: u64,
    /// The same moment on CLOCK_MONOTONIC, in nanoseconds: so ticks can be told as times without a program.
    pub heartbeat_ns: u64,
    /// Where the values of the maps have what is worth keeping.
    pub places: Places,
}

/// Offsets in the maps' values, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// In `PORT_STATES`: [`PORT_WORDS`].
    pub port: [u64; PORT_WORDS.len()],
    /// In `HOST_STATE`: [`HOST_WORDS`].
    pub host: [u64; HOST_WORDS.len()],
    /// In `RULES`: [`RULE_WORDS`].
    pub rule: [u64; RULE_WORDS.len()],
    /// In `KNOWN`, and in the entries of `STRANGERS`: [`CLIENT_WORDS`].
    pub client: [u64; CLIENT_WORDS.len()],
    /// In `STRANGERS`: the keys, the entries, the size of an entry, and how many there are.
    pub bucket: [u64; 4],
}

/// A port's limiters (`total`, `strangers`, `discover`, `new_clients`), and `muted_until`, `isolated_until`,
/// `allowed_until`.
const PORT_WORDS: [u64; 7] = [
    offset_of!(PortState, total) as u64,
    offset_of!(PortState, strangers) as u64,
    offset_of!(PortState, discover) as u64,
    offset_of!(PortState, new_clients) as u64,
    offset_of!(PortState, muted_until) as u64,
    offset_of!(PortState, isolated_until) as u64,
    offset_of!(PortState, allowed_until) as u64,
];
/// How many of a port's words are limiters. They come first.
pub const PORT_LIMITERS: usize = 4;

/// The host's limiters.
const HOST_WORDS: [u64; 2] = [offset_of!(HostState, total) as u64, offset_of!(HostState, strangers) as u64];

/// `muted_until`, `isolated_until`, `allowed_until`.
const RULE_WORDS: [u64; 3] = [
    offset_of!(ClientRule, muted_until) as u64,
    offset_of!(ClientRule, isolated_until) as u64,
    offset_of!(ClientRule, allowed_until) as u64,
];

/// All of a client's words, in the order of [`ClientState`].
const CLIENT_WORDS: [u64; 10] = [
    offset_of!(ClientState, limiter_v4) as u64,
    offset_of!(ClientState, limiter_v6) as u64,
    offset_of!(ClientState, packets) as u64,
    offset_of!(ClientState, excess) as u64,
    offset_of!(ClientState, own_excess) as u64,
    offset_of!(ClientState, first_seen) as u64,
    offset_of!(ClientState, last_seen) as u64,
    offset_of!(ClientState, last_excess) as u64,
    offset_of!(ClientState, relay) as u64,
    offset_of!(ClientState, client) as u64,
];

impl Places {
    /// Of this layout.
    pub const OWN: Self = Self {
        port: PORT_WORDS,
        host: HOST_WORDS,
        rule: RULE_WORDS,
        client: CLIENT_WORDS,
        bucket: [
            offset_of!(Bucket, keys) as u64,
            offset_of!(Bucket, states) as u64,
            size_of::<ClientState>() as u64,
            WAYS as u64,
        ],
    };
}

const _: () = {
    assert!(size_of::<Meta>() == 9 * 8 + size_of::<Places>());
    assert!(size_of::<Places>() == (7 + 2 + 3 + 10 + 4) * 8, "may only grow at its end, and Meta with it");
    assert!(size_of::<ClientState>() == CLIENT_WORDS.len() * 8, "a new field is worth keeping, or it is not: decide");
};
