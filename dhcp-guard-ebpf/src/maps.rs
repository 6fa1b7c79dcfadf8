//! The maps. Sizes are set by user space at load; the ones here are the defaults.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use dhcp_guard_common::layout::{
    ClientKey, ClientState, MEMOS as MEMOS_PER_CPU, Memo, PortCounters, PortKey, PortPolicy, PortState, Troubles,
};

/// Which slot a port has. User space writes, the program reads.
#[map]
pub(crate) static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(1024, 0);

/// What user space decided about the port in each slot.
#[map]
pub(crate) static POLICIES: Array<PortPolicy> = Array::with_max_entries(1024, 0);

/// Limiters of the port in each slot.
#[map]
pub(crate) static PORT_STATES: Array<PortState> = Array::with_max_entries(1024, 0);

/// Counters of the port in each slot.
#[map]
pub(crate) static PORT_COUNTERS: PerCpuArray<PortCounters> = PerCpuArray::with_max_entries(1024, 0);

/// Frames that were not DHCP, by the low bits of the interface index (see [`INTERFACE_MASK`]).
#[map]
pub(crate) static NON_DHCP: PerCpuArray<u64> = PerCpuArray::with_max_entries(256, 0);

/// Known clients. User space adds and removes them; the program changes their state in place.
#[map]
pub(crate) static KNOWN: HashMap<ClientKey, ClientState> = HashMap::with_max_entries(16384, 0);

/// Strangers. The least recently used make room.
#[map]
pub(crate) static STRANGERS: LruHashMap<ClientKey, ClientState> = LruHashMap::with_max_entries(65536, 0);

/// Clients that are certain to be over their limit for a while.
#[map]
pub(crate) static MEMOS: PerCpuArray<Memo> = PerCpuArray::with_max_entries(MEMOS_PER_CPU, 0);

/// What could not be done.
#[map]
pub(crate) static TROUBLES: PerCpuArray<Troubles> = PerCpuArray::with_max_entries(1, 0);

/// State changes, for the agent.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// The tick counter as `read_clock` last saw it.
#[map]
pub(crate) static CLOCK: Array<u64> = Array::with_max_entries(1, 0);

/// Size of [`NON_DHCP`] minus 1. User space chooses it so that no two guarded interfaces share a place.
#[unsafe(no_mangle)]
static INTERFACE_MASK: Global<u32> = Global::new(255);

/// See [`INTERFACE_MASK`].
#[inline(always)]
pub(crate) fn interface_place(ifindex: u32) -> u32 {
    ifindex & INTERFACE_MASK.load()
}
