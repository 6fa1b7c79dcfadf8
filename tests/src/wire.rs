//! A guarded interface at the end of a wire, with the data plane in the test's own hands: floods come in by the wire, and
//! single frames can be judged as if they had, without a place in its ring.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aya::programs::TestRunOptions;
use dhcp_guard::{
    dataplane::{
        DataPlane, PortSpec, Snapshot, Spec,
        attach::Attachment,
        hook::{Facts, Hook},
        interface::Interface,
    },
    model::AttachMode,
};
use dhcp_guard_common::{layout::PortKey, parse::Vlans};

use crate::{
    flood::{Flood, Limits, Traffic},
    guard_run::{self, Fate},
    link,
    netns::Netns,
    program::{Program, current_hook},
    topology::Injection,
};

const SENDER: &str = "to-guard";
const GUARDED: &str = "guarded0";

/// See the module. (The program's attachment goes before the program.)
#[derive(Debug)]
pub struct GuardedWire {
    _attachment: Attachment,
    plane: DataPlane,
    epoch: Instant,
    ifindex: u32,
    sender: Netns,
    receiver: Netns,
}

/// The untagged port of an interface, with limits that nothing exceeds.
#[must_use]
pub fn port(ifindex: u32) -> PortSpec {
    PortSpec { key: PortKey::new(ifindex, Vlans::default()), ..guard_run::port(0, 0) }
}

impl GuardedWire {
    /// Makes the wire, and guards its end with what `spec` wants for an interface of this index.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(spec: impl FnOnce(u32) -> Spec) -> Result<Self> {
        let (sender, receiver) = (Netns::new("wire")?, Netns::new("guarded")?);
        sender.ip(&format!("link add {SENDER} type veth peer name {GUARDED} netns {}\n", receiver.path()))?;
        sender.ip(&format!("link set {SENDER} up\n"))?;
        receiver.ip(&format!("link set {GUARDED} up\n"))?;
        link::accept_redirects(&receiver, GUARDED)?;
        link::keep_vlan_tags(&receiver, GUARDED)?;
        let ifindex = receiver.ifindex(GUARDED)?;
        let mut plane = DataPlane::load(&spec(ifindex)).context("cannot load the guard's program")?;
        let facts = Facts { has_tcx: true, ..Facts::default() };
        let interface = Interface { facts, ..Interface::bare(GUARDED, ifindex) };
        let (hook, mode) = match current_hook() {
            Some(Hook::Tcx) => (Hook::Tcx, AttachMode::Tcx),
            _ => (Hook::Xdp, AttachMode::Native),
        };
        let attachment = receiver.run(|| plane.attach(interface, hook))??;
        ensure!(attachment.mode == mode, "the guard is attached as {}, not as {}", attachment.mode.word(), mode.word());
        Ok(Self { _attachment: attachment, plane, epoch: Instant::now(), ifindex, sender, receiver })
    }

    /// The untagged port of the guarded interface.
    #[must_use]
    pub fn port(&self) -> PortSpec {
        port(self.ifindex)
    }

    /// Floods the guarded interface.
    ///
    /// # Errors
    /// See [`Flood::start`].
    pub fn flood(&self, traffic: impl Into<Traffic>, limits: Limits) -> Result<Flood> {
        let from = Injection { netns: self.sender.clone(), interface: SENDER.to_owned() };
        Flood::start(&from, traffic, limits)
    }

    /// Judges a frame as if it had just come in by the guarded interface.
    ///
    /// # Errors
    /// The kernel's; a verdict that is neither pass nor drop.
    pub fn judge(&mut self, frame: &[u8]) -> Result<Fate> {
        let program = Program::of(&mut self.plane)?;
        let context = match program {
            Program::Xdp(_) => xdp_context(frame.len(), self.ifindex)?,
            Program::Tcx(_) => skb_context(self.ifindex),
        };
        let options = TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::default() };
        Ok(self.receiver.run(|| program.run(options))??.0)
    }

    /// Frames that came in by the wire.
    ///
    /// # Errors
    /// If the interface is gone.
    pub fn received(&self) -> Result<u64> {
        Ok(link::received(&self.receiver, GUARDED)?.frames)
    }

    /// Everything counted so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        Ok(self.plane.snapshot(self.epoch)?)
    }

    /// The data plane itself.
    pub fn plane(&mut self) -> &mut DataPlane {
        &mut self.plane
    }
}

/// `struct xdp_md` of include/uapi/linux/bpf.h: data, its end, metadata, interface, queue, egress interface.
fn xdp_context(len: usize, ifindex: u32) -> Result<Vec<u8>> {
    let fields = [0, u32::try_from(len)?, 0, ifindex, 0, 0];
    Ok(fields.iter().flat_map(|field| field.to_ne_bytes()).collect())
}

/// `struct __sk_buff` there, as far as the interface, which is its eleventh word. The kernel takes the rest for zero.
fn skb_context(ifindex: u32) -> Vec<u8> {
    [0; 10].into_iter().chain([ifindex]).flat_map(u32::to_ne_bytes).collect()
}
