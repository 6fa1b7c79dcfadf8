//! The lab tests itself: that real clients get leases, that a flood is what it says, that nothing is left behind.

use std::{
    collections::{BTreeSet, HashSet},
    env, fs,
    io::{self, BufRead as _, BufReader},
    path::PathBuf,
    process::{ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use libtest_mimic::Trial;
use tests::{
    cleanup,
    client::{self, leases},
    control::{Control, Verdict},
    flood::{Flood, Limits, Mode, Traffic, first_frames},
    harness::{Need, trial},
    herd::{self, Boot, Herd, Progress},
    mac::Mac,
    netns::Netns,
    packets::{CHADDR_IN_MESSAGE, GIADDR_IN_MESSAGE, TYPE_IN_MESSAGE, Tag, XID_IN_MESSAGE},
    stampede::Stampede,
    topology::{Lab, Layout},
    wait,
};

/// Real clients need tens of milliseconds; this is for a machine that is busy with something else.
const LEASE_DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("lab: 20 real clients behind one uplink get leases and renew them", Need::LAB, || {
            clients_get_leases(Layout::Uplink)
        }),
        trial("lab: 20 real clients on ports of their own get leases and renew them", Need::LAB, || {
            clients_get_leases(Layout::PerMachine)
        }),
        trial("lab: a herd gets leases, renews them, and outlives its server", Need::LAB, herd_outlives_its_server),
        trial("lab: a stampede is many floods at once", Need::LAB, stampede_is_even),
        trial("lab: a flood of 100 MACs is counted exactly, by us and by the interface", Need::LAB, counts_are_exact),
        trial("lab: a flood with VLAN tags arrives with them", Need::LAB, tags_arrive),
        trial("lab: each mode of the flood varies what it says and nothing else", Need::LAB, modes_vary_what_they_say),
        trial("lab: a flood keeps its rate and its limit", Need::LAB, rate_is_kept),
        trial("lab: flood without guard reaches the server and is counted there", Need::LAB, flood_reaches_the_server),
        trial("lab: nothing is left behind after success, failure and panic", Need::LAB, nothing_left_after_drop),
        trial("lab: nothing is left behind after SIGKILL", Need::LAB, || nothing_left_after(libc::SIGKILL)),
        trial("lab: nothing is left behind after Ctrl-C", Need::LAB, || nothing_left_after(libc::SIGINT)),
    ]
}

fn clients_get_leases(layout: Layout) -> Result<()> {
    const COUNT: usize = 20;
    let lab = Lab::new(layout, COUNT)?;
    let mut clients = lab.clients(0..COUNT)?;
    let first = client::run_all(&mut clients, LEASE_DEADLINE)?;
    let bound = leases(&first);
    ensure!(bound.len() == COUNT, "{} of {COUNT} leases: {first:?}", bound.len());
    let addresses: BTreeSet<_> = bound.iter().map(|lease| lease.address).collect();
    ensure!(addresses.len() == COUNT, "one address went to two machines: {addresses:?}");

    let renewed = leases(&client::run_all(&mut clients, LEASE_DEADLINE)?);
    ensure!(renewed.iter().all(|lease| lease.discovers == 0 && lease.requests >= 1), "not a renewal: {renewed:?}");
    ensure!(renewed.iter().map(|lease| lease.address).eq(bound.iter().map(|lease| lease.address)), "other addresses");

    let counts = lab.server.counts()?;
    for machine in &lab.machines {
        // DISCOVER, REQUEST and the renewal's REQUEST.
        ensure!(
            counts.of(machine.mac) >= 3,
            "the server's interface saw {} frames of {machine:?}",
            counts.of(machine.mac)
        );
    }
    Ok(())
}

/// Twelve clients on three ports, whose leases are to be renewed every three seconds.
fn herd_outlives_its_server() -> Result<()> {
    const COUNT: usize = 12;
    const SOON: Duration = Duration::from_secs(20);
    let mut lab = Lab::with_server(Layout::PerMachine, 3, &["--dhcp-option=option:T1,3", "--dhcp-option=option:T2,6"])?;
    let mac = |index| Mac([2, 0xae, 0, 0, 0, 0]).with_index(index as u16);
    let places: Vec<_> = (0..3).map(|index| lab.injection(index)).collect();
    let mut herd = Herd::start(&places, &herd::members(COUNT, 3, Duration::from_secs(1), Boot::Disk, mac))?;
    herd.wait("two renewals of each", SOON, |one| one.renewals >= 2)?;
    let progress = herd.progress();
    let addresses: BTreeSet<_> = progress.iter().filter_map(|one| one.address).collect();
    ensure!(addresses.len() == COUNT, "one address went to two: {progress:?}");
    ensure!(progress.iter().all(|one| one.leases == 1 && one.repeated + one.refused == 0), "{progress:?}");

    lab.server.kill();
    // Three of them forget their leases meanwhile.
    herd.power_cycle(0..3)?;
    herd.wait("unanswered messages", SOON, |one| one.repeated >= 1)?;
    let back = herd.now();
    lab.server.restart()?;
    herd.wait("leases and renewals after the server's return", SOON * 2, |one| one.last_ack > Some(back))?;
    let progress = herd.stop()?;
    let again = |one: &Progress| one.leases == 2;
    ensure!(progress[..3].iter().all(again) && !progress[3..].iter().any(again), "{progress:?}");
    ensure!(progress.iter().all(|one| one.address.is_some() && one.lost == 0), "{progress:?}");
    Ok(())
}

fn stampede_is_even() -> Result<()> {
    const MACHINES: usize = 5;
    const RATE: u64 = 200;
    let lab = Lab::new(Layout::PerMachine, MACHINES)?;
    let machines: Vec<_> = lab.machines.iter().zip(0..).map(|(one, index)| (lab.injection(index), one.mac)).collect();
    let stampede = Stampede::start(&machines, RATE, Duration::from_secs(20))?;
    let start = stampede.began();
    wait::until("a second's frames at the server", Duration::from_secs(10), || {
        Ok(lab.server.counts()?.requests >= MACHINES as u64 * RATE)
    })?;
    let sent = stampede.stop();
    let most = (start.elapsed().as_secs_f64() * RATE as f64) as u64 + 1;
    ensure!((RATE..=most).contains(&sent), "each sent {sent} in {:?}", start.elapsed());
    wait::until("all frames at the server", Duration::from_secs(5), || {
        let counts = lab.server.counts()?;
        Ok(lab.machines.iter().all(|machine| counts.of(machine.mac) == sent))
    })
}

fn counts_are_exact() -> Result<()> {
    const MACS: u32 = 100;
    const FRAMES: u64 = 1_000_050;
    for layout in [Layout::Uplink, Layout::PerMachine] {
        let lab = Lab::new(layout, 1)?;
        let guarded = &lab.machines[0].guarded;
        let _control = Control::attach(&lab.host, guarded, Verdict::Drop, XdpMode::Driver)?;
        let before = lab.received(guarded)?;
        let mode = Mode::Macs { base: Mac([2, 0xf1, 0, 0, 0, 0]), count: MACS };
        let report = Flood::start(&lab.injection(0), mode, Limits::packets(FRAMES))?.wait()?;
        ensure!(report.sent == FRAMES, "{report:?}");
        ensure!(report.per_mac.iter().sum::<u64>() == FRAMES, "{report:?}");
        // 1,000,050 is 100 × 10,000 and one for each of the first fifty.
        ensure!((0..MACS as usize).all(|index| report.per_mac[index] == 10_000 + u64::from(index < 50)), "{report:?}");
        wait::until("all frames delivered received", Duration::from_secs(5), || {
            Ok(lab.received(guarded)?.frames - before.frames == report.delivered())
        })?;
        ensure!(report.lost == Some(0), "a flood alone on its interface loses nothing: {report:?}");
        ensure!(lab.server.counts()?.requests == 0, "dropped frames reached the server");
    }
    Ok(())
}

fn tags_arrive() -> Result<()> {
    const FRAMES: u64 = 10_000;
    let lab = Lab::new(Layout::Uplink, 1)?;
    let traffic = Traffic::from(Mode::One(Mac::machine(0))).tagged(&[Tag::s(100), Tag::c(20)]);
    let report = Flood::start(&lab.injection(0), traffic, Limits::packets(FRAMES).at(50_000))?.wait()?;
    wait::until("all tagged frames at the server", Duration::from_secs(5), || {
        Ok(lab.server.counts()?.tagged == report.delivered())
    })?;
    ensure!(lab.server.counts()?.requests == 0, "tagged frames lost their tags");
    Ok(())
}

/// What differs between the frames of a flood.
#[derive(Debug, Default)]
struct Varied {
    sources: HashSet<Vec<u8>>,
    chaddrs: HashSet<Vec<u8>>,
    xids: HashSet<Vec<u8>>,
    giaddrs: HashSet<Vec<u8>>,
    types: BTreeSet<u8>,
    vlans: [BTreeSet<u16>; 2],
    /// Everything else, zeros in the place of the above.
    rest: HashSet<Vec<u8>>,
}

impl Varied {
    fn of(frames: Vec<Vec<u8>>, tags: usize) -> Self {
        let mut varied = Self::default();
        for mut frame in frames {
            let message = 14 + 4 * tags + 28;
            let mut take = |offset: usize, len: usize| {
                let taken = frame[offset..][..len].to_vec();
                frame[offset..][..len].fill(0);
                taken
            };
            varied.sources.insert(take(6, 6));
            varied.chaddrs.insert(take(message + CHADDR_IN_MESSAGE, 6));
            varied.xids.insert(take(message + XID_IN_MESSAGE, 4));
            varied.giaddrs.insert(take(message + GIADDR_IN_MESSAGE, 4));
            varied.types.extend(take(message + TYPE_IN_MESSAGE, 1));
            for (tag, vlans) in varied.vlans.iter_mut().enumerate().take(tags) {
                vlans.insert(u16::from_be_bytes(take(14 + 4 * tag, 2).try_into().expect("two bytes")));
            }
            varied.rest.insert(frame);
        }
        varied
    }
}

fn modes_vary_what_they_say() -> Result<()> {
    const FRAMES: usize = 500;
    let lab = Lab::new(Layout::Uplink, 1)?;
    let (source, seed) = (Mac([2, 0xf1, 0, 0, 0, 1]), 7);
    let all_tags = [Tag::s(100), Tag::c(20)];
    // With how many source MACs and client hardware addresses, and whether everything else varies, too.
    for (mode, sources, chaddrs, all) in [
        (Mode::One(source), 1, 1, false),
        (Mode::Macs { base: source, count: 100 }, 100, 100, false),
        (Mode::Random { seed }, FRAMES, FRAMES, false),
        (Mode::RandomChaddr { source, seed }, 1, FRAMES, false),
        (Mode::RandomAll { seed }, FRAMES, FRAMES, true),
    ] {
        for (tags, random_vlans) in [(0, false), (1, false), (2, false), (1, true), (2, true)] {
            let traffic = Traffic { random_vlans, ..Traffic::from(mode).tagged(&all_tags[..tags]) };
            let varied = Varied::of(first_frames(&lab.injection(0), traffic, FRAMES)?, tags);
            let what = || format!("{mode:?}, {tags} tags, random ids: {random_vlans}: {varied:?}");
            ensure!((varied.sources.len(), varied.chaddrs.len()) == (sources, chaddrs), "{}", what());
            ensure!(varied.rest.len() == 1, "{}", what());
            // 500 random numbers of 32 bits hardly ever have a pair of equals, and the sequence is always the same.
            let others = if all { FRAMES } else { 1 };
            ensure!((varied.xids.len(), varied.giaddrs.len()) == (others, others), "{}", what());
            ensure!(varied.types.iter().copied().eq(if all { 1..=8 } else { 1..=1 }), "{}", what());
            ensure!(varied.sources.is_disjoint(&varied.chaddrs) == (all || chaddrs > sources), "{}", what());
            for (vlans, tag) in varied.vlans.iter().zip(&all_tags[..tags]) {
                let alike = vlans.iter().copied().eq([tag.id]);
                let apart = vlans.len() > 400 && vlans.iter().all(|id| *id < 4096);
                ensure!(if random_vlans { apart } else { alike }, "{}", what());
            }
        }
    }
    Ok(())
}

fn rate_is_kept() -> Result<()> {
    const RATE: u64 = 1000;
    let lab = Lab::new(Layout::Uplink, 1)?;
    let limits = Limits::time(Duration::from_secs(2)).at(RATE);
    let report = Flood::start(&lab.injection(0), Mode::Random { seed: 7 }, limits)?.wait()?;
    // A machine that is busy with something else may lag behind, but never run ahead.
    ensure!((RATE..=2 * RATE + 1).contains(&report.sent), "{report:?}");
    wait::until("all frames at the server", Duration::from_secs(5), || {
        Ok(lab.server.counts()?.requests == report.delivered())
    })?;
    let sources = lab.server.counts()?.by_mac.len() as u64;
    ensure!(sources == report.delivered(), "{sources} source MACs of {report:?}");
    Ok(())
}

fn flood_reaches_the_server() -> Result<()> {
    let lab = Lab::new(Layout::Uplink, 1)?;
    let flooder = Mac([2, 0xf1, 0, 0, 0, 1]);
    let mode = Mode::RandomChaddr { source: flooder, seed: 1 };
    let flood = Flood::start(&lab.injection(0), mode, Limits::time(Duration::from_secs(60)))?;
    wait::until("answers of the server", Duration::from_secs(20), || Ok(lab.server.logged().offer > 1000))?;
    let report = flood.stop()?;
    wait::until("all of the flood at the server", Duration::from_secs(5), || {
        Ok(lab.server.counts()?.of(flooder) == report.delivered())
    })
}

/// Child processes and namespaces that this process can see; links of its own namespace.
#[derive(Debug, PartialEq, Eq)]
struct Leftovers {
    children: HashSet<u32>,
    namespaces: HashSet<PathBuf>,
    named: String,
    links: String,
}

impl Leftovers {
    fn now() -> Result<Self> {
        let here = Netns::current()?;
        let links = here.exec(&["ip", "-o", "link", "show"])?;
        let named = here.exec(&["ip", "netns", "list"])?;
        drop(here);
        Ok(Self { children: children(std::process::id())?, namespaces: namespaces()?, named, links })
    }
}

fn nothing_left_after_drop() -> Result<()> {
    let before = Leftovers::now()?;
    clients_get_leases(Layout::PerMachine)?;
    ensure!(Leftovers::now()? == before, "after success: {before:?}, then {:?}", Leftovers::now()?);

    let failed = failing_test();
    ensure!(failed.is_err() && Leftovers::now()? == before, "after failure");

    let panicked = thread::spawn(|| {
        let _parts = all_parts().expect("a lab");
        // Like a panic, without the message of one in the output of a test that succeeds.
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    ensure!(panicked.join().is_err() && Leftovers::now()? == before, "after a panic");
    Ok(())
}

fn failing_test() -> Result<()> {
    let _parts = all_parts()?;
    anyhow::bail!("on purpose")
}

/// A lab with everything in it running.
fn all_parts() -> Result<(Lab, Control, Flood)> {
    let lab = Lab::new(Layout::Uplink, 2)?;
    let control = Control::attach(&lab.host, "uplink0", Verdict::Drop, XdpMode::Driver)?;
    let limits = Limits::time(Duration::from_secs(60));
    let flood = Flood::start(&lab.injection(0), Mode::Random { seed: 1 }, limits)?;
    Ok((lab, control, flood))
}

/// Set for the process that [`nothing_left_after_kill`] kills.
pub(crate) const VICTIM: &str = "DHCP_GUARD_LAB_VICTIM";
/// A link whose one end is in the killed lab's host and whose other end is where the test can see it: it goes when the
/// namespace does.
const WITNESS: &str = "witness";

/// Builds a lab with everything in it, says so, and waits to be killed.
pub(crate) fn victim() -> ExitCode {
    let live = || -> Result<()> {
        cleanup::on_signals()?;
        let outside = Netns::current()?;
        let _folder = cleanup::Folder::new()?;
        let (lab, _control, _flood) = all_parts()?;
        lab.host.ip(&format!("link add inside type veth peer name {WITNESS} netns {}\n", outside.path()))?;
        thread::scope(|scope| {
            // A client that never gets a lease is a child, too.
            lab.server.netns.exec(&["ip", "link", "set", "srv0", "down"])?;
            scope.spawn(|| lab.get_leases(0..2, Duration::from_secs(60)));
            wait::until("dnsmasq and two clients", Duration::from_secs(5), || {
                Ok(children(std::process::id())?.len() == 3)
            })?;
            println!("ready");
            loop {
                thread::park();
            }
        })
    };
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn nothing_left_after(signal: libc::c_int) -> Result<()> {
    let outside = Netns::new("witness")?;
    let before = Leftovers::now()?;
    let mut command = outside.command(env::current_exe()?);
    let mut victim = command.env(VICTIM, "1").stdout(Stdio::piped()).spawn().context("cannot start a second lab")?;
    let mut line = String::new();
    BufReader::new(victim.stdout.take().context("no output")?).read_line(&mut line)?;
    let grandchildren = children(victim.id());
    let witness = outside.ifindex(WITNESS);
    let folder = cleanup::folders_of(victim.id());
    // SAFETY: no memory involved; the process is our child and has not been reaped.
    unsafe { libc::kill(i32::try_from(victim.id())?, signal) };
    victim.wait()?;
    ensure!(folder.len() == 1, "the second lab's folder: {folder:?}");
    if signal == libc::SIGKILL {
        // Nobody can remove a folder after that, but the next one who makes one does.
        drop(cleanup::Folder::new()?);
    }
    ensure!(!folder[0].exists(), "{folder:?} is left");
    ensure!(line == "ready\n", "the second lab did not get ready: {line:?}");
    ensure!(grandchildren.as_ref().is_ok_and(|pids| pids.len() == 3), "{grandchildren:?}");
    witness?;
    for pid in grandchildren? {
        wait::until(&format!("the end of process {pid}"), Duration::from_secs(5), || Ok(!is_running(pid)))?;
    }
    wait::until("the end of the killed lab's namespaces", Duration::from_secs(10), || {
        Ok(outside.ifindex(WITNESS).is_err())
    })?;
    ensure!(Leftovers::now()? == before, "{before:?}, then {:?}", Leftovers::now()?);
    Ok(())
}

/// Direct children of a process, of all its threads.
fn children(pid: u32) -> Result<HashSet<u32>> {
    let mut children = HashSet::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        let listed = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        children.extend(listed.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(children)
}

/// Whether a process is there and not a zombie that its new parent has yet to reap.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// Network namespaces that a descriptor of this process holds or that any process is in.
fn namespaces() -> Result<HashSet<PathBuf>> {
    let is_namespace = |path: &PathBuf| path.to_string_lossy().starts_with("net:[");
    let mut found: HashSet<_> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(is_namespace)
        .collect();
    for process in fs::read_dir("/proc")? {
        match fs::read_link(process?.path().join("ns/net")) {
            Ok(namespace) => drop(found.insert(namespace)),
            Err(error) => match error.kind() {
                // Not a process, or one that ended while we looked, or one with more rights than ours: not from here.
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied => {}
                _ => return Err(error).context("cannot look at the namespaces of processes"),
            },
        }
    }
    Ok(found)
}
