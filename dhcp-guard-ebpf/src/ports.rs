//! From interface and VLANs to the port's slot.
//!
//! Each CPU remembers the ports that it saw lately; only what it does not remember is looked up, and VLANs that certainly
//! have no port of their own are not even that.

use dhcp_guard_common::{
    gcra::Word as _,
    hash::{self, part},
    layout::{PORT_MEMO_BITS, PORT_PRESENT, PortKey, PortMemo, PortPolicy, PortState, policy_index},
};

use crate::{atomic::Shared, head, maps};

/// A slot, and whether it is the port of just these VLANs or the interface's default port.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) slot: u32,
    pub(crate) is_own: bool,
}

/// The port of these VLANs under this version, or else the interface's default port.
#[inline(always)]
pub(crate) fn find(key: PortKey, version: u64, bank: u32) -> Option<Found> {
    if let Some(slot) = remembered(key, version) {
        return Some(Found { slot, is_own: true });
    }
    let default = PortKey::default_of(key.ifindex);
    let has_vlans = key.word() != default.word();
    if has_vlans {
        if let Some(slot) = look_up(key, version, bank) {
            return Some(Found { slot, is_own: true });
        }
        if let Some(slot) = remembered(default, version) {
            return Some(Found { slot, is_own: false });
        }
    }
    look_up(default, version, bank).map(|slot| Found { slot, is_own: !has_vlans })
}

/// What is in force for a slot: `None` if no such port is.
#[inline(always)]
pub(crate) fn policy(slot: u32, bank: u32) -> Option<&'static PortPolicy> {
    let policy = maps::POLICIES.get_ptr(policy_index(slot, bank))?;
    // SAFETY: a lookup made the pointer. User space writes a bank only while no program can be reading it.
    let policy = unsafe { &*policy };
    (policy.flags & PORT_PRESENT != 0).then_some(policy)
}

/// One bit for each stranger that sends: how many there are says whether the MACs are random.
#[inline(always)]
pub(crate) fn mark_distinct(state: *mut PortState, hash: u64) {
    let bit = hash::distinct_bit(hash);
    // SAFETY: a field of a map value; the index is below DISTINCT_WORDS.
    let word = unsafe { Shared::new((&raw mut (*state).distinct).cast::<u64>().add(bit as usize / 64)) };
    let mask = 1u64 << (bit % 64);
    let before = word.load();
    if before & mask == 0 {
        // Lost if another CPU changes the word right now; the client's next packet sets it.
        let _ = word.compare_and_swap(before, before | mask);
    }
}

#[inline(always)]
fn remembered(key: PortKey, version: u64) -> Option<u32> {
    let memo = place(key)?;
    // SAFETY: a lookup made the pointer, to a per-CPU value that only this CPU changes.
    let memo = unsafe { &*memo };
    (memo.port == key.word() && memo.version == version).then_some(memo.slot)
}

/// The slot from the table, if it is in force; remembered from now on.
#[inline(never)]
fn look_up(key: PortKey, version: u64, bank: u32) -> Option<u32> {
    if !head::may_list(hash::mix(key.listed_as(), maps::seeds())) {
        return None;
    }
    // SAFETY: a lookup made the pointer; user space writes a port's slot once.
    let slot = unsafe { *maps::PORTS.get_ptr(key)? };
    policy(slot, bank)?;
    if let Some(memo) = place(key) {
        // SAFETY: as in `remembered`.
        unsafe { *memo = PortMemo { port: key.word(), version, slot, padding: 0 } };
    }
    Some(slot)
}

/// Where the port has its memo. Neighbours in number have neighbouring places, so a host's few interfaces, or an
/// interface's few VLANs, do not meet.
#[inline(always)]
fn place(key: PortKey) -> Option<*mut PortMemo> {
    let number = key.ifindex ^ u32::from(key.outer_vlan) ^ u32::from(key.inner_vlan) << 3;
    maps::PORT_MEMOS.get_ptr_mut(part(u64::from(number), 0, PORT_MEMO_BITS))
}
