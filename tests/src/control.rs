//! The lab's BPF object: the controls that every figure is a ratio against, and the loader that the flood shares.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode},
};

use crate::netns::Netns;

/// The object, or nothing when the build had no BPF toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lab.o"));

/// Whether the build had the BPF toolchain.
#[must_use]
pub fn object_is_built() -> bool {
    !OBJECT.is_empty()
}

/// Loads the object with a loader of the caller's.
pub(crate) fn load_with(loader: &mut EbpfLoader<'_>) -> Result<Ebpf> {
    ensure!(object_is_built(), "built without the lab's BPF programs: run `cargo xtask setup` and build again");
    loader.load(OBJECT).context("cannot load the lab's BPF object")
}

/// One of the object's XDP programs, loaded into the kernel.
pub(crate) fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = object.program_mut(name).with_context(|| format!("no program `{name}` in the lab's object"))?;
    let program: &mut Xdp = program.try_into().with_context(|| format!("the lab's program `{name}`"))?;
    program.load().with_context(|| format!("cannot load the lab's program `{name}`"))?;
    Ok(program)
}

/// Tries to load a program that reads memory which it may not.
///
/// # Errors
/// Always: the kernel's.
pub fn load_rejected() -> Result<()> {
    let mut object = load_with(&mut EbpfLoader::new())?;
    program(&mut object, "rejected").map(drop)
}

/// What a control does with every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passes it to the stack.
    Pass,
    /// Drops it.
    Drop,
}

/// A control program on an interface; dropping it detaches.
#[derive(Debug)]
pub struct Control {
    _object: Ebpf,
}

impl Control {
    /// Attaches a program that does nothing but its verdict.
    pub fn attach(netns: &Netns, interface: &str, verdict: Verdict, mode: XdpMode) -> Result<Self> {
        let name = match verdict {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
        };
        let mut object = load_with(&mut EbpfLoader::new())?;
        let ifindex = netns.ifindex(interface)?;
        let program = program(&mut object, name)?;
        netns
            .run(|| program.attach_to_if_index(ifindex, mode))?
            .with_context(|| format!("cannot attach `{name}` to `{interface}` in the namespace `{}`", netns.label()))?;
        Ok(Self { _object: object })
    }
}
