//! A flood of DHCPDISCOVERs, millions per second, exactly counted and always bounded in number and time.
//!
//! The kernel runs our XDP program (`dhcp-guard-ebpf/src/lab/flood.rs`) on live frames (`BPF_PROG_TEST_RUN`, kernel
//! 5.18), and the program redirects each to the egress interface. If that is a veth, its peer receives them.
//!
//! **How exact the counts are.** The program counts what it redirects ([`Report::sent`]). A veth takes a redirected
//! frame or, when its peer's ring of 256 is full, drops it and counts that ([`Report::lost`]). So `sent - lost` is what
//! the peer's driver received, and per MAC the counts are exact when nothing was lost. Losses are rare by construction:
//! batches are a quarter of the ring, the sending thread stays on one CPU, and the kernel lets the receiver run on that
//! CPU after every batch. They can happen when another CPU is already busy receiving on the same interface.
//!
//! **Why one system call for a whole flood.** A call for more than one frame costs 24 ms before it sends anything (the
//! kernel changes its XDP dispatcher and waits for all CPUs to notice), whatever the number of frames: a flood in
//! small calls is one with pauses that real clients slip through. So it is one call, ended by a signal when its time is
//! over. A call for one frame has no such cost (13 µs in all), which is how a flood with a rate is paced.

use std::{
    env, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};

use crate::{
    control,
    interrupt::Interrupt,
    link,
    mac::Mac,
    packets::{self, Tag},
    topology::Injection,
};

/// Frames between two chances for the receiver, a quarter of a veth's ring of 256.
const BATCH: u32 = 64;
/// Most frames of one system call; the kernel counts them in 32 bits.
const CHUNK: u64 = 1 << 31;
/// Up to this rate frames are sent one by one when they are due; a call takes 13 µs. Above, they come in bursts.
const SMOOTH_RATE: u64 = 25_000;
/// The same where a call takes many times as long.
const SLOW_SMOOTH_RATE: u64 = 1_000;
/// Frames a second that stand for "as fast as possible" there: whatever else runs on the only processor needs some of it.
const SLOW_FULL_RATE: u64 = 30_000;
/// Set (to anything) on a machine that is emulated.
pub const SLOW_MACHINE: &str = "DHCP_GUARD_TESTS_SLOW_MACHINE";
/// How often a flood with a rate sends what is due: one by one, or in bursts, long against the cost of a burst.
const TICK: Duration = Duration::from_millis(1);
const BURST_TICK: Duration = Duration::from_millis(100);
/// How often the sender is told to stop until it does.
const STOP_PERIOD: Duration = Duration::from_millis(2);
/// Most MACs of a round robin; the program's table has one counter for each.
pub const MAX_MACS: u32 = 1 << 16;
/// Link-layer header of the template in 16-bit words, as the program has it.
type Header = [u16; 11];
/// What the program keeps from frame to frame: frames sent, state of its random generator, whose turn it is.
type State = [u64; 3];

/// Whose frames they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All of one MAC.
    One(Mac),
    /// Round robin over `count` MACs: `base` with its last two bytes replaced by 0, 1, …
    Macs {
        /// The first four bytes.
        base: Mac,
        /// How many, at most [`MAX_MACS`].
        count: u32,
    },
    /// A new source MAC and client hardware address for every frame, `0a:…`, the same sequence for the same seed.
    Random {
        /// Any number but 0.
        seed: u64,
    },
    /// One source MAC, a new client hardware address for every frame.
    RandomChaddr {
        /// The source MAC.
        source: Mac,
        /// Any number but 0.
        seed: u64,
    },
    /// Everything new in every frame, each on its own: source MAC and client hardware address (`0a:…`), transaction id,
    /// relay address, and a message type of 1 to 8.
    RandomAll {
        /// Any number but 0.
        seed: u64,
    },
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Whose frames.
    pub mode: Mode,
    /// VLAN tags, the outer one first; two at most.
    pub tags: Vec<Tag>,
    /// Whether the tags get new ids, 0 to 4095, in every frame; those above then do not matter.
    pub random_vlans: bool,
}

impl Traffic {
    /// The same with these VLAN tags, the outer one first.
    #[must_use]
    pub fn tagged(mut self, tags: &[Tag]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    /// The same with new ids in its VLAN tags for every frame.
    #[must_use]
    pub const fn with_random_vlans(mut self) -> Self {
        self.random_vlans = true;
        self
    }
}

impl From<Mode> for Traffic {
    fn from(mode: Mode) -> Self {
        Self { mode, tags: Vec::new(), random_vlans: false }
    }
}

/// When to stop, and how fast to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Exactly this many frames, if there is time for them.
    pub max_packets: u64,
    /// No longer than this.
    pub max_time: Duration,
    /// Frames per second; as fast as possible if not given. Up to 25,000 each frame is sent when it is due; above, they
    /// come in bursts, ten a second, and the last one may be cut off by the time limit.
    pub rate_pps: Option<u64>,
}

impl Limits {
    /// As fast as possible for some time.
    #[must_use]
    pub const fn time(max_time: Duration) -> Self {
        Self { max_packets: u64::MAX, max_time, rate_pps: None }
    }

    /// As fast as possible, this many frames, for a minute at most.
    #[must_use]
    pub const fn packets(max_packets: u64) -> Self {
        Self { max_packets, max_time: Duration::from_secs(60), rate_pps: None }
    }

    /// The same at this many frames per second.
    #[must_use]
    pub const fn at(mut self, rate_pps: u64) -> Self {
        self.rate_pps = Some(rate_pps);
        self
    }
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Frames handed to the egress interface.
    pub sent: u64,
    /// Of these, those that its peer had no room for; `None` if the interface does not say (it is not a veth).
    pub lost: Option<u64>,
    /// Frames of each MAC of a round robin, by index; of the one MAC in [`Mode::One`] and [`Mode::RandomChaddr`];
    /// empty in [`Mode::Random`] and [`Mode::RandomAll`].
    pub per_mac: Vec<u64>,
    /// From the first frame to the last.
    pub elapsed: Duration,
}

impl Report {
    /// Frames that the peer of the egress interface received.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.sent - self.lost.unwrap_or(0)
    }

    /// Frames sent per second.
    #[must_use]
    pub fn rate_pps(&self) -> f64 {
        // Not more than 2^53 frames in anyone's lifetime.
        self.sent as f64 / self.elapsed.as_secs_f64()
    }
}

/// A running flood; it ends when a limit is reached, when it is stopped, and when it is dropped.
#[derive(Debug)]
pub struct Flood {
    events: mpsc::Sender<Event>,
    supervisor: Option<JoinHandle<Result<Report>>>,
}

/// What the supervisor of a flood waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Somebody wants it to stop.
    Stop,
    /// The sender has ended.
    Ended,
}

impl Flood {
    /// Starts to send. When this returns, the program is loaded and the sender about to start.
    pub fn start(from: &Injection, traffic: impl Into<Traffic>, limits: Limits) -> Result<Self> {
        let traffic = traffic.into();
        let generator = Generator::load(from, &traffic)?;
        let (events, inbox) = mpsc::channel();
        let (from, sender_events) = (from.clone(), events.clone());
        let supervise = move || supervise(generator, &from, &traffic.mode, limits, sender_events, &inbox);
        let supervisor =
            thread::Builder::new().name("flood".into()).spawn(supervise).context("cannot start a thread")?;
        Ok(Self { events, supervisor: Some(supervisor) })
    }

    /// Stops now.
    pub fn stop(mut self) -> Result<Report> {
        self.request_stop();
        self.join()
    }

    /// Waits until a limit is reached.
    pub fn wait(mut self) -> Result<Report> {
        self.join()
    }

    fn request_stop(&self) {
        // Nobody listens when it has ended already.
        let _ = self.events.send(Event::Stop);
    }

    fn join(&mut self) -> Result<Report> {
        let supervisor = self.supervisor.take().context("the flood has been joined already")?;
        supervisor.join().map_err(|_panic| anyhow!("the flood's thread panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.request_stop();
        if self.supervisor.is_some() {
            // Nobody is left to read the report.
            let _ = self.join();
        }
    }
}

/// Runs the sender on a thread of its own, sees to it that it ends in time, and writes the report.
fn supervise(
    mut generator: Generator,
    from: &Injection,
    mode: &Mode,
    limits: Limits,
    events: mpsc::Sender<Event>,
    inbox: &mpsc::Receiver<Event>,
) -> Result<Report> {
    let lost_before = link::redirects_lost(&from.netns, &from.interface)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (netns, stopped) = (from.netns.clone(), Arc::clone(&stop));
    let send = move || -> Result<(Generator, Duration)> {
        // Sent also when this thread panics.
        let _ended = OnDrop(|| {
            // Nobody listens when the supervisor has failed.
            let _ = events.send(Event::Ended);
        });
        netns.enter()?;
        stay_on_one_cpu()?;
        let elapsed = generator.send(&limits, &stopped)?;
        Ok((generator, elapsed))
    };
    let interrupt = Interrupt::new()?;
    let sender = thread::Builder::new().name("flood-sender".into()).spawn(send).context("cannot start a thread")?;
    let mut event = inbox.recv_timeout(limits.max_time);
    stop.store(true, Ordering::Relaxed);
    // Again and again: a signal that comes just before the system call does not interrupt it.
    while !matches!(event, Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected)) {
        interrupt.send(&sender);
        event = inbox.recv_timeout(STOP_PERIOD);
    }
    let (generator, elapsed) = sender.join().map_err(|_panic| anyhow!("the flood's sender panicked"))??;
    let lost_after = link::redirects_lost(&from.netns, &from.interface)?;
    let lost = lost_before.zip(lost_after).map(|(before, after)| after - before);
    generator.report(mode, lost, elapsed)
}

/// The frames that a flood of this traffic begins with, for a look at them: nothing is sent.
///
/// # Errors
/// The kernel's.
pub fn first_frames(from: &Injection, traffic: impl Into<Traffic>, count: usize) -> Result<Vec<Vec<u8>>> {
    let mut generator = Generator::load(from, &traffic.into())?;
    (0..count).map(|_| generator.finish_one()).collect()
}

/// Does something when dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The loaded program with its template.
struct Generator {
    object: Ebpf,
    template: Vec<u8>,
}

impl Generator {
    /// Loads the program, set up for this traffic out of this interface.
    fn load(from: &Injection, traffic: &Traffic) -> Result<Self> {
        let (mode, source, count, seed) = match traffic.mode {
            Mode::One(mac) => (0_u32, mac, 1, 1),
            Mode::Macs { base, count } => (1, base, count, 1),
            Mode::Random { seed } => (2, Mac([0x0a, 0, 0, 0, 0, 0]), 1, seed),
            Mode::RandomChaddr { source, seed } => (3, source, 1, seed),
            Mode::RandomAll { seed } => (4, Mac([0x0a, 0, 0, 0, 0, 0]), 1, seed),
        };
        ensure!((1..=MAX_MACS).contains(&count), "a flood has 1 to {MAX_MACS} MACs, not {count}");
        ensure!(seed != 0, "a seed of 0 makes no random numbers");
        ensure!(traffic.tags.len() <= 2, "a flood has at most 2 VLAN tags, not {}", traffic.tags.len());
        ensure!(!traffic.random_vlans || !traffic.tags.is_empty(), "random VLAN ids need tags to be in");
        let random_vlans = if traffic.random_vlans { u32::try_from(traffic.tags.len())? } else { 0 };

        // Without a UDP checksum, because the message changes.
        let mut frame = packets::discover(source).tagged(&traffic.tags);
        frame.checksum = false;
        let (template, link_len) = (frame.bytes(), frame.link_len());
        let header = header(&template[..link_len]);
        let header_len = u32::try_from(link_len / 2)?;
        // IPv4 without options and UDP are between the link layer and the message.
        let message_offset = u32::try_from(link_len + 20 + 8)?;
        let egress = from.netns.ifindex(&from.interface)?;

        let mut object = control::load_with(
            EbpfLoader::new()
                .override_global("EGRESS_IFINDEX", &egress, true)
                .override_global("MODE", &mode, true)
                .override_global("MAC_COUNT", &count, true)
                .override_global("HEADER", &header, true)
                .override_global("HEADER_LEN", &header_len, true)
                .override_global("RANDOM_VLANS", &random_vlans, true)
                .override_global("MESSAGE_OFFSET", &message_offset, true),
        )?;
        control::program(&mut object, "flood")?;
        let state = object.map_mut("STATE").context("no map `STATE` in the lab's object")?;
        Array::<_, State>::try_from(state)?.set(0, [0, seed, 0], 0).context("cannot write the map `STATE`")?;
        Ok(Self { object, template })
    }

    /// Sends until a limit is reached or `stop` is set; answers how long that took.
    fn send(&mut self, limits: &Limits, stop: &AtomicBool) -> Result<Duration> {
        let program: &Xdp = self.object.program("flood").context("no program `flood`")?.try_into()?;
        let is_slow = env::var_os(SLOW_MACHINE).is_some();
        let smooth_rate = if is_slow { SLOW_SMOOTH_RATE } else { SMOOTH_RATE };
        let rate = limits.rate_pps.or(is_slow.then_some(SLOW_FULL_RATE));
        let start = Instant::now();
        let mut sent = 0;
        while sent < limits.max_packets && !stop.load(Ordering::Relaxed) {
            let Some(rate) = rate else {
                run(program, &self.template, (limits.max_packets - sent).min(CHUNK))?;
                sent = self.state()?[0];
                continue;
            };
            let chunk = due(start.elapsed(), rate).min(limits.max_packets).saturating_sub(sent).min(CHUNK);
            let call = if rate <= smooth_rate { 1 } else { chunk };
            for _ in 0..chunk.checked_div(call).unwrap_or(0) {
                run(program, &self.template, call)?;
            }
            sent = self.state()?[0];
            // Ended early by the signal that comes with `stop`.
            thread::park_timeout(if rate <= smooth_rate { TICK } else { BURST_TICK });
        }
        Ok(start.elapsed())
    }

    /// What the program makes of the template next.
    fn finish_one(&mut self) -> Result<Vec<u8>> {
        let program: &Xdp = self.object.program("flood").context("no program `flood`")?.try_into()?;
        let mut frame = vec![0; self.template.len()];
        let options =
            TestRunOptions { data_in: Some(&self.template), data_out: Some(&mut frame), ..TestRunOptions::default() };
        program.test_run(options).context("cannot run the flood on one frame")?;
        Ok(frame)
    }

    fn state(&self) -> Result<State> {
        let map = self.object.map("STATE").context("no map `STATE`")?;
        Array::try_from(map)?.get(&0, 0).context("cannot read the map `STATE`")
    }

    fn report(&self, mode: &Mode, lost: Option<u64>, elapsed: Duration) -> Result<Report> {
        let [sent, ..] = self.state()?;
        let per_mac = match mode {
            Mode::One(_) | Mode::RandomChaddr { .. } => vec![sent],
            Mode::Random { .. } | Mode::RandomAll { .. } => Vec::new(),
            Mode::Macs { count, .. } => {
                let counters = self.object.map("SENT").context("no map `SENT`")?;
                let counters = Array::<_, u64>::try_from(counters)?;
                (0..*count).map(|index| counters.get(&index, 0)).collect::<Result<_, _>>().context("map `SENT`")?
            }
        };
        Ok(Report { sent, lost, per_mac, elapsed })
    }
}

/// Sends some frames. A signal may end it early: the program's own count is the true one.
fn run(program: &Xdp, template: &[u8], frames: u64) -> Result<()> {
    let options = TestRunOptions {
        data_in: Some(template),
        repeat: u32::try_from(frames).context("more frames than one call can send")?,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::default()
    };
    match program.test_run(options) {
        Ok(_) => Ok(()),
        Err(ProgramError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(error).context("cannot run the flood on live frames (needs kernel 5.18 and CAP_NET_ADMIN)"),
    }
}

/// The header in words as they are in memory, the rest 0.
fn header(bytes: &[u8]) -> Header {
    let mut header = Header::default();
    for (word, pair) in header.iter_mut().zip(bytes.chunks_exact(2)) {
        *word = u16::from_ne_bytes([pair[0], pair[1]]);
    }
    header
}

/// Frames due after some time at a rate, rounded up so that the first is due at once.
fn due(elapsed: Duration, rate_pps: u64) -> u64 {
    let frames = elapsed.as_nanos() * u128::from(rate_pps) / 1_000_000_000 + 1;
    u64::try_from(frames).unwrap_or(u64::MAX)
}

/// Keeps the calling thread on the CPU it is on, so that the receiver's poll, which the kernel runs where the sender
/// is, does not get left behind on another one.
fn stay_on_one_cpu() -> Result<()> {
    // SAFETY: no arguments.
    let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).context("cannot tell the current CPU")?;
    // SAFETY: a set of bits, for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is large enough for every CPU the C library knows; out of range is checked by CPU_SET.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set lives through the call; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot keep the flood on one CPU");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_due_in_time() {
        assert_eq!(due(Duration::ZERO, 1000), 1);
        assert_eq!(due(Duration::from_millis(10), 1000), 11);
        assert_eq!(due(Duration::from_secs(60), 1), 61);
    }
}
