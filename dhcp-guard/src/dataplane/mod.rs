//! The data plane as user space sees it: load the program, fill its maps, attach it, read what it counted.
//!
//! * [`spec`]: what is to be enforced, in the units of people.
//! * [`load`]: check what the kernel offers, load the object. [`features`]: what it must have, and since when kernels have it;
//!   `probe`: the programs of a few instructions that it is asked with.
//! * [`pins`]: where everything is that outlives the agent; `repin`: made again where it is gone. `state_maps`: the maps among it; `heritage`: what is brought over
//!   from maps that do not fit.
//! * [`policy`]: put a policy into force, as a whole. `retire`: give up what only ports that are gone needed.
//! * [`tables`]: who is known, allowed, in quarantine; [`orders`]: what the governor says about the last two; `standing`:
//!   the same again, where names have come to lead elsewhere.
//! * [`hook`]: whether XDP or TCX guards an interface; [`attach`]: put the program there, never displace another one;
//!   [`tcx`]: the same guard at the other hook; [`clsact`]: where the kernel has no TCX; `filters`: what tc has there;
//!   `links`: what holds them there, and whether it still does.
//! * [`remains`]: the pinned maps without an agent; `reading`: what is read alike in both.
//! * [`snapshot`]: read the counters and the clients; [`distinct`]: how many sent something;
//!   [`received`]: all frames of the interfaces; [`replies`]: whether servers still answer.
//! * [`interface`]: what netlink knows of an interface. `causes`: what an error says, once.
//!
//! Everything here is blocking system calls. The agent runs it on a thread of its own.

pub mod attach;
pub mod batch;
mod carried;
mod causes;
pub mod clock;
pub mod clsact;
pub mod distinct;
pub mod features;
mod filters;
mod grace;
mod heritage;
pub mod hook;
pub mod interface;
mod links;
pub mod load;
pub mod mapped;
pub mod orders;
pub mod pins;
pub mod policy;
pub(crate) mod probe;
mod reading;
pub mod received;
pub mod remains;
mod repin;
pub mod replies;
mod retire;
mod sign;
pub mod snapshot;
pub mod spec;
mod standing;
mod state_maps;
pub(crate) mod sys;
pub mod tables;
pub mod tcx;

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
    /// What is to outlive the agent cannot be kept.
    #[error(transparent)]
    Pins(#[from] pins::PinError),
    /// Missing capabilities.
    #[error(
        "cannot load the BPF program without {missing}: run dhcp-guard as root with all its rights, or give it what is \
         missing (with setcap, or AmbientCapabilities= in a systemd unit)"
    )]
    Capabilities {
        /// Their names, joined by commas.
        missing: String,
    },
    /// The kernel is too old.
    #[error("the kernel {release} lacks {missing}: dhcp-guard needs kernel {enough} or later")]
    Kernel {
        /// `uname -r`.
        release: String,
        /// What it lacks, and since which kernel that exists.
        missing: String,
        /// The first kernel that has all.
        enough: String,
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
    #[error("interface {name} is down: bring it up with `ip link set {name} up`, then try again")]
    InterfaceDown {
        /// Interface name.
        name: String,
    },
    /// Another program is there.
    #[error(
        "interface {name} already runs the {hook} program {program} (id {id}), which dhcp-guard will not displace: {}, or \
         guard another interface",
        how_to_free(program, hook, name, *id)
    )]
    Occupied {
        /// Interface name.
        name: String,
        /// XDP, TCX or clsact.
        hook: &'static str,
        /// Name of the program that is there.
        program: String,
        /// Its kernel id.
        id: u32,
    },
    /// Another agent guards it, and the kernel does not tell by which program.
    #[error("interface {name} is guarded by another agent: {OTHER_AGENT}, or guard another interface")]
    Guarded {
        /// Interface name.
        name: String,
    },
    /// In the place of a pinned link is something else.
    #[error(
        "cannot guard interface {name}: the pin {} is not its ({reason}); remove it if nobody needs it, or name another folder \
         with --pin-dir",
        path.display()
    )]
    ForeignPin {
        /// The pin.
        path: std::path::PathBuf,
        /// Interface name.
        name: String,
        /// What it is.
        reason: String,
    },
    /// The kernel refused to put the program into the place of another.
    #[error(
        "cannot put the program of this version into the place of the one on interface {name} ({reason}), which goes on as it \
         was; `dhcp-guard detach` takes that one off"
    )]
    Replace {
        /// Interface name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The kernel refused to attach the program by every way that was tried.
    #[error("cannot attach to interface {name} {reasons}: `dhcp-guard run --hook` chooses another hook")]
    Attach {
        /// Interface name.
        name: String,
        /// The ways, with why not.
        reasons: String,
    },
    /// It can be attached, and would not outlive the agent as all else does.
    #[error(
        "cannot guard interface {name} ({reason}): see what has become of the pin folder (`dhcp-guard doctor` looks at it), or \
         name another one with --pin-dir"
    )]
    Unpinned {
        /// Interface name.
        name: String,
        /// What could not be pinned, and why.
        reason: String,
    },
    /// A map is not what it should be.
    #[error("the map {0} is not there, or in its place is another: start an agent, which makes new ones")]
    ForeignMap(&'static str),
    /// The kernel refused to attach the second program.
    #[error("cannot see which servers' replies leave through interface {name} ({reason}): it is guarded all the same")]
    Replies {
        /// Interface name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The verifier or the kernel refused the program or a map.
    #[error("the kernel refused the BPF program ({what}): {reason}")]
    Load {
        /// What was being done.
        what: &'static str,
        /// The kernel's word.
        reason: String,
    },
    /// A map could not be read or written.
    #[error("cannot {what} the map {map}: {reason}")]
    Map {
        /// What was being done.
        what: &'static str,
        /// Name of the map.
        map: &'static str,
        /// The kernel's word.
        reason: String,
    },
    /// More ports than the tables were made for.
    #[error("{wanted} ports do not fit into tables made for {capacity}: raise capacity.ports and start again")]
    TooManyPorts {
        /// Ports that have a slot, and those that want one.
        wanted: u32,
        /// Room.
        capacity: u32,
    },
    /// The table of known clients is full.
    #[error("there is no room for another known client: raise capacity.known_clients and start again")]
    TooManyKnown,
    /// Netlink did not answer as expected.
    #[error("cannot ask the kernel about interface {name}: {reason}")]
    Netlink {
        /// Interface name.
        name: String,
        /// The kernel's word.
        reason: String,
    },
}

/// How to get rid of the guard of another agent.
const OTHER_AGENT: &str = "stop the agent that runs it and take its guard off with `dhcp-guard detach` (with --pin-dir, if that agent had one)";

/// A program of our own is some other agent's; a filter may be nobody's any more. For any other, only whoever attached it knows
/// how: what holds it by a BPF link cannot be taken off with `ip`.
fn how_to_free(program: &str, hook: &str, interface: &str, id: u32) -> String {
    if [load::PROGRAM, tcx::PROGRAM].contains(&program) {
        let own = OTHER_AGENT;
        return if hook == clsact::NAME {
            format!(
                "{own}, or, if its pins are gone, with `tc filter del` (`tc filter show dev {interface} ingress` shows it)"
            )
        } else {
            own.to_owned()
        };
    }
    format!(
        "take it off with the tool that put it there (`bpftool prog show id {id}` may name it), guard what it passes with \
         `hook = \"tcx\"`"
    )
}

impl Error {
    fn load(what: &'static str) -> impl FnOnce(aya::EbpfError) -> Self {
        move |error| Self::Load { what, reason: causes::in_full(&error) }
    }

    fn program(what: &'static str) -> impl FnOnce(aya::programs::ProgramError) -> Self {
        move |error| Self::Load { what, reason: causes::in_full(&error) }
    }

    fn map<E: std::error::Error + 'static>(what: &'static str, map: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Map { what, map, reason: causes::in_full(&error) }
    }
}
