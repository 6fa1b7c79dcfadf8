//! The strangers' table: set-associative, in an array map, with an order of eviction that is ours.
//!
//! Why not the kernel's LRU hash: its updates cost hundreds of nanoseconds under random keys, it evicts by approximation
//! and per CPU, and can refuse. Here a key has four places, which are looked at only if its [`Head`](super::Head) says that
//! it may have one of them.

use super::ClientState;

/// Entries of a bucket.
pub const WAYS: usize = 4;

/// A key in [`Bucket::keys`] that some CPU is just filling in. No client: its slot is beyond all slots.
pub const BEING_FILLED: u64 = u64::MAX;

/// The entries of clients whose hash begins alike.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Who has the entry at the same place of `states`, as [`ClientKey`](super::ClientKey); 0 for nobody, or
    /// [`BEING_FILLED`].
    pub keys: [u64; WAYS],
    /// Their entries.
    pub states: [ClientState; WAYS],
}

const _: () = assert!(WAYS == 4, "`Head::entries` has as many tags");
