//! The main job, end to end: a real agent, real clients and servers, floods at the generator's full rate.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    io::{BufRead as _, BufReader},
    os::fd::AsRawFd as _,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::hook::Hook;
use libtest_mimic::Trial;
use serde_json::Value;
use tests::{
    agent::{self, Agent, errors},
    attached::guarded,
    cleanup::Folder,
    client::leases,
    flood::{Flood, Limits, Mode, Report, Traffic},
    harness::{Need, trial, trial_once},
    limit::Limit,
    mac::Mac,
    packets::Tag,
    process,
    program::current_hook,
    topology::{Lab, Layout},
    trickle::Trickle,
    wait,
};

const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);
const LEASE_DEADLINE: Duration = Duration::from_secs(20);
/// Design §9: an offender is reported at most this long after its first packet.
const REPORT_DEADLINE: Duration = Duration::from_secs(4);
/// Long enough for the rate to count, and not the burst alone.
const FLOOD_TIME: Duration = Duration::from_secs(5);
/// The default client limit: packets a second, and packets in a burst.
const CLIENT_LIMIT: Limit = Limit::CLIENT;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // The control, in which there is no hook.
        trial_once("guard: without it a flood makes clients fail", Need::LAB, flood_is_not_stopped),
        trial("guard: the same flood leaves clients alone behind the guard", Need::LAB, flood_is_stopped),
        trial("guard: the flooder is named within 4 s, with its machine, and nobody else", Need::LAB, flooder_is_named),
        trial("guard: counts of 1, 2 and 100 MACs at full rate are exact", Need::LAB, counts_are_exact),
        trial("guard: with an interface per machine, the interface is the port", Need::LAB, per_machine),
        trial("guard: a VLAN with a port of its own is policed apart, another is reported", Need::LAB, vlans),
        trial(
            "guard: an interface that takes VLAN tags off is warned about, unless the guard sees them",
            Need::LAB,
            vlan_offload,
        ),
        trial("guard: the kernel's debug log appears when it is asked for", Need::LAB, debug_log),
        trial("guard: random MACs are the port's offence, known clients keep their leases", Need::LAB, random_macs),
        trial("guard: monitor mode drops nothing and says what it would drop", Need::LAB, monitor),
        trial(
            "guard: SIGINT and SIGTERM end the agent, and the guard stays until it is detached",
            Need::LAB,
            stops_cleanly,
        ),
        trial_once("guard: a log that nobody reads stops neither the guard nor its end", Need::LAB, log_is_stuck),
        trial("guard: events can be followed", Need::LAB, events_are_followed),
    ]
}

fn full_rate(time: Duration) -> Limits {
    Limits::time(time)
}

/// One source MAC, a new client hardware address in every packet: the flood of one machine that hurts a server most.
fn one_machine() -> Mode {
    Mode::RandomChaddr { source: FLOODER, seed: 1 }
}

/// Machines that want a lease in the flood, with the guard and without.
const CLIENTS_IN_FLOOD: usize = 20;

fn flood_is_not_stopped() -> Result<()> {
    let lab = Lab::new(Layout::Uplink, CLIENTS_IN_FLOOD)?;
    let flood = Together::start(&lab)?;
    wait::until("answers of the server", Duration::from_secs(20), || Ok(lab.server.logged().offer > 5000))?;
    let served = leases(&lab.get_leases(0..CLIENTS_IN_FLOOD, Duration::from_secs(10))?).len();
    flood.stop()?;
    // Who gets through is a matter of luck: mostly fewer than five of them.
    ensure!(served < CLIENTS_IN_FLOOD, "all {CLIENTS_IN_FLOOD} clients got leases without the guard");
    println!("{served} of {CLIENTS_IN_FLOOD} served without the guard");
    Ok(())
}

fn flood_is_stopped() -> Result<()> {
    const CLIENTS: usize = CLIENTS_IN_FLOOD;
    let lab = Lab::new(Layout::Uplink, CLIENTS)?;
    let agent = Agent::start(&lab.host, &lab.guarded(), "")?;
    let start = Instant::now();
    let flood = Together::start(&lab)?;
    let outcomes = lab.get_leases(0..CLIENTS, LEASE_DEADLINE)?;
    wait::until("the flood's time", FLOOD_TIME * 2, || Ok(start.elapsed() >= FLOOD_TIME))?;
    let report = flood.stop()?;
    let elapsed = start.elapsed();
    let bound = leases(&outcomes).len();
    ensure!(bound == CLIENTS, "{bound} of {CLIENTS} got leases behind the guard: {outcomes:?}\n{}", agent.log());
    let passed = lab.server.counts()?.of(FLOODER);
    let (allowed, due) = (CLIENT_LIMIT.allowed(elapsed), CLIENT_LIMIT.burst + FLOOD_TIME.as_secs());
    ensure!(passed <= allowed, "{passed} packets of the flood reached the server, {allowed} may in {elapsed:?}");
    ensure!(passed >= due, "{passed} packets reached the server, its limit admits at least {due}");
    println!(
        "{bound} of {CLIENTS} served behind the guard; {:.1} M/s sent, {passed} of {allowed} reached the server",
        report.rate_pps() / 1e6
    );
    Ok(())
}

/// The flood at full rate with its companion.
struct Together(Flood, Trickle);

impl Together {
    fn start(lab: &Lab) -> Result<Self> {
        let time = Duration::from_secs(60);
        let trickle = Trickle::start(&lab.injection(0), FLOODER, time)?;
        Ok(Self(Flood::start(&lab.injection(0), one_machine(), full_rate(time))?, trickle))
    }

    fn stop(self) -> Result<Report> {
        let _ = self.1.stop();
        self.0.stop()
    }
}

fn flooder_is_named() -> Result<()> {
    const CLIENTS: usize = 5;
    let lab = Lab::new(Layout::Uplink, CLIENTS)?;
    let inventory = Folder::new()?;
    let path = inventory.write("inventory.csv", &format!("server_id,name,mac\nem-0042,rack 7 unit 3,{FLOODER}\n"))?;
    let agent = Agent::start(&lab.host, &lab.guarded(), &format!("inventory = {:?}\n", path.display().to_string()))?;
    let outcomes = lab.get_leases(0..CLIENTS, LEASE_DEADLINE)?;
    ensure!(leases(&outcomes).len() == CLIENTS, "{outcomes:?}");

    let start = Instant::now();
    let flood = Flood::start(&lab.injection(0), Mode::One(FLOODER), full_rate(Duration::from_secs(30)))?;
    wait::until("the flooder among the offenders", Duration::from_secs(10), || Ok(!agent.offenders()?.is_empty()))?;
    let after = start.elapsed();
    let offenders = agent.offenders()?;
    // Legitimate clients ask again in the middle of it.
    let renewed = leases(&lab.get_leases(0..CLIENTS, LEASE_DEADLINE)?).len();
    flood.stop()?;
    // Whoever floods for ten seconds is in quarantine by now, and no offender any more.
    let others = agent.offenders()?.into_iter().filter(|one| one["mac"] != FLOODER.to_string().as_str()).count();
    ensure!(others == 0, "{others} others are offenders: {:?}", agent.offenders()?);
    ensure!(after <= REPORT_DEADLINE, "named after {after:?}");
    ensure!(renewed == CLIENTS, "{renewed} of {CLIENTS} leases");
    ensure!(offenders.len() == 1, "not the flooder alone: {offenders:?}");
    let named = &offenders[0];
    for (key, expected) in [
        ("mac", Value::from(FLOODER.to_string())),
        ("interface", "uplink0".into()),
        ("port", "uplink0".into()),
        ("vlans", Value::Array(vec![])),
        ("state", "offender".into()),
        ("reason", "client_limit".into()),
        ("server_id", "em-0042".into()),
        ("server_name", "rack 7 unit 3".into()),
    ] {
        ensure!(named[key] == expected, "{key} is {}, not {expected}", named[key]);
    }
    ensure!(named["rate_pps"].as_u64().is_some_and(|rate| rate > 10_000), "{named}");
    let (first, last) = (time(named, "first_seen")?, time(named, "last_seen")?);
    ensure!(first < last, "first seen {first}, last seen {last}");
    let text = agent.text(&["offenders"])?;
    ensure!(text.contains("em-0042") && text.contains(&FLOODER.to_string()), "{text}");
    println!("named after {:.1} s", after.as_secs_f64());
    Ok(())
}

fn time(value: &Value, key: &str) -> Result<String> {
    Ok(value[key].as_str().with_context(|| format!("{key} is no time"))?.to_owned())
}

fn counts_are_exact() -> Result<()> {
    for macs in [1u32, 2, 100] {
        // On a busy machine the ring in front of the guard may lose frames: then nothing can be exact, and it is tried
        // again.
        let mut attempts = (0..3).map(|_| exact_with(macs).with_context(|| format!("{macs} MACs")));
        let exact = attempts.find(|result| !matches!(result, Ok(false)));
        ensure!(
            exact.transpose()?.is_some(),
            "{macs} MACs: the ring lost frames three times, this machine is too busy"
        );
    }
    Ok(())
}

/// False: the ring in front of the guard lost frames.
fn exact_with(macs: u32) -> Result<bool> {
    let lab = Lab::new(Layout::Uplink, 3)?;
    let agent = Agent::start(&lab.host, &lab.guarded(), "")?;
    let received_before = lab.received("uplink0")?.frames;
    let seen_before = interface(&agent)?["packets"].as_u64().context("no packets")?;
    let base = Mac([2, 0xf1, 0, 0, 0, 0]);
    let outcomes = lab.get_leases(0..3, LEASE_DEADLINE)?;
    ensure!(leases(&outcomes).len() == 3, "{outcomes:?}");
    // Long enough for every one of them to be reported.
    let mode = Mode::Macs { base, count: macs };
    let report = Flood::start(&lab.injection(0), mode, full_rate(Duration::from_secs(5)))?.wait()?;
    if report.lost != Some(0) {
        return Ok(false);
    }

    // The agent reads its maps once a second.
    let mut status = Value::Null;
    wait::until("all frames in the agent's counts", Duration::from_secs(5), || {
        let received = lab.received("uplink0")?.frames - received_before;
        status = interface(&agent)?;
        Ok(status["packets"].as_u64() == Some(received + seen_before))
    })
    .with_context(|| format!("received {:?}, status {status}", lab.received("uplink0")))?;
    let number = |key: &str| status[key].as_u64().with_context(|| format!("no {key}"));
    let reasons: u64 = status["reasons"].as_object().context("no reasons")?.values().filter_map(Value::as_u64).sum();
    ensure!(number("packets")? == number("non_dhcp_packets")? + reasons, "reasons do not add up: {status}");
    ensure!(number("dhcp_packets")? == reasons, "{status}");
    check_macs(&lab, &agent, base, &report)?;
    Ok(true)
}

/// Each MAC's packets are what was delivered of it, its drops what did not reach the server.
fn check_macs(lab: &Lab, agent: &Agent, base: Mac, report: &Report) -> Result<()> {
    let offenders = agent.offenders()?;
    let at_server = lab.server.counts()?;
    for (index, delivered) in report.per_mac.iter().enumerate() {
        let mac = base.with_index(u16::try_from(index)?);
        let named = offenders.iter().find(|offender| offender["mac"] == mac.to_string().as_str());
        let named = named.with_context(|| format!("{mac} is not among the offenders"))?;
        let (packets, dropped) = (named["packets"].as_u64(), named["dropped"].as_u64());
        ensure!(packets == Some(*delivered), "{mac}: {packets:?} packets, {delivered} delivered");
        let lost = delivered - at_server.of(mac);
        ensure!(dropped == Some(lost), "{mac}: {dropped:?} dropped, {lost} did not reach the server");
    }
    let flooders = offenders.iter().filter(|offender| offender["kind"] == "client").count();
    ensure!(flooders == report.per_mac.len(), "{flooders} clients are offenders, {} flooded", report.per_mac.len());
    Ok(())
}

/// The only interface of `status`.
fn interface(agent: &Agent) -> Result<Value> {
    let status = agent.json(&["status"])?;
    status["interfaces"].get(0).cloned().with_context(|| format!("no interface in {status}"))
}

fn per_machine() -> Result<()> {
    const CLIENTS: usize = 8;
    let lab = Lab::new(Layout::PerMachine, CLIENTS)?;
    let agent = Agent::start(&lab.host, &lab.guarded(), "")?;
    let machine = &lab.machines[0];
    let flood = Flood::start(&lab.injection(0), Mode::One(machine.mac), full_rate(Duration::from_secs(30)))?;
    let outcomes = lab.get_leases(1..CLIENTS, LEASE_DEADLINE)?;
    wait::until("the flooder among the offenders", Duration::from_secs(10), || Ok(!agent.offenders()?.is_empty()))?;
    flood.stop()?;
    ensure!(leases(&outcomes).len() == CLIENTS - 1, "{outcomes:?}");
    let offenders = agent.offenders()?;
    let named: Vec<_> = offenders.iter().map(|o| (o["port"].as_str(), o["mac"].as_str())).collect();
    ensure!(named == [(Some("em0"), Some(machine.mac.to_string().as_str()))], "{named:?}");
    let ports = agent.json(&["ports"])?;
    let ports = ports["ports"].as_array().context("no ports")?;
    ensure!(ports.len() == CLIENTS, "a port for each interface: {}", ports.len());
    ensure!(ports[0]["port"] == "em0", "what is wrong comes first: {}", ports[0]);
    Ok(())
}

fn vlans() -> Result<()> {
    let lab = Lab::new(Layout::Uplink, 2)?;
    let config = "[[port]]\ninterface = \"uplink0\"\nvlans = [100, 20]\nclass = \"vm\"\n";
    let agent = Agent::start(&lab.host, &lab.guarded(), config)?;
    let flood = |tags: Vec<Tag>, packets| -> Result<Report> {
        let traffic = Traffic::from(Mode::One(FLOODER)).tagged(&tags);
        Flood::start(&lab.injection(0), traffic, Limits::packets(packets).at(20_000))?.wait()
    };
    flood(vec![Tag::s(100), Tag::c(20)], 5000)?;
    flood(vec![Tag::c(7)], 3000)?;
    let outcomes = lab.get_leases(0..2, LEASE_DEADLINE)?;
    ensure!(leases(&outcomes).len() == 2, "{outcomes:?}");
    let packets = |ports: &Value, name: &str| {
        let list = ports["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().find(|port| port["port"] == name).map(|port| (port["packets"].as_u64(), port["class"].clone()))
    };
    wait::until("both floods on their ports", Duration::from_secs(5), || {
        let ports = agent.json(&["ports"])?;
        let tagged = packets(&ports, "uplink0.100.20") == Some((Some(5000), "vm".into()));
        let untagged = packets(&ports, "uplink0").is_some_and(|(packets, _)| packets >= Some(3000 + 4));
        Ok(tagged && untagged)
    })?;
    let events = agent.json(&["events"])?;
    let unknown: Vec<_> = list(&events, "events").filter(|event| event["kind"] == "unknown_vlan").collect();
    ensure!(unknown.len() == 1 && unknown[0]["vlans"] == Value::from(vec![7]), "{unknown:?}");
    Ok(())
}

fn vlan_offload() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, 2)?;
    lab.host.exec(&["ethtool", "-K", "em1", "rxvlan", "on"])?;
    let agent = Agent::start(&lab.host, &lab.guarded(), "")?;
    let status = agent.json(&["status"])?;
    let warnings: Vec<_> = list(&status, "warnings").filter_map(Value::as_str).collect();
    if current_hook() == Some(Hook::Tcx) {
        ensure!(warnings.is_empty(), "the guard sees the tags: {warnings:?}");
        return Ok(());
    }
    let [warning] = warnings[..] else { anyhow::bail!("not one warning: {warnings:?}") };
    ensure!(warning.contains("em1") && warning.contains("ethtool -K em1 rxvlan off"), "{warning}");
    Ok(())
}

fn debug_log() -> Result<()> {
    for (arguments, expected) in [(&["--debug-kernel"][..], true), (&[][..], false)] {
        let lab = Lab::new(Layout::Uplink, 1)?;
        let agent = Agent::start_with(&lab.host, &lab.guarded(), "", arguments)?;
        Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::packets(100).at(1000))?.wait()?;
        let in_kernel = || agent.log().contains("event 1: ifindex");
        wait::until("the flooder's first drop in the log", Duration::from_secs(5), || {
            Ok(agent.log().contains("is over its limit") && (in_kernel() || !expected))
        })
        .with_context(|| agent.log())?;
        ensure!(in_kernel() == expected, "with {arguments:?}:\n{}", agent.log());
    }
    Ok(())
}

fn list<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}

fn random_macs() -> Result<()> {
    const CLIENTS: usize = 10;
    let lab = Lab::new(Layout::Uplink, CLIENTS)?;
    let known: String = lab
        .machines
        .iter()
        .map(|machine| format!("[[known_client]]\ninterface = \"uplink0\"\nmac = \"{}\"\n", machine.mac))
        .collect();
    let agent = Agent::start(&lab.host, &lab.guarded(), &known)?;
    // Not faster than the ring in front of the guard can be emptied: what the ring loses the guard never sees.
    let limits = full_rate(Duration::from_secs(60)).at(5000);
    let flood = Flood::start(&lab.injection(0), Mode::Random { seed: 3 }, limits)?;
    let outcomes = lab.get_leases(0..CLIENTS, LEASE_DEADLINE)?;
    wait::until("the port among the offenders", Duration::from_secs(10), || Ok(!agent.offenders()?.is_empty()))?;
    let report = flood.stop()?;
    ensure!(leases(&outcomes).len() == CLIENTS, "{outcomes:?}");
    let kinds: BTreeSet<_> = agent.offenders()?.iter().map(|o| o["kind"].to_string()).collect();
    ensure!(kinds == BTreeSet::from(["\"port\"".to_owned()]), "only the port is to blame: {kinds:?}");
    // 25 pps and 125 at once for strangers; the clients' own packets come on top.
    let bound = 125 + (report.elapsed.as_secs_f64() * 25.0).ceil() as u64 + 1;
    let counts = lab.server.counts()?;
    let clients: u64 = lab.machines.iter().map(|machine| counts.of(machine.mac)).sum();
    ensure!(
        counts.requests - clients <= bound,
        "{} forged packets at the server, {bound} may",
        counts.requests - clients
    );
    Ok(())
}

fn monitor() -> Result<()> {
    const FRAMES: u64 = 2000;
    let lab = Lab::new(Layout::Uplink, 1)?;
    let agent = Agent::start_with(&lab.host, &lab.guarded(), "", &["--mode", "monitor"])?;
    Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::packets(FRAMES).at(5000))?.wait()?;
    wait::until("all frames at the server", Duration::from_secs(5), || Ok(lab.server.counts()?.of(FLOODER) == FRAMES))?;
    let mut status = Value::Null;
    wait::until("all frames counted", Duration::from_secs(5), || {
        status = interface(&agent)?;
        Ok(status["dhcp_packets"].as_u64() >= Some(FRAMES))
    })?;
    ensure!(status["dropped"] == 0, "{status}");
    ensure!(status["would_drop"].as_u64() >= Some(FRAMES - 25), "{status}");
    Ok(())
}

fn stops_cleanly() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let lab = Lab::new(Layout::Uplink, 1)?;
        let mut agent = Agent::start(&lab.host, &lab.guarded(), "")?;
        ensure!(guarded(&lab.host)? == ["uplink0"], "not attached");
        // The end of a terminal is not the end of the guard.
        // SAFETY: no memory involved; the process is our child and has not been reaped.
        unsafe { libc::kill(i32::try_from(agent.pid())?, libc::SIGHUP) };
        wait::until("the answer to SIGHUP", Duration::from_secs(5), || Ok(agent.log().contains("SIGHUP")))?;
        agent.json(&["status"])?;
        // A follower must not keep it from stopping.
        let mut command = agent.command(&["events", "--follow"]);
        let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(follower.stdout.take().context("no output")?);
        let mut line = String::new();
        // It follows once it shows what was before: how the agent started.
        output.read_line(&mut line)?;
        let status = agent.stop(signal);
        let socket = agent.socket().exists();
        let end = process::end_within(follower, "events --follow", Duration::from_secs(5));
        let (status, end) = (status?, end?);
        ensure!(status.success(), "signal {signal}: {status}\n{}", agent.log());
        ensure!(!socket, "the socket is still there");
        ensure!(guarded(&lab.host)? == ["uplink0"], "not attached any more");
        let detached = agent.detach()?;
        ensure!(detached == "the guard is off: uplink0\n", "{detached}");
        ensure!(guarded(&lab.host)?.is_empty(), "still attached");
        let left = fs::read_dir(agent.launch().pin_dir())?.count();
        ensure!(left == 0, "{left} pins are left");
        ensure!(agent.detach()?.ends_with("nothing to take off\n"), "{}", agent.detach()?);
        ensure!(line.contains("guarding uplink0"), "the follower showed {line:?}");
        let sentence =
            format!("dhcp-guard: the agent on {} has ended: ask again once it runs\n", agent.socket().display());
        ensure!(errors(&end) == sentence && end.status.code() == Some(2), "the follower ended otherwise: {end:?}");
    }
    Ok(())
}

/// Standard error is a pipe that is full from the start: whoever writes to it waits for ever.
fn log_is_stuck() -> Result<()> {
    let lab = Lab::new(Layout::Uplink, 1)?;
    let folder = Folder::new()?;
    let (config, socket) = (folder.write("dhcp-guard.toml", "")?, folder.path("socket"));
    let (_reader, mut writer) = std::io::pipe()?;
    // SAFETY: no memory involved.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    ensure!(size > 0, "cannot set the size of a pipe");
    writer.write_all(&vec![b'-'; usize::try_from(size)?])?;
    let mut command = lab.host.command(agent::binary()?);
    command.arg("--config").arg(&config).arg("--socket").arg(&socket).args(["run", "-i", "uplink0"]);
    command.arg("--state-dir").arg(folder.path("state")).arg("--pin-dir").arg(folder.bpffs()?);
    let mut process = command.stderr(writer).stdin(Stdio::null()).spawn()?;
    let named = || -> Result<()> {
        wait::until("the socket", Duration::from_secs(20), || Ok(socket.exists()))?;
        let _flood = Flood::start(&lab.injection(0), Mode::One(FLOODER), full_rate(Duration::from_secs(20)))?;
        wait::until("the flooder among the offenders", Duration::from_secs(10), || {
            let mut query = lab.host.command(agent::binary()?);
            let answer = query.arg("--socket").arg(&socket).args(["offenders", "--json"]).output()?;
            Ok(String::from_utf8_lossy(&answer.stdout).contains(&FLOODER.to_string()))
        })
    }();
    // SAFETY: no memory involved; the process is our child and has not been reaped.
    unsafe { libc::kill(i32::try_from(process.id())?, libc::SIGTERM) };
    let ended = wait::until("the end of the agent", Duration::from_secs(10), || Ok(process.try_wait()?.is_some()));
    let _ = process.kill();
    process.wait()?;
    named?;
    ended?;
    Ok(())
}

fn events_are_followed() -> Result<()> {
    let lab = Lab::new(Layout::Uplink, 1)?;
    let agent = Agent::start(&lab.host, &lab.guarded(), "")?;
    let mut command = agent.command(&["events", "--follow", "--json"]);
    let mut follower = command.stdout(Stdio::piped()).spawn()?;
    let output = follower.stdout.take().context("no output")?;
    let lines = thread::spawn(move || {
        let wanted = ["agent_started", "client_over_limit", "offender_found"];
        let mut kinds = Vec::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            kinds.push(event["kind"].as_str().unwrap_or("?").to_owned());
            if kinds.len() == wanted.len() {
                break;
            }
        }
        (kinds == wanted, kinds)
    });
    let flood = Flood::start(&lab.injection(0), Mode::One(FLOODER), full_rate(Duration::from_secs(20)))?;
    wait::until("three events", Duration::from_secs(15), || Ok(lines.is_finished()))?;
    flood.stop()?;
    follower.kill()?;
    follower.wait()?;
    let (right, kinds) = lines.join().map_err(|_| anyhow::anyhow!("the reader failed"))?;
    ensure!(right, "{kinds:?}");
    Ok(())
}
