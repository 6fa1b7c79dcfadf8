//! What the XDP program and user space share. The same code runs in the kernel, in the agent and in unit tests.
//!
//! * [`parse`]: is this frame DHCP, on which port? Bounded, no allocation, no panics.
//! * [`message`]: what kind of message is it, and from which client?
//! * [`gcra`]: the arithmetic of the rate limiters, one `u64` of state each.
//! * [`verdict`]: the closed list of verdict reasons and of DHCP message types that the counters are kept for.
//! * [`hash`]: the one hash of the tables.
//! * [`layout`]: keys and values of the BPF maps.
//!
//! Nothing here knows about BPF helpers, maps or system calls.
#![no_std]

pub mod gcra;
pub mod hash;
pub mod layout;
pub mod message;
pub mod parse;
pub mod verdict;
