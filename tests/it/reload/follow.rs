//! Interfaces come, go, are called otherwise, and find no room.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::model::EventKind;
use jiff::Timestamp;
use serde_json::Value;
use tests::{
    agent::Agent,
    attached::guarded,
    flood::{Flood, Limits, Mode},
    follower::Follower,
    link,
    mac::Mac,
    netns::Netns,
    topology::{Injection, Lab, Layout},
    wait,
};

use super::{FLOODER, FOLLOWED, SEEN, about, add, host, next};

pub(super) fn pattern() -> Result<()> {
    let host = host()?;
    let agent = Agent::start(&host, &["tap*"], "[[port]]\ninterface = 'tap*'\nclass = 'vm'\n")?;
    let mut follower = Follower::start(&agent)?;
    wait::until("a warning", SEEN, || Ok(agent.warnings()?.iter().any(|warning| warning.contains("like `tap*` yet"))))?;
    add(&host, "other0")?;
    add(&host, "tap0")?;
    next(&mut follower, FOLLOWED, EventKind::InterfaceGuarded, "tap0")?;
    ensure!(guarded(&host)? == ["tap0"] && agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    let ports = agent.json(&["ports"])?;
    ensure!(ports["ports"][0]["class"] == "vm", "{ports}");

    let from = Injection { netns: host.clone(), interface: "p-tap0".into() };
    link::accept_redirects(&host, "tap0")?;
    Flood::start(&from, Mode::One(FLOODER), Limits::packets(100).at(1000))?.wait()?;
    let packets = |agent: &Agent| -> Result<Vec<(String, u64)>> {
        let ports = agent.json(&["ports"])?;
        let ports = ports["ports"].as_array().context("no list")?.clone();
        let one = |port: &Value| Some((port["port"].as_str()?.to_owned(), port["packets"].as_u64()?));
        Ok(ports.iter().filter_map(one).collect())
    };
    wait::until("100 packets", SEEN, || Ok(packets(&agent)? == [("tap0".to_owned(), 100)]))?;

    // The kernel renames only what is down, or lets it be up on newer ones: both are renames.
    host.ip("link set tap0 down\nlink set tap0 name tap7\nlink set tap7 up\n")?;
    next(&mut follower, FOLLOWED, EventKind::InterfaceRenamed, "tap7")?;
    ensure!(guarded(&host)? == ["tap7"] && packets(&agent)? == [("tap7".to_owned(), 100)], "{:?}", packets(&agent)?);
    host.ip("link set tap7 down\nlink set tap7 name gone7\n")?;
    let event = next(&mut follower, FOLLOWED, EventKind::InterfaceGone, "tap7")?;
    ensure!(event.message.contains("called otherwise") && guarded(&host)?.is_empty(), "{event:?}");
    ensure!(packets(&agent)?.is_empty());
    host.ip("link set gone7 name tap8\n")?;
    next(&mut follower, FOLLOWED, EventKind::InterfaceGuarded, "tap8")?;
    ensure!(packets(&agent)? == [("tap8".to_owned(), 0)], "what was let go begins anew: {:?}", packets(&agent)?);
    host.ip("link delete tap8\n")?;
    let event = next(&mut follower, FOLLOWED, EventKind::InterfaceGone, "tap8")?;
    ensure!(event.message.contains("was deleted"), "{event:?}");
    wait::until("a warning", SEEN, || Ok(agent.warnings()?.len() == 1))?;
    ensure!(follower.of_kind(EventKind::Detached)?.is_empty(), "nobody took anything off");
    Ok(())
}

pub(super) fn made_anew() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, 2)?;
    let agent = Agent::start(&lab.host, &["em*"], "")?;
    let mut follower = Follower::start(&agent)?;
    ensure!(guarded(&lab.host)? == ["em0", "em1"]);
    agent.change(&["quarantine", "add", "em0", "--ttl", "1h", "--reason", "a test"])?;
    let machine = lab.machines[0].clone();
    for round in 0..3 {
        follower.forget()?;
        let make = format!(
            "link delete em0\nlink add em0 type veth peer name m0 address {} netns {}\n\
             link set em0 up\nlink set em0 master br0\n",
            machine.mac,
            machine.netns.path()
        );
        lab.host.ip(&make)?;
        next(&mut follower, FOLLOWED, EventKind::InterfaceGuarded, "em0").with_context(|| format!("round {round}"))?;
        machine.netns.ip("link set m0 up\n")?;
        link::accept_redirects(&lab.host, "em0")?;
        link::wait_for_ports(&lab.host, 3)?;
        let before = lab.server.counts()?;
        for index in 0..2 {
            let mode = Mode::One(lab.machines[index].mac);
            Flood::start(&lab.injection(index), mode, Limits::packets(10).at(1000))?.wait()?;
        }
        wait::until("all packets counted", SEEN, || {
            let ports = agent.json(&["ports"])?;
            let ports = ports["ports"].as_array().context("no list")?;
            let packets = |name: &str| ports.iter().find(|port| port["port"] == name).map(|port| &port["packets"]);
            Ok(packets("em0") == Some(&10.into()))
        })?;
        let after = lab.server.counts()?;
        let passed = [0, 1].map(|index| after.of(lab.machines[index].mac) - before.of(lab.machines[index].mac));
        ensure!(passed[0] == 0, "round {round}: {passed:?} passed of the port in quarantine, and of the other one");
        if round == 0 {
            ensure!(passed[1] == 10, "the other one is in no quarantine: {passed:?}");
        }
    }
    ensure!(agent.quarantines()?.len() == 1);
    agent.change(&["quarantine", "release", "em0"])?;
    let before = lab.server.counts()?.of(machine.mac);
    Flood::start(&lab.injection(0), Mode::One(machine.mac), Limits::packets(10).at(1000))?.wait()?;
    wait::until("ten packets at the server", SEEN, || Ok(lab.server.counts()?.of(machine.mac) - before == 10))
}

/// Slots are used again: the tables have room for those that are there at once and little more.
pub(super) fn many() -> Result<()> {
    const AT_ONCE: usize = 20;
    let host = host()?;
    let agent = Agent::start(&host, &["tap*"], "[capacity]\nports = 50\n")?;
    let mut follower = Follower::start(&agent)?;
    for round in 0..4 {
        let names: Vec<String> = (0..AT_ONCE).map(|index| format!("tap{round}x{index}")).collect();
        let make: String = names.iter().map(|name| format!("link add {name} type veth peer name p{name}\n")).collect();
        host.ip(&make)?;
        let last = names.last().context("there are some")?;
        follower.wait_for(SEEN, about(EventKind::InterfaceGuarded, last))?;
        wait::until("all of them guarded", SEEN, || Ok(guarded(&host)?.len() == AT_ONCE))?;
        let listed = agent.json(&["ports"])?["ports"].as_array().map(Vec::len);
        ensure!(listed == Some(AT_ONCE), "round {round}: {listed:?} ports");
        host.ip(&names.iter().map(|name| format!("link delete {name}\n")).collect::<String>())?;
        follower.wait_for(SEEN, about(EventKind::InterfaceGone, last))?;
        wait::until("none of them listed", SEEN, || {
            Ok(agent.json(&["ports"])?["ports"].as_array().is_some_and(Vec::is_empty))
        })?;
        ensure!(follower.of_kind(EventKind::CannotGuard)?.is_empty());
    }
    Ok(())
}

/// While a change is made nobody is judged, and attaching takes its time: so it is not all of them in one.
pub(super) fn hundreds() -> Result<()> {
    const ALL: usize = 200;
    /// More than one change is about, and the few of a last one that took no time.
    const MOST_AT_ONCE: usize = 40;
    const DEADLINE: Duration = Duration::from_secs(60);
    let host = host()?;
    let agent = Agent::start(&host, &["tap*"], "")?;
    let mut follower = Follower::start(&agent)?;
    // It hears of all of them at once.
    agent.signal(libc::SIGSTOP)?;
    host.ip(&(0..ALL).map(|index| format!("link add tap{index} type veth peer name p{index}\n")).collect::<String>())?;
    agent.signal(libc::SIGCONT)?;
    let start = Instant::now();
    wait::until("all of them guarded", DEADLINE, || Ok(follower.of_kind(EventKind::InterfaceGuarded)?.len() == ALL))?;
    let took = start.elapsed();
    println!("{ALL} guarded after {took:?}");
    ensure!(guarded(&host)?.len() == ALL && follower.of_kind(EventKind::CannotGuard)?.is_empty());
    // Those of one change are told of at once, and the next change takes as long as attaching does: on any machine that is
    // much of the whole time, which telling is next to nothing of.
    let mut told: Vec<_> = follower.of_kind(EventKind::InterfaceGuarded)?.into_iter().map(|event| event.at).collect();
    told.sort();
    let is_same = |one: &Timestamp, next: &Timestamp| one.duration_until(*next).unsigned_abs() < took / 100;
    let changes: Vec<usize> = told.chunk_by(is_same).map(<[_]>::len).collect();
    println!("changes: {changes:?}");
    ensure!(changes.iter().all(|change| *change <= MOST_AT_ONCE), "{changes:?}");
    host.ip(&(0..ALL).map(|index| format!("link delete tap{index}\n")).collect::<String>())?;
    wait::until("none of them listed", DEADLINE, || {
        Ok(agent.json(&["ports"])?["ports"].as_array().is_some_and(Vec::is_empty))
    })
}

/// Messages of the kernel that the agent has lost, because it did not listen for so long.
fn messages_lost(host: &Netns) -> Result<u64> {
    const PATH: &str = "/proc/thread-self/net/netlink";
    let table = host.run(|| fs::read_to_string(PATH))?.with_context(|| format!("cannot read {PATH}"))?;
    // Of each socket: address, protocol, port, groups, memory to read and to write, dump, references, messages lost.
    Ok(table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok()).sum())
}

/// What the kernel told while nobody listened is lost, and must be asked for.
pub(super) fn overrun() -> Result<()> {
    /// The agent asks for everything after so long in any case.
    const RESYNC: Duration = Duration::from_secs(30);
    const AT_ONCE: usize = 200;
    let host = host()?;
    let start = Instant::now();
    let agent = Agent::start(&host, &["tap*"], "")?;
    ["tap0", "tap1"].iter().try_for_each(|name| add(&host, name))?;
    wait::until("both guarded", SEEN, || Ok(guarded(&host)? == ["tap0", "tap1"]))?;
    agent.signal(libc::SIGSTOP)?;
    let mut length = 1000;
    wait::until("a socket that overflows", SEEN, || {
        let lines = (length..length + AT_ONCE).map(|length| format!("link set lo txqueuelen {length}\n"));
        host.ip(&lines.collect::<String>())?;
        length += AT_ONCE;
        Ok(messages_lost(&host)? > 0)
    })?;
    let before = messages_lost(&host)?;
    // Nothing of this does it hear.
    host.ip("link delete tap0\nlink set tap1 down\nlink set tap1 name gone1\n")?;
    ["tap2", "tap3", "other0"].iter().try_for_each(|name| add(&host, name))?;
    let lost = messages_lost(&host)?;
    ensure!(lost > before, "nothing more was lost than {before} messages");
    agent.signal(libc::SIGCONT)?;
    let left = RESYNC.checked_sub(start.elapsed()).context("too slow: the agent would ask for everything by itself")?;
    let since = Instant::now();
    wait::until("the right ones guarded", left.min(SEEN), || Ok(guarded(&host)? == ["tap2", "tap3"]))?;
    println!("{lost} messages lost, and followed after {:?}", since.elapsed());
    wait::until("the right ones listed", SEEN, || {
        let ports = agent.json(&["ports"])?;
        let names = ports["ports"].as_array().context("no list")?.iter().map(|port| &port["port"]);
        Ok(names.eq(["tap2", "tap3"].iter()))
    })
}

/// The kernel gives an index again, and then it is another interface's.
pub(super) fn same_index() -> Result<()> {
    let host = host()?;
    let agent = Agent::start(&host, &["tap*"], "")?;
    add(&host, "tap0")?;
    let index = host.ifindex("tap0")?;
    let count = || -> Result<Vec<(String, u64)>> {
        let ports = agent.json(&["ports"])?;
        let ports = ports["ports"].as_array().context("no list")?;
        let one = |port: &Value| Some((port["port"].as_str()?.to_owned(), port["packets"].as_u64()?));
        Ok(ports.iter().filter_map(one).collect())
    };
    let mut present = "tap0";
    for next in ["tap0", "tap7", "other0", "tap9"] {
        let listed = if present.starts_with("tap") { vec![(present.to_owned(), 100)] } else { Vec::new() };
        if !listed.is_empty() {
            wait::until("it to be guarded", SEEN, || Ok(guarded(&host)? == [present]))?;
            link::accept_redirects(&host, present)?;
            let from = Injection { netns: host.clone(), interface: format!("p-{present}") };
            Flood::start(&from, Mode::One(FLOODER), Limits::packets(100).at(1000))?.wait()?;
        }
        wait::until("100 packets, of no interface before it", SEEN, || Ok(count()? == listed))
            .with_context(|| format!("{present}: {:?}", count()))?;
        // It hears of both at once.
        agent.signal(libc::SIGSTOP)?;
        let make = format!("link add {next} index {index} type veth peer name p-{next}");
        host.ip(&format!("link delete {present}\n{make}\nlink set {next} up\nlink set p-{next} up\n"))?;
        link::keep_vlan_tags(&host, next)?;
        agent.signal(libc::SIGCONT)?;
        ensure!(host.ifindex(next)? == index, "it has another index");
        present = next;
    }
    wait::until("the last one guarded", SEEN, || Ok(guarded(&host)? == [present]))?;
    ensure!(agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    Ok(())
}

pub(super) fn too_many() -> Result<()> {
    let host = host()?;
    let agent = Agent::start(&host, &["tap*"], "[capacity]\nports = 3\n")?;
    let mut follower = Follower::start(&agent)?;
    (0..5).try_for_each(|index| add(&host, &format!("tap{index}")))?;
    wait::until("a warning for each that does not fit", SEEN, || {
        let full = "do not fit into tables made for 3";
        Ok(guarded(&host)?.len() == 3 && agent.warnings()?.iter().any(|warning| warning.contains(full)))
    })?;
    ensure!(guarded(&host)? == ["tap0", "tap1", "tap2"], "{:?}", guarded(&host)?);
    follower.forget()?;
    host.ip("link delete tap0\nlink delete tap1\n")?;
    next(&mut follower, FOLLOWED, EventKind::InterfaceGuarded, "tap4")?;
    ensure!(guarded(&host)? == ["tap2", "tap3", "tap4"] && agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    Ok(())
}

pub(super) fn full_of_known() -> Result<()> {
    const ALLOWED: Mac = Mac([2, 0xa1, 0, 0, 0, 1]);
    let host = host()?;
    (0..2).try_for_each(|index| add(&host, &format!("tap{index}")))?;
    // Both find room, and a third does not.
    let config = format!(
        "[capacity]\nknown_clients = 2\n[[known_client]]\ninterface = 'tap*'\nmac = '02:00:00:00:00:07'\n\
         [[allow]]\ninterface = 'tap*'\nmac = '{ALLOWED}'\n"
    );
    let agent = Agent::start(&host, &["tap*"], &config)?;
    let mut follower = Follower::start(&agent)?;
    ensure!(agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    let full = "not all clients that the configuration names are known (1 client could not be written)";
    let is_told =
        |agent: &Agent| -> Result<bool> { Ok(agent.warnings()?.iter().any(|warning| warning.contains(full))) };
    add(&host, "tap2")?;
    next(&mut follower, FOLLOWED, EventKind::InterfaceGuarded, "tap2")?;
    ensure!(guarded(&host)? == ["tap0", "tap1", "tap2"] && is_told(&agent)?, "{:?}", agent.warnings()?);
    let all_pass = |agent: &Agent, packets: u64| -> Result<()> {
        link::accept_redirects(&host, "tap2")?;
        let from = Injection { netns: host.clone(), interface: "p-tap2".into() };
        Flood::start(&from, Mode::One(ALLOWED), Limits::packets(100).at(1000))?.wait()?;
        wait::until("packets of the allowed one", SEEN, || {
            let ports = agent.json(&["ports"])?;
            let ports = ports["ports"].as_array().context("no list")?.clone();
            let port = ports.into_iter().find(|port| port["port"] == "tap2").context("no port tap2")?;
            ensure!(port["dropped"] == 0, "it is not allowed: {port}");
            Ok(port["packets"] == packets)
        })
    };
    all_pass(&agent, 100)?;
    // Room that is left is used.
    host.ip("link delete tap0\n")?;
    wait::until("the end of the warning", SEEN, || Ok(!is_told(&agent)?))?;
    add(&host, "tap0")?;
    next(&mut follower, SEEN, EventKind::InterfaceGuarded, "tap0")?;
    // The same at a start.
    let launch = agent.launch().clone();
    let mut agent = agent;
    agent.stop(libc::SIGTERM)?;
    let agent = launch.start()?;
    ensure!(guarded(&host)? == ["tap0", "tap1", "tap2"] && is_told(&agent)?, "{:?}", agent.warnings()?);
    all_pass(&agent, 200)
}

pub(super) fn refused_at_start() -> Result<()> {
    /// What never could be guarded is tried again every half minute.
    const TRIED: Duration = Duration::from_secs(45);
    let host = host()?;
    (0..2).try_for_each(|index| add(&host, &format!("tap{index}")))?;
    let mut before = Agent::start(&host, &["tap0"], "reattach = false\n")?;
    let foreign = before.launch().link_pin("tap1")?;
    fs::create_dir(&foreign)?;
    before.stop(libc::SIGTERM)?;
    let agent = before.launch().clone().only(&["tap*"]).start()?;
    let mut follower = Follower::start(&agent)?;
    let is_told =
        || Ok(agent.warnings()?.iter().any(|warning| warning.contains("cannot guard interface tap1: the pin")));
    wait::until("a warning", SEEN, is_told)?;
    ensure!(guarded(&host)? == ["tap0"]);
    let events = agent.json(&["events"])?.to_string();
    ensure!(events.contains("cannot_guard"), "{events}");
    fs::remove_dir(&foreign)?;
    next(&mut follower, TRIED, EventKind::InterfaceGuarded, "tap1")?;
    ensure!(guarded(&host)? == ["tap0", "tap1"] && agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    Ok(())
}
