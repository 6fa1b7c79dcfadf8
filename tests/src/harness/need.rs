//! What tests need, and what it means that it is not there.

use std::{env, path::Path};

use anyhow::Result;
use dhcp_guard::dataplane::{features, tcx};

use crate::{agent::OTHER_BINARY, client::DHCLIENT, control, link::Kind as Link, netns::Netns, server::DNSMASQ};

/// Name the package, and the one that it is upgraded to; set by `cargo xtask test`.
pub const PACKAGES: [&str; 2] = ["DHCP_GUARD_DEB", "DHCP_GUARD_DEB_NEXT"];

/// Names the program of `cargo xtask`; set by `cargo xtask test`.
pub const XTASK: &str = "DHCP_GUARD_XTASK";

/// Says what to do wrong, in a guest of `cargo xtask vm --break HOW`.
pub const SABOTAGE: &str = "DHCP_GUARD_SABOTAGE";

/// Set (to anything) where nothing may be skipped: a skipped test then fails, unless all that it lacks is another kernel
/// ([`Need::is_for_vm`]). Set to [`IN_GUEST`] where such kernels are: see [`Need::may_be_missing`].
pub const NO_SKIP: &str = "DHCP_GUARD_TESTS_NO_SKIP";
/// In a guest of `cargo xtask vm`.
pub const IN_GUEST: &str = "guest";

/// The first kernel with TCX.
const TCX: (u32, u32) = (6, 6);
/// The kernel index that the loopback interface has in every network namespace.
const LOOPBACK: u32 = 1;

/// What a test cannot run without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The rights to make namespaces and load programs.
    Root,
    /// An executable, by name (looked for in PATH and in the system's administrators' folders) or by path.
    Tool(&'static str),
    /// A build with the BPF toolchain.
    BpfObject,
    /// What a [`crate::topology::Lab`] with real clients and a flood needs.
    Lab,
    /// An agent of another version.
    OtherVersion,
    /// The Debian package, and the one that it is upgraded to.
    Package,
    /// The project's automation.
    Xtask,
    /// A kernel that the guard refuses.
    OldKernel,
    /// TCX. Every test at that hook that makes interfaces needs it, and does not have to say so.
    Tcx,
    /// Filters of tc that match (flower) and limit (act_police).
    Flower,
    /// A kind of links that distributions' kernels have.
    Link(Link),
}

impl Need {
    /// A list of [`Need::Lab`] alone.
    pub const LAB: &[Self] = &[Self::Lab];

    /// What [`Need::Lab`] stands for.
    const OF_LAB: &[Self] = &[
        Self::Root,
        Self::BpfObject,
        Self::Tool("ip"),
        Self::Tool("bridge"),
        Self::Tool("ethtool"),
        Self::Tool("nft"),
        Self::Tool(DNSMASQ),
        Self::Tool(DHCLIENT),
    ];

    /// Why the need is not met, or nothing if it is.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            // SAFETY: no arguments.
            Self::Root => (unsafe { libc::geteuid() } != 0).then(|| "needs root".into()),
            Self::Tool(name) => (!exists(name)).then(|| format!("needs `{name}`: run `cargo xtask setup`")),
            Self::Lab => {
                let missing: Vec<_> = Self::OF_LAB.iter().filter_map(|need| need.missing()).collect();
                (!missing.is_empty()).then(|| missing.join(", "))
            }
            Self::OtherVersion => env::var_os(OTHER_BINARY)
                .is_none()
                .then(|| format!("needs an agent of another version, named in {OTHER_BINARY}: run `cargo xtask test`")),
            Self::BpfObject => (!control::object_is_built())
                .then(|| "needs the BPF programs: run `cargo xtask setup` and build again".into()),
            Self::Package => (PACKAGES.iter().any(|name| env::var_os(name).is_none()))
                .then(|| "needs the Debian package: run it through `cargo xtask test`, on Debian".into()),
            Self::Xtask => {
                env::var_os(XTASK).is_none().then(|| format!("needs xtask, named in {XTASK}: run `cargo xtask test`"))
            }
            // By its number, because what the guard makes of it is what is tested.
            Self::OldKernel => (features::version(&features::release()) >= Some((5, 18)))
                .then(|| "needs a kernel before 5.18: `cargo xtask vm` boots one".into()),
            Self::Tcx => {
                (tcx::is_offered(LOOPBACK).is_ok_and(|offered| !offered)).then(|| "needs TCX, since kernel 6.6".into())
            }
            Self::Flower => try_flower()
                .is_err()
                .then(|| "needs tc flower and act_police: `cargo xtask vm` boots kernels that have them".into()),
            Self::Link(link) => (!link.is_here()).then(|| {
                format!("needs {}, which this kernel has not: `cargo xtask vm` boots kernels that have", link.name())
            }),
        }
    }

    /// Whether it is of a test that makes interfaces.
    #[must_use]
    pub fn makes_interfaces(self) -> bool {
        matches!(self, Self::Lab | Self::Tool("ip"))
    }

    /// Whether only another kernel can meet it: `cargo xtask vm` boots such, and where the test is skipped nobody can do
    /// anything about it.
    #[must_use]
    pub fn is_for_vm(self) -> bool {
        matches!(self, Self::OldKernel | Self::Tcx | Self::Flower | Self::Link(_))
    }

    /// Whether a test that lacks it may be skipped ([`NO_SKIP`]). Guests have everything but what came after their kernel.
    #[must_use]
    pub fn may_be_missing(self) -> bool {
        match env::var_os(NO_SKIP) {
            None => true,
            Some(place) if place == IN_GUEST => {
                self == Self::Tcx && features::version(&features::release()) < Some(TCX)
            }
            Some(_) => self.is_for_vm(),
        }
    }
}

/// Whether the kernel takes a filter like those of the tests. It may have to load modules for it, so that only a try tells.
fn try_flower() -> Result<()> {
    let netns = Netns::new("flower")?;
    netns.ip("link add filtered0 type veth peer name filtered1\n")?;
    netns.exec(&["tc", "qdisc", "add", "dev", "filtered0", "clsact"])?;
    let filter = "filter add dev filtered0 ingress protocol ip flower ip_proto udp dst_port 67 \
                  action police pkts_rate 2 pkts_burst 20 conform-exceed drop/pass";
    netns.exec_with_input(&["tc", "-batch", "-"], &format!("{filter}\n")).map(drop)
}

/// Whether an executable is there.
fn exists(tool: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    Path::new(tool).is_file() || folders.into_iter().any(|folder| folder.join(tool).is_file())
}
