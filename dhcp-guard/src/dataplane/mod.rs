//! The data plane as user space sees it: load the program, fill its maps, attach it, read what it counted.
//!
//! * [`spec`]: what is to be enforced, in the units of people.
//! * [`load`]: check what the kernel offers, load the object.
//! * [`policy`]: put a policy into force, as a whole. `retire`: give up what only ports that are gone needed.
//! * [`tables`]: who is known, allowed, in quarantine; [`orders`]: what the governor says about the last two; `standing`:
//!   the same again, where names have come to lead elsewhere.
//! * [`attach`]: put the program on an interface, natively if the driver can; never displace another one. `in_place`: is
//!   it still there?
//! * [`snapshot`]: read the counters and the clients; [`distinct`]: how many sent something;
//!   [`received`]: all frames of the interfaces; [`replies`]: whether servers still answer.
//! * [`interface`]: what netlink knows of an interface.
//!
//! Everything here is blocking system calls. The agent runs it on a thread of its own.

pub mod attach;
pub mod batch;
mod carried;
pub mod clock;
pub mod distinct;
mod grace;
mod in_place;
pub mod interface;
pub mod load;
pub mod mapped;
pub mod orders;
pub mod policy;
pub mod received;
pub mod replies;
mod retire;
pub mod snapshot;
pub mod spec;
mod standing;
pub mod tables;

pub use load::{DataPlane, check_kernel, decode_event};
pub use snapshot::Snapshot;
pub use spec::{HostSpec, Policy, PortSpec, Spec};

/// The compiled BPF program; empty if this build has none.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dhcp-guard-xdp.o"));

/// What went wrong with the data plane. Each message is the whole sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The crate was built where the BPF toolchain is missing.
    #[error("this build of dhcp-guard has no BPF program in it: build it with `cargo xtask build`")]
    NoProgram,
    /// Missing capabilities.
    #[error(
        "cannot load the BPF program without {missing}: run dhcp-guard as root with all its rights, or give it what is \
         missing (with setcap, or AmbientCapabilities= in a systemd unit)"
    )]
    Capabilities {
        /// Their names, joined by commas.
        missing: String,
    },
    /// The kernel has no BTF.
    #[error(
        "this kernel offers no BTF (/sys/kernel/btf/vmlinux is missing): run a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y, as all current distributions do"
    )]
    NoBtf,
    /// There is no such interface.
    #[error("there is no interface {name:?} in this network namespace: `ip -br link` lists those there are")]
    NoInterface {
        /// The name asked for.
        name: String,
    },
    /// The interface is down.
    #[error("interface {name} is down: bring it up with `ip link set {name} up`, then start again")]
    InterfaceDown {
        /// Interface name.
        name: String,
    },
    /// Another XDP program is there.
    #[error(
        "interface {name} already runs the XDP program {program} (id {id}), which dhcp-guard will not displace: {}, or \
         guard another interface",
        how_to_free(program, *id)
    )]
    Occupied {
        /// Interface name.
        name: String,
        /// Name of the program that is there.
        program: String,
        /// Its kernel id.
        id: u32,
    },
    /// The kernel refused to attach the program in either mode.
    #[error("cannot attach to interface {name}, neither natively ({native}) nor in generic mode ({generic})")]
    Attach {
        /// Interface name.
        name: String,
        /// Why not natively.
        native: String,
        /// Why not in generic mode.
        generic: String,
    },
    /// The kernel refused to attach the second program.
    #[error(
        "cannot see which servers' replies leave through interface {name} ({reason}; it takes TCX, kernel 6.6): it is \
         guarded all the same"
    )]
    Replies {
        /// Interface name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The verifier or the kernel refused the program or a map.
    #[error("the kernel refused the BPF program ({what}): {source}")]
    Load {
        /// What was being done.
        what: &'static str,
        /// The kernel's word.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map could not be read or written.
    #[error("cannot {what} the map {map}: {source}")]
    Map {
        /// What was being done.
        what: &'static str,
        /// Name of the map.
        map: &'static str,
        /// The kernel's word.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// More ports than the tables were made for.
    #[error("{wanted} ports do not fit into tables made for {capacity}: raise capacity.ports and start again")]
    TooManyPorts {
        /// Ports that have a slot, and those that want one.
        wanted: u32,
        /// Room.
        capacity: u32,
    },
    /// Netlink did not answer as expected.
    #[error("cannot ask the kernel about interface {name}: {source}")]
    Netlink {
        /// Interface name.
        name: String,
        /// The kernel's word.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A program of our own comes off with its agent. For any other, only whoever attached it knows how: what holds it by a
/// BPF link cannot be taken off with `ip`.
fn how_to_free(program: &str, id: u32) -> String {
    if program == load::PROGRAM {
        return "stop the agent that runs it".to_owned();
    }
    format!("take it off with the tool that put it there (`bpftool prog show id {id}` may name it)")
}

impl Error {
    fn load(what: &'static str) -> impl FnOnce(aya::EbpfError) -> Self {
        move |source| Self::Load { what, source: Box::new(source) }
    }

    fn program(what: &'static str) -> impl FnOnce(aya::programs::ProgramError) -> Self {
        move |source| Self::Load { what, source: Box::new(source) }
    }

    fn map<E: std::error::Error + Send + Sync + 'static>(
        what: &'static str,
        map: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Map { what, map, source: Box::new(source) }
    }
}
