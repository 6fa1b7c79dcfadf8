//! The guard's program, run on frames without any interface (BPF_PROG_TEST_RUN).
//!
//! The kernel pretends that the frames arrive on the loopback interface of the caller's network namespace, so every
//! [`GuardRun`] lives in a namespace of its own and its ports are on interface 1. Which hook's program runs is the test's
//! ([`crate::harness::on_both_hooks`]).

use std::{
    io,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    maps::PerCpuArray,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use dhcp_guard::{
    dataplane::{
        self, DataPlane, Policy, PortSpec, Snapshot, Spec,
        hook::Hook,
        interface::Interface,
        replies::{self, ReplyWatch},
    },
    governor::{Sanction, Subject, Target},
};
use dhcp_guard_common::{
    layout::{ClientMemo, CpuState, Event, PortKey},
    parse::Vlans,
    verdict::Reason,
};

pub use crate::program::Fate;
use crate::{
    netns::Netns,
    orders::Orders,
    program::{Program, TCX_NEXT},
};

/// The interface the kernel pretends: the loopback interface is the first of its namespace.
pub const IFINDEX: u32 = 1;

/// A loaded program with its maps.
#[derive(Debug)]
pub struct GuardRun {
    plane: DataPlane,
    orders: Orders,
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
        discover: None,
        client_v4: PLENTY,
        client_v6: PLENTY,
        trusted: false,
        monitor: false,
        allowed: false,
        drop_chaddr_mismatch: false,
    }
}

/// Tables large enough for any test.
#[must_use]
pub fn spec(ports: Vec<PortSpec>) -> Spec {
    let policy = Policy { ports, ..Policy::default() };
    Spec { policy, port_capacity: 64, known_capacity: 2048, stranger_capacity: 65_536, ..Spec::default() }
}

impl GuardRun {
    /// Loads the program.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(spec: &Spec) -> Result<Self> {
        let netns = Netns::new("guard-run")?;
        netns.ip("link set lo up")?;
        let mut plane = DataPlane::load(spec).context("cannot load the guard's program")?;
        // Now, and not when the first frame is sent: until then deadlines could pass.
        Program::of(&mut plane)?;
        Ok(Self { plane, orders: Orders::default(), epoch: Instant::now(), netns })
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
        let program = Program::of(&mut self.plane)?;
        let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::default() };
        self.netns.run(|| program.run(options))?
    }

    /// Runs the program on each frame in turn: how many passed.
    ///
    /// # Errors
    /// See [`GuardRun::send`].
    pub fn send_all(&mut self, frames: &[Vec<u8>]) -> Result<usize> {
        let program = Program::of(&mut self.plane)?;
        self.netns.run(|| passes(&program, frames))?
    }

    /// Runs the program on each frame in turn on several CPUs at once, all of them on each: how many passed on each.
    ///
    /// # Errors
    /// See [`GuardRun::send`]; a CPU that this process may not use.
    pub fn send_from_cpus(&mut self, cpus: usize, frames: &[Vec<u8>]) -> Result<Vec<u64>> {
        self.on_cpus(cpus, |program, _| Ok(passes(program, frames)? as u64))
    }

    /// Runs the program on as many CPUs at once as there are frames, each on a frame of its own, as fast as the kernel
    /// can.
    ///
    /// # Errors
    /// See [`GuardRun::send_from_cpus`].
    pub fn repeat_from_cpus(&mut self, frames: &[Vec<u8>], times: u32) -> Result<()> {
        self.on_cpus(frames.len(), |program, cpu| {
            let options = TestRunOptions { data_in: Some(&frames[cpu]), repeat: times, ..TestRunOptions::default() };
            program.run(options).map(drop)
        })?;
        Ok(())
    }

    /// Does something on several CPUs at once, each in a thread of its own.
    fn on_cpus<T: Send>(
        &mut self,
        cpus: usize,
        run: impl Fn(&Program<'_>, usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let program = &Program::of(&mut self.plane)?;
        let start = Barrier::new(cpus);
        let run = |cpu: usize| -> Result<T> {
            let pinned = pin_to(cpu).with_context(|| format!("cannot run on CPU {cpu}"));
            // Whoever fails must not keep the others waiting.
            start.wait();
            pinned?;
            run(program, cpu)
        };
        let run = &run;
        self.netns.run(|| {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || run(cpu))).collect();
                let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
                joined.map(|result| result.unwrap_or_else(|_| anyhow::bail!("a sender panicked"))).collect()
            })
        })?
    }

    /// Counts the replies that leave through the pretended interface, for as long as the answer is kept.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch_replies(&mut self) -> Result<ReplyWatch> {
        let interface = Interface::bare("lo", IFINDEX);
        let plane = &mut self.plane;
        Ok(self.netns.run(move || plane.watch_replies(&interface, Hook::Auto))??)
    }

    /// Runs the program that counts replies on each frame in turn, as if it left through the pretended interface. To be
    /// watched before.
    ///
    /// # Errors
    /// The kernel's; a verdict other than "next".
    pub fn send_out(&mut self, frames: &[Vec<u8>]) -> Result<()> {
        let program = self.plane.ebpf().program_mut(replies::PROGRAM).context("no program for replies")?;
        let program: &SchedClassifier = (&*program).try_into()?;
        self.netns.run(|| {
            for frame in frames {
                let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
                let verdict = program.test_run(options)?.return_value;
                anyhow::ensure!(verdict == TCX_NEXT, "the program for replies answered {verdict}");
            }
            Ok(())
        })?
    }

    /// Everything counted so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        Ok(self.plane.snapshot(self.epoch)?)
    }

    /// What all CPUs remember of clients that are certain to be dropped, places that were never used included.
    ///
    /// # Errors
    /// The kernel's.
    pub fn memos(&mut self) -> Result<Vec<ClientMemo>> {
        let map = self.plane.ebpf().map("CPU").context("no map `CPU`")?;
        let cpus = PerCpuArray::<_, CpuState>::try_from(map)?.get(&0, 0)?;
        Ok(cpus.iter().flat_map(|cpu| cpu.memos).collect())
    }

    /// The events sent since this was last called for the first time.
    pub fn events(&mut self) -> Vec<Event> {
        let Some(mut ring) = self.plane.take_events() else { return Vec::new() };
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.extend(dataplane::decode_event(&item));
        }
        events
    }

    /// Drops the DHCP of a port or client until a tick.
    ///
    /// # Errors
    /// See [`Orders::impose`].
    pub fn mute(&mut self, subject: Subject, until: u64) -> Result<()> {
        self.impose(Target::one(subject), Sanction::Mute, until)
    }

    /// Drops all frames of a port or client until a tick.
    ///
    /// # Errors
    /// See [`Orders::impose`].
    pub fn isolate(&mut self, subject: Subject, until: u64) -> Result<()> {
        self.impose(Target::one(subject), Sanction::Isolate, until)
    }

    /// The quarantine of a target, whatever it is.
    ///
    /// # Errors
    /// See [`Orders::impose`].
    pub fn impose(&mut self, target: Target, sanction: Sanction, until: u64) -> Result<()> {
        self.orders.impose(&mut self.plane, target, sanction, until)
    }

    /// Ends the quarantine of a port or client.
    ///
    /// # Errors
    /// See [`Orders::release`].
    pub fn release(&mut self, subject: Subject) -> Result<()> {
        self.lift(Target::one(subject))
    }

    /// The same for any target.
    ///
    /// # Errors
    /// See [`Orders::release`].
    pub fn lift(&mut self, target: Target) -> Result<()> {
        self.orders.release(&mut self.plane, target)
    }

    /// Puts a port or client on the allowlist until a tick.
    ///
    /// # Errors
    /// See [`Orders::allow`].
    pub fn allow(&mut self, subject: Subject, until: u64) -> Result<()> {
        self.orders.allow(&mut self.plane, subject, until)
    }

    /// Takes it off.
    ///
    /// # Errors
    /// See [`Orders::disallow`].
    pub fn disallow(&mut self, subject: Subject) -> Result<()> {
        self.orders.disallow(&mut self.plane, subject)
    }

    /// The data plane itself.
    pub fn plane(&mut self) -> &mut DataPlane {
        &mut self.plane
    }
}

/// Runs the program on each frame in turn: how many passed.
fn passes(program: &Program<'_>, frames: &[Vec<u8>]) -> Result<usize> {
    let mut passed = 0;
    for frame in frames {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        passed += usize::from(program.run(options)?.0 == Fate::Passed);
    }
    Ok(passed)
}

fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET checks the bounds of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a set that lives through the call; 0 is the calling thread.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Packets of one reason on the port in `slot`.
#[must_use]
pub fn count(snapshot: &Snapshot, slot: usize, reason: Reason) -> u64 {
    snapshot.ports.get(slot).map_or(0, |counters| counters.reasons[reason.index()])
}
