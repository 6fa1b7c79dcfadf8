//! The maps, and the few values that user space sets. Sizes are set by user space at load; the ones here are the defaults.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use dhcp_guard_common::{
    hash::Seeds,
    layout::{
        Bucket, ClientKey, ClientRule, ClientState, CpuState, Head, HostPolicy, HostState, Meta, PORT_MEMO_BITS,
        PortCounters, PortKey, PortMemo, PortPolicy, PortState, Troubles,
    },
};

/// Which slot a port has. User space writes, the program reads.
#[map]
pub(crate) static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(1024, 0);

/// What user space decided about the port in each slot, in both banks.
#[map]
pub(crate) static POLICIES: Array<PortPolicy> = Array::with_max_entries(2 * 1024, 0);

/// What user space decided about the host, in both banks.
#[map]
pub(crate) static HOST_POLICIES: Array<HostPolicy> = Array::with_max_entries(2, 0);

/// Limiters and quarantine of the port in each slot.
#[map]
pub(crate) static PORT_STATES: Array<PortState> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// Limiters of the host.
#[map]
pub(crate) static HOST_STATE: Array<HostState> = Array::with_max_entries(1, 0);

/// Counters of the port in each slot.
#[map]
pub(crate) static PORT_COUNTERS: PerCpuArray<PortCounters> = PerCpuArray::with_max_entries(1024, 0);

/// Servers' messages that left through the port in each slot. Not by CPU, like the counters above: there are few of them,
/// and so user space reads them without asking the kernel.
#[map]
pub(crate) static REPLIES: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// Known clients. User space adds and removes them; the program changes their state in place.
#[map]
pub(crate) static KNOWN: HashMap<ClientKey, ClientState> = HashMap::with_max_entries(16384, 0);

/// Clients in quarantine or on the allowlist. User space writes, the program reads.
#[map]
pub(crate) static RULES: HashMap<ClientKey, ClientRule> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// What is asked first about a key: whether it can be in [`PORTS`], [`KNOWN`], [`RULES`] or [`STRANGERS`].
#[map]
pub(crate) static HEADS: Array<Head> = Array::with_max_entries(16384, BPF_F_MMAPABLE);

/// Strangers.
#[map]
pub(crate) static STRANGERS: Array<Bucket> = Array::with_max_entries(16384, BPF_F_MMAPABLE);

/// What each CPU remembers from packet to packet.
#[map]
pub(crate) static CPU: PerCpuArray<CpuState> = PerCpuArray::with_max_entries(1, 0);

/// Ports that were seen lately.
#[map]
pub(crate) static PORT_MEMOS: PerCpuArray<PortMemo> = PerCpuArray::with_max_entries(1 << PORT_MEMO_BITS, 0);

/// What could not be done.
#[map]
pub(crate) static TROUBLES: PerCpuArray<Troubles> = PerCpuArray::with_max_entries(1, 0);

/// State changes, for the agent.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// The tick counter as `read_clock` last saw it.
#[map]
pub(crate) static CLOCK: Array<u64> = Array::with_max_entries(1, 0);

/// What these maps say about themselves, for whichever agent comes next; and when an agent last was there.
#[map]
pub(crate) static META: Array<Meta> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Multipliers of the hash; drawn at random by user space.
#[unsafe(no_mangle)]
static SEED_A: Global<u64> = Global::new(0x9e37_79b9_7f4a_7c15);
/// The second one.
#[unsafe(no_mangle)]
static SEED_B: Global<u64> = Global::new(0xc2b2_ae3d_27d4_eb4f);

/// Bits of an index into [`HEADS`], which has as many places as that can name.
#[unsafe(no_mangle)]
static HEADS_BITS: Global<u32> = Global::new(14);
/// The same for [`STRANGERS`].
#[unsafe(no_mangle)]
static STRANGERS_BITS: Global<u32> = Global::new(14);

#[inline(always)]
pub(crate) fn seeds() -> Seeds {
    Seeds([SEED_A.load(), SEED_B.load()])
}

#[inline(always)]
pub(crate) fn strangers_bits() -> u32 {
    STRANGERS_BITS.load()
}

#[inline(always)]
pub(crate) fn heads_bits() -> u32 {
    HEADS_BITS.load()
}
