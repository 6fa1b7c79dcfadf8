//! The guard's program, run on frames without any interface (BPF_PROG_TEST_RUN).
//!
//! The kernel pretends that the frames arrive on the loopback interface of the caller's network namespace, so every
//! [`GuardRun`] lives in a namespace of its own and its ports are on interface 1.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::programs::{TestRun as _, TestRunOptions};
use dhcp_guard::dataplane::{DataPlane, PortSpec, Snapshot, Spec};
use dhcp_guard_common::{
    layout::{Event, PortKey},
    parse::Vlans,
    verdict::{MessageType, Reason},
};

use crate::netns::Netns;

/// The interface the kernel pretends: the loopback interface is the first of its namespace.
pub const IFINDEX: u32 = 1;

/// `xdp_action` of include/uapi/linux/bpf.h.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It passed.
    Passed,
    /// It was dropped.
    Dropped,
}

/// A loaded program with its maps.
#[derive(Debug)]
pub struct GuardRun {
    plane: DataPlane,
    ports: usize,
    epoch: Instant,
    netns: Netns,
}

/// A port on the pretended interface, with limits that nothing in a test exceeds unless it wants to.
#[must_use]
pub fn port(outer: u16, inner: u16) -> PortSpec {
    const PLENTY: (u32, u32) = (1_000_000, 1_000_000);
    PortSpec {
        key: PortKey::new(IFINDEX, Vlans { outer, inner }),
        total: PLENTY,
        strangers: PLENTY,
        new_clients: PLENTY,
        client: PLENTY,
        trusted: false,
        monitor: false,
    }
}

/// Tables large enough for any test.
#[must_use]
pub fn spec(ports: Vec<PortSpec>) -> Spec {
    Spec { ports, port_capacity: 64, known_capacity: 2048, stranger_capacity: 65_536, ..Spec::default() }
}

impl GuardRun {
    /// Loads the program.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(spec: &Spec) -> Result<Self> {
        let netns = Netns::new("guard-run")?;
        netns.ip("link set lo up")?;
        let plane = DataPlane::load(spec).context("cannot load the guard's program")?;
        Ok(Self { plane, ports: spec.ports.len(), epoch: Instant::now(), netns })
    }

    /// Runs the program on a frame.
    ///
    /// # Errors
    /// The kernel's; a verdict that is neither pass nor drop.
    pub fn send(&mut self, frame: &[u8]) -> Result<Fate> {
        Ok(self.repeat(frame, 1)?.0)
    }

    /// Runs the program on the same frame `times` times: the last verdict, and the kernel's measurement of one run.
    ///
    /// For large numbers: the kernel patches its XDP dispatcher before and after, which takes some 20 ms.
    ///
    /// # Errors
    /// See [`GuardRun::send`].
    pub fn repeat(&mut self, frame: &[u8], times: u32) -> Result<(Fate, Duration)> {
        let plane = &mut self.plane;
        let result = self.netns.run(move || {
            let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::default() };
            anyhow::Ok(plane.program()?.test_run(options)?)
        })??;
        let fate = match result.return_value {
            XDP_PASS => Fate::Passed,
            XDP_DROP => Fate::Dropped,
            other => anyhow::bail!("the program answered {other}, which is neither pass nor drop"),
        };
        Ok((fate, result.duration))
    }

    /// Runs the program on each frame in turn: how many passed.
    ///
    /// # Errors
    /// See [`GuardRun::send`].
    pub fn send_all(&mut self, frames: &[Vec<u8>]) -> Result<usize> {
        let plane = &mut self.plane;
        self.netns.run(move || {
            let program = plane.program()?;
            let mut passed = 0;
            for frame in frames {
                let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
                passed += usize::from(program.test_run(options)?.return_value == XDP_PASS);
            }
            anyhow::Ok(passed)
        })?
    }

    /// Everything counted so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        Ok(self.plane.snapshot(self.ports, &[IFINDEX], self.epoch)?)
    }

    /// The events sent since this was last called for the first time.
    pub fn events(&mut self) -> Vec<Event> {
        let Some(mut ring) = self.plane.take_events() else { return Vec::new() };
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            // SAFETY: the program sends nothing but Event, which is plain integers.
            events.push(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
        }
        events
    }

    /// The data plane itself.
    pub fn plane(&mut self) -> &mut DataPlane {
        &mut self.plane
    }
}

/// All non-zero counters of a snapshot as (slot, reason, type, count).
#[must_use]
pub fn counts(snapshot: &Snapshot) -> Vec<(usize, Reason, MessageType, u64)> {
    let mut counts = Vec::new();
    for (slot, counters) in snapshot.ports.iter().enumerate() {
        for reason in Reason::ALL {
            for message in MessageType::ALL {
                let count = counters.by[reason.index()][message.index()];
                if count > 0 {
                    counts.push((slot, *reason, *message, count));
                }
            }
        }
    }
    counts
}

/// Packets of one reason on the port in `slot`.
#[must_use]
pub fn count(snapshot: &Snapshot, slot: usize, reason: Reason) -> u64 {
    snapshot.ports.get(slot).map_or(0, |counters| counters.by[reason.index()].iter().sum())
}
