//! The lab: a whole network on one machine, made of real parts, that leaves nothing behind.
//!
//! * [`netns`], [`process`], [`link`]: network namespaces without names, children that die with us, links.
//! * [`topology`]: machines, fabric, guarded host, server. [`trunk`], [`bond`]: the same where the uplink carries VLANs, or is a
//!   bond, on kernels that have them.
//! * [`server`], [`client`]: dnsmasq and dhclient. [`herd`]: hundreds of clients, with the timing of real ones.
//! * [`packets`], [`flood`], [`trickle`], [`control`]: frames, a generator for millions of them, its companion, and the
//!   programs that every figure is a ratio against. [`stampede`]: many machines that flood at once.
//! * [`packet_socket`], `paced`, [`random`]: what several of them need. [`limit`]: how much of a flood may pass.
//! * [`agent`], [`follower`], [`http`]: the guard itself, as a process on the lab's host; its events; requests that its
//!   own command line would not send. [`attached`]: what is on which interface, by which hook; [`odd_map`]: maps that are not
//!   the agent's, in their place.
//! * [`clean_root`]: a Debian of its own, with systemd, for the package.
//! * [`fixtures`], [`guard_run`]: frames with their expected verdicts, and the guard's program run on frames without any
//!   interface; [`orders`]: quarantines for it.
//! * [`mod@bench`]: what the guard costs.
//! * [`harness`]: how a test says what it needs; [`events`]: what became of it, for programs.
//!
//! Nothing the lab makes has a name outside this process: namespaces are file descriptors, the clients' files are
//! memory, children are killed by the kernel when we go. So a panic, Ctrl-C or SIGKILL cleans up as well as a success
//! does. The exceptions are temporary folders for
//! the agent's socket and files, see [`cleanup`], and the control group of a [`clean_root`], which the next one sweeps.

pub mod agent;
pub mod attached;
pub mod bench;
pub mod bond;
pub mod clean_root;
pub mod cleanup;
pub mod client;
pub mod control;
pub mod events;
pub mod fixtures;
pub mod flood;
pub mod follower;
pub mod guard_run;
pub mod harness;
pub mod herd;
pub mod http;
mod interrupt;
mod last_words;
pub mod limit;
pub mod link;
pub mod mac;
pub mod netns;
pub mod odd_map;
pub mod orders;
mod paced;
pub mod packet_ring;
pub mod packet_socket;
pub mod packets;
pub mod process;
pub mod program;
pub mod random;
pub mod server;
pub mod stampede;
pub mod tally;
pub mod topology;
pub mod trickle;
pub mod trunk;
pub mod wait;
pub mod wire;
