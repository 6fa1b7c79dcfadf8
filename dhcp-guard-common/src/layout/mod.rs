//! Keys and values of the BPF maps: fixed-width integers in C layout, no padding that is not spelled out.
//!
//! * [`heads`]: what is asked first about a key.
//! * [`keys`]: ports and clients.
//! * [`meta`]: what pinned maps say about themselves.
//! * [`policy`]: what user space decides.
//! * [`state`]: what the program keeps and counts.
//! * [`strangers`]: the strangers' table, which is the program's own and not the kernel's.
//!
//! Times are in ticks (kernel jiffies) unless a field says grains.

pub mod heads;
pub mod keys;
pub mod meta;
pub mod policy;
pub mod state;
pub mod strangers;

pub use heads::*;
pub use keys::*;
pub use meta::*;
pub use policy::*;
pub use state::*;
pub use strangers::*;

/// Changes with every change of a key, a value, or the order of a closed list in [`crate::verdict`].
///
/// The feature `other-layout` makes a build whose values are elsewhere: the lab's "next version", to and from which a running
/// guard is upgraded.
pub const LAYOUT_VERSION: u32 = if cfg!(feature = "other-layout") { 1_000_007 } else { 7 };

/// Most ports a host can have; the maps are sized for fewer by default.
pub const MAX_PORTS: u32 = 4096;

/// Slot of frames from an interface that has no port at all. User space gives it to nobody.
pub const NO_PORT_SLOT: u32 = 0;

/// A mark (`last_excess` and its like) that is older than this many seconds has gone quiet: the next packet is a state
/// change again, and worth an event.
pub const QUIET_S: u64 = 10;

/// An agent gives a sign of life once a second. When the latest is older than this many seconds, the program takes it that
/// nobody reads its events: long against a decision that is late, short against the watchdog of the service (30 s).
pub const UNATTENDED_S: u64 = 10;

/// aya moves values between user space and maps as bytes.
#[cfg(feature = "user")]
mod pod {
    macro_rules! plain_old_data {
        ($($name:ident),+) => {$(
            // SAFETY: `repr(C)` or `repr(transparent)`, integers only, no padding: the modules assert the sizes.
            unsafe impl aya::Pod for super::$name {}
        )+};
    }
    plain_old_data!(PortKey, ClientKey, PortPolicy, HostPolicy, ClientRule, Control);
    plain_old_data!(
        PortState,
        HostState,
        ClientState,
        CpuState,
        PortMemo,
        PortCounters,
        Troubles,
        Event,
        Head,
        Bucket,
        Meta
    );
}
