//! What is known of a host before anybody judges it: plain data, so that the checks can be tried on hosts that nobody has.
//!
//! `None` is "not looked at" or "cannot be told", never "no".

use std::path::PathBuf;

use crate::{
    dataplane::{
        features::Feature,
        hook::{self, Hook},
    },
    model::AttachMode,
};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the configuration asks for.
    pub wanted: Wanted,
    /// The kernel and our rights.
    pub kernel: Kernel,
    /// The folder for pins.
    pub pins: Option<Pins>,
    /// The interfaces to be guarded.
    pub interfaces: Vec<Interface>,
    /// All other interfaces of this network namespace that guests or containers may send through.
    pub devices: Vec<Device>,
    /// Kernel indexes of the bridges that interfaces to be guarded are on.
    pub guarded_controllers: Vec<u32>,
    /// The kernel's clock, measured.
    pub clock: Option<Clock>,
    /// The agent on the configuration's socket.
    pub agent: Option<Agent>,
    /// The folder for what survives a restart.
    pub state_dir: Option<StateDir>,
    /// Processes with a vhost-user network: pid and name.
    pub vhost_user: Option<Vec<(u32, String)>>,
}

/// What the configuration asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The configuration file; none: defaults.
    pub file: Option<PathBuf>,
    /// Names of ports on VLANs, each with its interface: `("eth0", "eth0.100")`.
    pub vlan_ports: Vec<(String, String)>,
    /// A guarded port is trusted: replies come in there.
    pub trusted: bool,
    /// Patterns that no interface's name matches.
    pub idle_patterns: Vec<String>,
    /// Where frames are to be judged.
    pub hook: Hook,
    /// Sentences about what is permitted and probably not meant.
    pub warnings: Vec<String>,
    /// The inventory's file, and sentences about what is wrong with it.
    pub inventory: Option<(PathBuf, Vec<String>)>,
}

/// The kernel and our rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Capabilities that this process lacks.
    pub missing_capabilities: Vec<String>,
    /// It offers its types (BTF).
    pub btf: Option<bool>,
    /// BPF programs are compiled to machine code.
    pub jit: Option<bool>,
    /// What the programs are made of.
    pub features: Vec<Feature>,
    /// What it says about the program itself, which was loaded and not attached.
    pub program: Option<Result<(), String>>,
}

/// The folder for pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Where it is to be.
    pub dir: PathBuf,
    /// The nearest folder that is there.
    pub nearest: PathBuf,
    /// That one is on a BPF file system.
    pub on_bpffs: bool,
    /// And that can be written to.
    pub read_only: bool,
    /// Another mount hides the BPF file system that belongs there.
    pub shadowed: bool,
    /// An agent with our rights would mount one at its start.
    pub is_mounted_at_start: bool,
    /// Kernel ids of the programs that are pinned there, themselves or by their links.
    pub programs: Vec<u32>,
    /// How long ago an agent last gave a sign of life there, in seconds.
    pub heartbeat_age_s: Option<u64>,
}

/// An interface to be guarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it is; none: it is not there.
    pub link: Option<Link>,
}

/// What an interface is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub ifindex: u32,
    /// Administratively up.
    pub up: bool,
    /// What kind of virtual device (`veth`, `bridge`, `tun`); none: a card, or not known.
    pub kind: Option<String>,
    /// Largest packet, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Virtual functions that were made of the card.
    pub vfs: u32,
    /// What decides which hook is right for it.
    pub hook: hook::Facts,
    /// Packets are merged by the card.
    pub lro: bool,
    /// What the driver says that it can do (kernel 6.3).
    pub xdp_features: Option<XdpFeatures>,
    /// The XDP program on it.
    pub xdp: Option<OnXdp>,
    /// TCX programs on its way in, in their order; none: the kernel has no TCX, or does not say.
    pub tcx_in: Option<Vec<Program>>,
    /// And on its way out.
    pub tcx_out: Option<Vec<Program>>,
    /// Filters of tc on its way in, in their order, which come after TCX programs; those that run no program have id 0; none:
    /// the kernel does not say.
    pub clsact_in: Option<Vec<Program>>,
    /// And on its way out.
    pub clsact_out: Option<Vec<Program>>,
}

/// What a driver says of XDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures {
    /// It runs programs natively.
    pub native: bool,
    /// Also on packets in several buffers, so that the MTU does not matter.
    pub multi_buffer: bool,
}

/// The XDP program of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnXdp {
    /// Which one.
    pub program: Program,
    /// In the driver or the card, not in the stack.
    pub native: bool,
}

/// A loaded program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Its kernel id.
    pub id: u32,
    /// Its name; empty: not known.
    pub name: String,
}

/// An interface that guests or containers may send through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// What kind of virtual device.
    pub kind: Option<String>,
    /// Its bridge or bond.
    pub controller: Option<u32>,
    /// What it is on top of.
    pub lower: Option<u32>,
}

/// The kernel's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Ticks a second that the limits are computed with.
    pub ticks_per_s: u32,
    /// Ticks a second that `bpf_jiffies64` was seen to make; none: it could not be asked.
    pub measured: Option<u32>,
}

/// Who answers on the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Nobody; the socket.
    None(PathBuf),
    /// Somebody, but not with what was asked; one sentence.
    Unclear(String),
    /// An agent.
    Runs {
        /// Its process.
        pid: u32,
        /// Its version.
        version: String,
        /// Name and kernel index of what it guards, and how.
        guards: Vec<(String, u32, AttachMode)>,
    },
}

/// The folder for what survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDir {
    /// Where.
    pub dir: PathBuf,
    /// It is there already.
    pub is_there: bool,
    /// It, or where it is to be made, cannot be written to; why.
    pub unwritable: Option<String>,
    /// Its file system has no room for users without special rights.
    pub full: bool,
    /// What is there is not a state of this version; one sentence.
    pub unusable: Option<String>,
}
