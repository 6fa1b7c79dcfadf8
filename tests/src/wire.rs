//! A guarded interface at the end of a wire, with the data plane in the test's own hands: floods come in by the wire, and
//! single frames can be judged as if they had, without a place in its ring.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use dhcp_guard::{
    dataplane::{DataPlane, PortSpec, Snapshot, Spec, attach::Attachment, interface::Interface},
    model::AttachMode,
};
use dhcp_guard_common::{layout::PortKey, parse::Vlans};

use crate::{
    flood::{Flood, Limits, Traffic},
    guard_run::{self, Fate},
    link,
    netns::Netns,
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
        let interface = Interface { name: GUARDED.to_owned(), ifindex, up: true, ..Interface::default() };
        let attachment = receiver.run(|| plane.attach(interface))??;
        ensure!(attachment.mode == AttachMode::Native, "the guard is not attached natively");
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
        let context = context(frame.len(), self.ifindex)?;
        let plane = &mut self.plane;
        let result = self.receiver.run(move || {
            let options = TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::default() };
            anyhow::Ok(plane.program()?.test_run(options)?)
        })??;
        // `xdp_action` of include/uapi/linux/bpf.h.
        match result.return_value {
            1 => Ok(Fate::Dropped),
            2 => Ok(Fate::Passed),
            other => bail!("the program answered {other}, which is neither pass nor drop"),
        }
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
fn context(len: usize, ifindex: u32) -> Result<[u8; 24]> {
    let fields = [0, u32::try_from(len)?, 0, ifindex, 0, 0];
    let mut bytes = [0; 24];
    for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    Ok(bytes)
}
