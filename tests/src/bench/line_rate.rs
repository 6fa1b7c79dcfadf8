//! Frames dropped per second on a veth, against an empty XDP_DROP: generator, driver and program together, on one CPU.
//!
//! Two links side by side, one with the guard and one with the control, take turns, so that nothing is attached or
//! detached during the measurement. The rate is taken from the receiving interface's own counter while the flood runs,
//! because its start takes the kernel 24 ms and more.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use dhcp_guard::{
    dataplane::{DataPlane, PortSpec, attach::Attachment, interface::Interface},
    model::AttachMode,
};
use dhcp_guard_common::{layout::PortKey, parse::Vlans, verdict::Reason};

use super::{
    Effort, Only,
    contention::Taken,
    machine::{Cpus, Preferred},
    spread::Spread,
};
use crate::{
    control::{Control, Verdict},
    flood::{Flood, Limits, Mode},
    guard_run, link,
    mac::Mac,
    netns::Netns,
    topology::Injection,
    wait,
};

/// What one kind of flood comes to.
#[derive(Clone, Debug)]
pub struct FloodFigure {
    /// Stable name.
    pub name: &'static str,
    /// The same for people.
    pub text: &'static str,
    /// Frames per second that the control drops.
    pub control_pps: Spread,
    /// Frames per second that the guard drops, as a share of the control's.
    pub ratio: Spread,
    /// Aimed at.
    pub goal_ratio: Option<f64>,
    /// Pairs that were taken again, because others used the CPU.
    pub pairs_repeated: usize,
    /// Pairs that are in the figures although others used the CPU, because too many had been taken again already. Not 0:
    /// the machine was too busy for this figure.
    pub pairs_disturbed: usize,
}

/// A flood to measure.
struct Kind {
    name: &'static str,
    text: &'static str,
    mode: Mode,
    goal_ratio: Option<f64>,
    /// The receiver: the guard, or for the noise a second control.
    guarded: bool,
}

const SEED: u64 = 0x6463_7067_7561_7264;
const BASE: Mac = Mac([2, 0, 0xf1, 0, 0, 0]);

fn kinds() -> [Kind; 5] {
    let kind = |name, text, mode, goal_ratio| Kind { name, text, mode, goal_ratio, guarded: true };
    [
        Kind { guarded: false, ..kind("noise_flood", "noise: empty XDP_DROP against itself", Mode::One(BASE), None) },
        kind("flood_one_mac", "one MAC", Mode::One(BASE), Some(0.88)),
        kind("flood_256_macs", "256 MACs in turn", Mode::Macs { base: BASE, count: 256 }, None),
        kind("flood_4096_macs", "4,096 MACs in turn", Mode::Macs { base: BASE, count: 4096 }, None),
        kind("flood_random_macs", "a random MAC for every frame", Mode::Random { seed: SEED }, Some(0.85)),
    ]
}

/// Measures all floods.
///
/// # Errors
/// The kernel's; a guard that did not drop the flood.
pub fn measure(effort: Effort, only: &Only, progress: &mut impl FnMut(&str)) -> Result<Vec<FloodFigure>> {
    let mut figures = Vec::new();
    for kind in kinds().into_iter().filter(|kind| only.includes(kind.name)) {
        progress(&format!("flood: {}", kind.text));
        figures.push(measure_kind(&kind, effort).with_context(|| format!("`{}`", kind.name))?);
    }
    Ok(figures)
}

fn measure_kind(kind: &Kind, effort: Effort) -> Result<FloodFigure> {
    let bed = TestBed::new()?;
    let _control = Control::attach(&bed.receiver, CONTROL.receiver, Verdict::Drop, XdpMode::Driver)?;
    let mut second = if kind.guarded { Second::guard(&bed)? } else { Second::control(&bed)? };
    let (mut control_pps, mut ratio) = (Vec::new(), Vec::new());
    let (mut pairs_repeated, mut pairs_disturbed) = (0, 0);
    // The first pair warms up and does not count.
    for pair in 0.. {
        let (control, guard);
        if pair % 2 == 0 {
            control = bed.rate(&CONTROL, kind.mode, effort.flood_time)?;
            guard = second.rate(&bed, kind.mode, effort.flood_time)?;
        } else {
            guard = second.rate(&bed, kind.mode, effort.flood_time)?;
            control = bed.rate(&CONTROL, kind.mode, effort.flood_time)?;
        }
        if pair == 0 {
            continue;
        }
        if control.is_disturbed() || guard.is_disturbed() {
            if pairs_repeated < MOST_AGAIN * effort.flood_pairs {
                pairs_repeated += 1;
                continue;
            }
            pairs_disturbed += 1;
        }
        control_pps.push(control.pps);
        ratio.push(guard.pps / control.pps);
        if ratio.len() == effort.flood_pairs {
            break;
        }
    }
    Ok(FloodFigure {
        name: kind.name,
        text: kind.text,
        control_pps: Spread::of(&control_pps)?,
        ratio: Spread::of(&ratio)?,
        goal_ratio: kind.goal_ratio,
        pairs_repeated,
        pairs_disturbed,
    })
}

/// A veth, by the names of its ends.
struct Wire {
    sender: &'static str,
    receiver: &'static str,
}

const CONTROL: Wire = Wire { sender: "to-control", receiver: "control" };
const GUARDED: Wire = Wire { sender: "to-guard", receiver: "guarded" };

/// Two links from one namespace to another.
struct TestBed {
    sender: Netns,
    receiver: Netns,
}

/// What a flood came to.
struct Measured {
    /// Frames received per second, while it ran.
    pps: f64,
    /// Share of the time that others took from the sender.
    taken: f64,
    /// Frames received in all.
    received: u64,
}

/// More than this of its time taken from a flood makes it worthless.
const MOST_TAKEN: f64 = 0.02;

/// How often at most pairs are taken again, as a multiple of the pairs asked for: where neighbours are busy all the
/// time, more patience only takes longer.
const MOST_AGAIN: usize = 1;

impl Measured {
    fn is_disturbed(&self) -> bool {
        self.taken > MOST_TAKEN
    }
}

/// What [`crate::flood`] calls the thread that sends (the kernel keeps 15 bytes of it).
const SENDER_THREAD: &str = "flood-sender";
/// Longest time a flood may take to start.
const START: Duration = Duration::from_secs(5);

impl TestBed {
    fn new() -> Result<Self> {
        let bed = Self { sender: Netns::new("flood")?, receiver: Netns::new("receiver")? };
        for Wire { sender, receiver } in [CONTROL, GUARDED] {
            let path = bed.receiver.path();
            bed.sender.ip(&format!("link add {sender} type veth peer name {receiver} netns {path}\n"))?;
            bed.sender.ip(&format!("link set {sender} up\n"))?;
            bed.receiver.ip(&format!("link set {receiver} up\n"))?;
        }
        Ok(bed)
    }

    /// Floods a link and measures in the middle of it.
    fn rate(&self, wire: &Wire, mode: Mode, time: Duration) -> Result<Measured> {
        let received = || anyhow::Ok((Instant::now(), link::received(&self.receiver, wire.receiver)?.frames));
        let from = Injection { netns: self.sender.clone(), interface: wire.sender.into() };
        let (_, before) = received()?;
        let flood = start_on_last_cpu(&from, mode, START + 4 * time)?;
        wait::until("the first frame of the flood", START, || Ok(received()?.1 > before))?;
        let taken_before = Taken::from_thread(SENDER_THREAD)?;
        let (start, first) = received()?;
        // why: the passing of real time is what is measured.
        thread::sleep(time);
        let (end, last) = received()?;
        let taken = Taken::from_thread(SENDER_THREAD)?.since(&taken_before);
        flood.stop()?;
        let elapsed = (end - start).as_secs_f64();
        let (pps, taken) = ((last - first) as f64 / elapsed, taken as f64 / 1e9 / elapsed);
        Ok(Measured { pps, taken, received: received()?.1 - before })
    }
}

/// The flood stays on the CPU it is started on. It is always the same one, others come second there, and the measuring
/// thread is free to use the rest of the machine.
fn start_on_last_cpu(from: &Injection, mode: Mode, max_time: Duration) -> Result<Flood> {
    let cpus = Cpus::current()?;
    cpus.last().keep_to()?;
    let _preferred = Preferred::new()?;
    let flood = Flood::start(from, mode, Limits::time(max_time));
    cpus.keep_to()?;
    flood
}

/// What is on the second link. (The program's attachment goes before the program.)
enum Second {
    Control { _control: Control },
    Guard { _attachment: Box<Attachment>, plane: Box<DataPlane> },
}

impl Second {
    fn control(bed: &TestBed) -> Result<Self> {
        let control = Control::attach(&bed.receiver, GUARDED.receiver, Verdict::Drop, XdpMode::Driver)?;
        Ok(Self::Control { _control: control })
    }

    /// The guard with the limits of a port for machines: 50 packets a second, half of it for strangers, 2 a second each.
    fn guard(bed: &TestBed) -> Result<Self> {
        let ifindex = bed.receiver.ifindex(GUARDED.receiver)?;
        let port = PortSpec {
            key: PortKey::new(ifindex, Vlans::default()),
            total: (50, 250),
            strangers: (25, 125),
            new_clients: (128, 128),
            client_v4: (2, 20),
            ..guard_run::port(0, 0)
        };
        let mut plane = Box::new(DataPlane::load(&guard_run::spec(vec![port]))?);
        let interface = Interface { name: GUARDED.receiver.into(), ifindex, up: true, xdp_program: None };
        let attachment = Box::new(bed.receiver.run(|| plane.attach(interface))??);
        ensure!(attachment.mode == AttachMode::Native, "the guard is not attached natively");
        Ok(Self::Guard { _attachment: attachment, plane })
    }

    /// Floods the second link. The guard's counters must say that it saw every frame and dropped all but what its limits
    /// allow.
    fn rate(&mut self, bed: &TestBed, mode: Mode, time: Duration) -> Result<Measured> {
        let Self::Guard { plane, .. } = self else { return bed.rate(&GUARDED, mode, time) };
        let started = Instant::now();
        let before = Drops::read(plane)?;
        let measured = bed.rate(&GUARDED, mode, time)?;
        let counted = Drops::read(plane)?;
        let (seen, dropped) = (counted.seen - before.seen, counted.dropped - before.dropped);
        ensure!(seen == measured.received, "the guard counted {seen} frames, its interface {}", measured.received);
        // Bursts of the port's strangers, and twice the rate of that for the sake of coarse clocks.
        let allowed = 125 + 50 * (started.elapsed().as_secs() + 1);
        ensure!(seen - dropped <= allowed, "{} of {seen} frames got through, {allowed} may", seen - dropped);
        Ok(measured)
    }
}

/// DHCP frames counted by the guard.
struct Drops {
    seen: u64,
    dropped: u64,
}

impl Drops {
    fn read(plane: &mut DataPlane) -> Result<Self> {
        let snapshot = plane.snapshot(Instant::now())?;
        let count = |reason: &Reason| guard_run::count(&snapshot, 1, *reason);
        let seen = Reason::ALL.iter().map(count).sum();
        let dropped = Reason::ALL.iter().filter(|reason| reason.is_drop()).map(count).sum();
        Ok(Self { seen, dropped })
    }
}
