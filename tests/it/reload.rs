//! The configuration is read again, and interfaces come, go, are called otherwise and lose their guard, while the agent runs.
//!
//! Once for both hooks: what ends before any interface is looked at; limits, which are in maps that both have; and another
//! program in the guard's place, since only XDP has no more than one.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use dhcp_guard::{
    dataplane::hook::Hook,
    model::{Event, EventKind},
};
use jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::Value;
use tests::{
    agent::{Agent, errors},
    attached::{guard, guarded, programs, replies, take_off, take_off_replies},
    control::{Control, Verdict},
    flood::{Flood, Limits, Mode},
    follower::Follower,
    harness::{Need, trial, trial_once},
    link,
    mac::Mac,
    netns::Netns,
    process,
    program::current_hook,
    topology::{Injection, Lab, Layout},
    wait,
};

const NEEDS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip")];
/// What netlink tells is followed within this.
const FOLLOWED: Duration = Duration::from_secs(1);
/// The guard looks once a second whether its programs are where they were put.
const NOTICED: Duration = Duration::from_secs(2);
/// The agent reads its maps once a second, and tries again every five.
const SEEN: Duration = Duration::from_secs(8);
const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_once("reload: limits change under a flood, and both are kept", Need::LAB, limits_under_flood),
        trial_once("reload: a file that is wrong changes nothing, and all that is wrong is said", NEEDS, broken_file),
        trial_once("reload: a pipe in the file's place is refused, and stops nothing", NEEDS, pipe),
        trial(
            "reload: what is different is said first, and what has to wait for the next start",
            NEEDS,
            diff_and_dry_run,
        ),
        trial("reload: an interface that cannot be guarded leaves everything as it was", NEEDS, all_or_nothing),
        trial_once("reload: SIGHUP does the same", NEEDS, hangup),
        trial("reload: interfaces that match a pattern are followed wherever they go", NEEDS, pattern),
        trial(
            "reload: an interface that is made anew is in quarantine again before its first packet",
            Need::LAB,
            made_anew,
        ),
        trial("reload: whoever takes the guard off is noticed, and it is put back", Need::LAB, taken_off),
        trial_once(
            "reload: whoever takes off what sees replies has not taken the guard off, and it is put back",
            NEEDS,
            replies_taken_off,
        ),
        trial_once(
            "reload: another program in the guard's place stays there, and is told",
            NEEDS,
            another_in_its_place,
        ),
        trial_once("reload: one thing is wrong with an interface, and told once", NEEDS, one_warning),
        trial("reload: where nobody wants it back, it comes back with a reload", NEEDS, not_put_back),
        trial_once("reload: more interfaces than there is room for are guarded as far as there is", NEEDS, too_many),
        trial_once("reload: hundreds of interfaces at once are guarded some at a time", NEEDS, hundreds),
        trial_once("reload: what the kernel told while nobody listened is asked for", NEEDS, overrun),
        trial("reload: an interface with the index of one that is gone is another one", NEEDS, same_index),
        trial_once(
            "reload: a table full of known clients leaves no interface unguarded, and the allowlist holds",
            NEEDS,
            full_of_known,
        ),
        trial(
            "reload: what refuses at the start and matches a pattern is tried again, also where nobody puts anything back",
            NEEDS,
            refused_at_start,
        ),
        trial("reload: many interfaces that come and go at once leave the right ones guarded", NEEDS, many),
    ]
}

/// A host without any interface but the loopback.
fn host() -> Result<Netns> {
    Netns::new("host")
}

/// A link that is up, both ends here, as on a host that is set up for XDP.
fn add(host: &Netns, name: &str) -> Result<()> {
    link::add(host, name, &format!("p-{name}"))
}

fn write(agent: &Agent, config: &str) -> Result<()> {
    agent.launch().folder().write("dhcp-guard.toml", config).map(drop)
}

fn about(kind: EventKind, interface: &str) -> impl Fn(&Event) -> bool {
    move |event| event.kind == kind && event.interface.as_deref() == Some(interface)
}

/// Waits for an event about an interface, and forgets all that came until then.
fn next(follower: &mut Follower, deadline: Duration, kind: EventKind, interface: &str) -> Result<Event> {
    let start = Instant::now();
    let found = follower.wait_for(deadline, about(kind, interface));
    let (at, event) = found.with_context(|| format!("waiting for {kind:?} of {interface}"))?;
    println!("{:?} after {:?}: {}", event.kind, at.saturating_duration_since(start), event.message);
    follower.forget()?;
    Ok(event)
}

/// A refusal: exit code, and standard error.
fn refused(agent: &Agent, words: &[&str]) -> Result<(Option<i32>, String)> {
    let output = agent.command(words).output().context("cannot run the CLI")?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    Ok((output.status.code(), errors(&output)))
}

fn limits_under_flood() -> Result<()> {
    const CONFIG: &str = "[quarantine]\nautomatic = false\n[host]\nrate_pps = 5000\nburst = 5000\n\
                          [class.metal]\nrate_pps = 1000\nburst = 1000\n[limits]\n";
    // Each has spent its burst in the same time: with another ratio, whoever was over the old limit would first wait for as
    // long as that had them wait.
    let config = |rate: u64| format!("{CONFIG}client_rate_pps = {rate}\nclient_burst = {}\n", rate * 5 / 2);
    let lab = Lab::new(Layout::Uplink, 1)?;
    let agent = Agent::start(&lab.host, &lab.guarded(), &config(2))?;
    let mut follower = Follower::start(&agent)?;
    let flood = Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::time(Duration::from_secs(60)).at(5000))?;
    follower.wait_for_kind(SEEN, EventKind::OffenderFound)?;
    for rate in [2u64, 100, 2, 50] {
        write(&agent, &config(rate))?;
        agent.change(&["reload"])?;
        // From here on the new limit, whose burst is spent. Reading takes time: the most that can have passed is counted from
        // before the first reading, the least from after it.
        let from = Instant::now();
        let before = lab.server.counts()?.of(FLOODER);
        // why: what is measured is what passes in real time, and that only time brings.
        thread::sleep(Duration::from_secs(3));
        let passed = lab.server.counts()?.of(FLOODER) - before;
        let most = 5 + rate * (from.elapsed().as_millis() as u64 + 100) / 1000 + 1;
        let least = rate * 3 * 8 / 10;
        println!("{rate} pps: {passed} passed, {least} to {most} may");
        ensure!((least..=most).contains(&passed), "of a limit of {rate} pps {passed} passed, {least} to {most} may");
    }
    flood.stop()?;
    let ports = agent.json(&["ports"])?;
    let counted = ports["ports"][0]["packets"].as_u64().unwrap_or(0);
    ensure!(counted > 20_000, "the counters went on: {ports}");
    ensure!(follower.of_kind(EventKind::OffenderFound)?.len() == 1, "an offender all the time");
    Ok(())
}

fn pipe() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let mut agent = Agent::start(&host, &["up0"], "")?;
    let file = agent.launch().folder().path("dhcp-guard.toml");
    fs::remove_file(&file)?;
    let mut mkfifo = Command::new("mkfifo");
    mkfifo.arg(&file);
    process::run(mkfifo, "")?;
    let (code, said) = refused(&agent, &["reload"])?;
    ensure!(code == Some(2) && said.contains("it is not a regular file"), "{code:?}: {said}");
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    Ok(())
}

fn broken_file() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let good = "[limits]\nclient_burst = 7\n";
    let agent = Agent::start(&host, &["up0"], good)?;
    let explained = || -> Result<Value> { Ok(agent.json(&["ports"])?["ports"][0]["limit_pps"].clone()) };
    let before = (explained()?, programs(&host)?);
    for words in [&["reload"][..], &["reload", "--dry-run"]] {
        write(&agent, "[limits]\nclient_burst = 0\n[clas.metal]\nrate_pps = 1\nburst = 1\n")?;
        let (code, said) = refused(&agent, words)?;
        ensure!(code == Some(1), "{code:?}: {said}");
        for part in [
            "line 2: limits.client_burst: 0 is out of range",
            "line 3: clas: there is no such key, did you mean `class`",
        ] {
            ensure!(said.contains(part), "{part:?} is not in {said}");
        }
        write(&agent, "[limits\n")?;
        let (code, said) = refused(&agent, words)?;
        ensure!(code == Some(1) && said.contains("line 1"), "{code:?}: {said}");
        fs::remove_file(agent.launch().folder().path("dhcp-guard.toml"))?;
        let (code, said) = refused(&agent, words)?;
        ensure!(code == Some(2) && said.contains("cannot read the configuration"), "{code:?}: {said}");
    }
    ensure!((explained()?, programs(&host)?) == before, "something changed");
    write(&agent, good)?;
    ensure!(agent.change(&["reload"])? == [""; 0], "nothing is different from before");
    let audit = fs::read_to_string(agent.launch().state_dir().join("audit.log"))?;
    let lines: Vec<&str> = audit.lines().filter(|line| line.contains("\"reload\"")).collect();
    ensure!(lines.len() == 4 && lines[0].contains("out of range"), "three refused, one done: {audit}");
    Ok(())
}

fn diff_and_dry_run() -> Result<()> {
    let host = host()?;
    ["up0", "up1"].iter().try_for_each(|name| add(&host, name))?;
    let agent = Agent::start(&host, &[], "interfaces = ['up0']\n")?;
    write(
        &agent,
        "interfaces = ['up0', 'up1']\n[class.metal]\nrate_pps = 40\nburst = 200\n[capacity]\nports = 2\n\
         [[port]]\ninterface = 'up1'\nclass = 'vm'\n",
    )?;
    let expected = [
        "class.metal.burst: 250 → 200",
        "class.metal.rate_pps: 50 → 40",
        "interfaces: [up0] → [up0, up1]",
        "port: added class = vm, interface = up1, vlans = []",
        "capacity.ports: 1024 → 2 (at the next start)",
    ];
    let dry = agent.change(&["reload", "--dry-run"])?;
    ensure!(dry == expected, "{dry:?}");
    ensure!(guarded(&host)? == ["up0"], "a dry run");
    ensure!(agent.change(&["reload", "--reason", "a test"])? == expected);
    ensure!(guarded(&host)? == ["up0", "up1"]);
    let ports = agent.json(&["ports"])?;
    let limits: Vec<_> = ports["ports"].as_array().context("no list")?.iter().map(|port| &port["limit_pps"]).collect();
    ensure!(limits == [40, 10], "whoever has the answer sees it at once: {ports}");
    let warned = agent.warnings()?;
    ensure!(warned.len() == 1 && warned[0].contains("capacity.ports: 1024 → 2"), "{warned:?}");
    // Once more: only what waits for the start is still different.
    ensure!(agent.change(&["reload"])? == ["capacity.ports: 1024 → 2 (at the next start)"]);
    write(&agent, "interfaces = ['up1']\n")?;
    agent.change(&["reload"])?;
    ensure!(guarded(&host)? == ["up1"] && agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    let mut follower = Follower::start(&agent)?;
    next(&mut follower, SEEN, EventKind::InterfaceGone, "up0")?;
    Ok(())
}

fn all_or_nothing() -> Result<()> {
    let host = host()?;
    ["up0", "up1", "up2", "up3", "up4"].iter().try_for_each(|name| add(&host, name))?;
    host.ip("link set up4 down\n")?;
    let agent = Agent::start(&host, &[], "interfaces = ['up0']\n")?;
    // In the place of a link is something that is none.
    let foreign = agent.launch().link_pin("up3")?;
    fs::create_dir(&foreign)?;
    let at_xdp = current_hook() == Some(Hook::Xdp);
    let other = at_xdp.then(|| Control::attach(&host, "up2", Verdict::Pass, XdpMode::Driver)).transpose()?;
    let before = (programs(&host)?, agent.json(&["ports"])?["ports"].as_array().map(Vec::len));
    let new = "[limits]\nclient_burst = 9\n[class.metal]\nrate_pps = 7\nburst = 9\n";
    let unusable = [
        ("'up0', 'up1', 'up3'", "cannot guard interface up3: the pin"),
        ("'up0', 'up1', 'up9'", "there is no interface \"up9\""),
        ("'up0', 'up1', 'up4'", "interface up4 is down"),
        ("", "nothing would be guarded"),
    ];
    let occupied = ("'up0', 'up1', 'up2'", "interface up2 already runs the XDP program");
    for (interfaces, part) in unusable.into_iter().chain(at_xdp.then_some(occupied)) {
        write(&agent, &format!("interfaces = [{interfaces}]\n{new}"))?;
        let (code, said) = refused(&agent, &["reload"])?;
        ensure!(code == Some(1) && said.contains(part), "{code:?}: {said}");
        let ports = agent.json(&["ports"])?;
        ensure!(ports["ports"][0]["limit_pps"] == 50, "{ports}");
        let now = (programs(&host)?, ports["ports"].as_array().map(Vec::len));
        ensure!(now == before, "before: {before:?}, now: {now:?}");
    }
    drop(other);
    fs::remove_dir(&foreign)?;
    write(&agent, &format!("interfaces = ['up0', 'up1', 'up2', 'up3']\n{new}"))?;
    agent.change(&["reload"])?;
    ensure!(guarded(&host)? == ["up0", "up1", "up2", "up3"]);
    Ok(())
}

fn hangup() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let agent = Agent::start(&host, &["up0"], "")?;
    let mut follower = Follower::start(&agent)?;
    write(&agent, "mod = 'monitor'\n")?;
    agent.signal(libc::SIGHUP)?;
    wait::until("a line in the log", SEEN, || {
        Ok(agent.log().lines().any(|line| line.contains("SIGHUP: ") && line.contains("there is no such key")))
    })?;
    // The command line's interfaces stay, whatever the file says.
    write(&agent, "mode = 'monitor'\ninterfaces = ['up9']\n")?;
    agent.signal(libc::SIGHUP)?;
    let (_, event) = follower.wait_for_kind(SEEN, EventKind::Reloaded)?;
    ensure!(event.message.ends_with("mode: enforce → monitor"), "{}", event.message);
    ensure!(agent.json(&["status"])?["mode"] == "monitor" && guarded(&host)? == ["up0"]);
    Ok(())
}

fn pattern() -> Result<()> {
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

fn made_anew() -> Result<()> {
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

fn taken_off() -> Result<()> {
    let lab = Lab::new(Layout::Uplink, 1)?;
    let agent = Agent::start(&lab.host, &lab.guarded(), "[quarantine]\nautomatic = false\n")?;
    let mut follower = Follower::start(&agent)?;
    for _ in 0..3 {
        let before = programs(&lab.host)?;
        take_off(&lab.host, "uplink0")?;
        ensure!(programs(&lab.host)?.is_empty(), "it is off");
        let start = Instant::now();
        let (at, _) = follower.wait_for(NOTICED, about(EventKind::Detached, "uplink0"))?;
        println!("noticed after {:?}", at.saturating_duration_since(start));
        next(&mut follower, FOLLOWED, EventKind::Reattached, "uplink0")?;
        ensure!(programs(&lab.host)? == before, "{:?}", programs(&lab.host)?);
    }
    let mode = guard(&lab.host, "uplink0")?.way.mode();
    ensure!(agent.warnings()?.is_empty() && agent.json(&["status"])?["interfaces"][0]["mode"] == mode.word());
    let start = Instant::now();
    let before = lab.server.counts()?.of(FLOODER);
    Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::packets(3000).at(3000))?.wait()?;
    let passed = lab.server.counts()?.of(FLOODER) - before;
    ensure!(passed <= 20 + 2 * (start.elapsed().as_secs() + 1), "{passed} passed");
    Ok(())
}

fn replies_taken_off() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let agent = Agent::start(&host, &["up0"], "")?;
    let mut follower = Follower::start(&agent)?;
    take_off_replies(&host, "up0")?;
    let told = next(&mut follower, NOTICED, EventKind::RepliesDetached, "up0")?;
    ensure!(told.message.contains("counts servers' replies"), "{}", told.message);
    wait::until("it to be back", SEEN, || Ok(replies(&host, "up0")?.is_some()))?;
    ensure!(agent.warnings()?.is_empty() && guarded(&host)? == ["up0"], "{:?}", agent.warnings()?);
    ensure!(follower.of_kind(EventKind::Detached)?.is_empty(), "the guard was there all the time");
    Ok(())
}

fn another_in_its_place() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let agent = Agent::start(&host, &["up0"], "")?;
    let mut follower = Follower::start(&agent)?;
    // In the instant between, the guard may look: then it is back, and it is tried again.
    let mut other = None;
    for _ in 0..20 {
        take_off(&host, "up0")?;
        if let Ok(control) = Control::attach(&host, "up0", Verdict::Pass, XdpMode::Driver) {
            other = Some(control);
            break;
        }
    }
    let other = other.context("the guard is always back at once")?;
    let theirs = programs(&host)?;
    next(&mut follower, NOTICED, EventKind::Detached, "up0")?;
    wait::until("a warning", SEEN, || {
        Ok(agent.warnings()?.iter().any(|warning| warning.contains("interface up0 already runs the XDP program")))
    })?;
    ensure!(agent.json(&["status"])?["interfaces"][0]["mode"] == "detached", "{}", agent.json(&["status"])?);
    ensure!(programs(&host)? == theirs, "it was displaced");
    drop(other);
    next(&mut follower, SEEN, EventKind::Reattached, "up0")?;
    ensure!(guarded(&host)? == ["up0"] && agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    Ok(())
}

fn one_warning() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let other = Control::attach(&host, "up0", Verdict::Pass, XdpMode::Driver)?;
    let agent = Agent::start_with(&host, &[], "interfaces = [\"up*\"]\n", &["--hook", "xdp"])?;
    let one = || -> Result<bool> {
        let warnings = agent.warnings()?;
        Ok(matches!(&warnings[..], [one] if one.contains("interface up0 already runs the XDP program")))
    };
    wait::until("one warning, and no more", SEEN, one)?;
    // Also when it is tried again, and when it is not.
    for _ in 0..70 {
        ensure!(one()?, "{:?}", agent.warnings()?);
        thread::sleep(Duration::from_millis(100));
    }
    drop(other);
    Ok(())
}

fn not_put_back() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let agent = Agent::start(&host, &["up0"], "reattach = false\n")?;
    let mut follower = Follower::start(&agent)?;
    take_off(&host, "up0")?;
    next(&mut follower, NOTICED, EventKind::Detached, "up0")?;
    wait::until("a warning", SEEN, || {
        Ok(agent.warnings()?.iter().any(|warning| warning.contains("interface up0 is not guarded")))
    })?;
    ensure!(guarded(&host)?.is_empty() && agent.json(&["status"])?["interfaces"][0]["mode"] == "detached");
    let would = agent.change(&["reload", "--dry-run"])?;
    ensure!(would == ["interface up0: the guard is put back, if nothing is in its place"], "{would:?}");
    let done = agent.change(&["reload"])?;
    ensure!(done == ["interface up0: the guard was put back"], "{done:?}");
    next(&mut follower, FOLLOWED, EventKind::Reattached, "up0")?;
    ensure!(guarded(&host)? == ["up0"] && agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    Ok(())
}

/// Slots are used again: the tables have room for those that are there at once and little more.
fn many() -> Result<()> {
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
fn hundreds() -> Result<()> {
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
fn overrun() -> Result<()> {
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
fn same_index() -> Result<()> {
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

fn too_many() -> Result<()> {
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

fn full_of_known() -> Result<()> {
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

fn refused_at_start() -> Result<()> {
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
