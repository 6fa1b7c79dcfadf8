//! While there is no agent: limits, quarantines, counters.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::model::{Quarantines, Status};
use jiff::Timestamp;
use tests::{
    agent::{Agent, Launch, errors},
    attached,
    flood::{Flood, Limits, Mode},
    topology::{Lab, Layout},
    trickle::{Source, Trickle},
    wait,
};

use super::{CLIENT_LIMIT, DEADLINE, FLOODER, clients, in_data_plane, of_interface};

/// Kills the agent and starts the next one, 20 times, while one machine floods at full rate. Where a start takes seconds
/// (an emulated machine), less often.
pub(super) fn in_a_flood() -> Result<()> {
    const KILLS: usize = 20;
    const AT_LEAST: usize = 3;
    const ENOUGH: Duration = Duration::from_secs(15);
    let lab = Lab::new(Layout::Uplink, 1)?;
    let launch = Launch::new(&lab.host, &lab.guarded())?;
    let mut agent = launch.clone().start()?;
    let start = Instant::now();
    let time = Duration::from_secs(120);
    let trickle = Trickle::start(&lab.injection(0), FLOODER, time)?;
    let flood = Flood::start(&lab.injection(0), Mode::RandomChaddr { source: FLOODER, seed: 1 }, Limits::time(time))?;
    let (mut counted, mut kills) = (0, 0);
    while kills < AT_LEAST || (kills < KILLS && start.elapsed() < ENOUGH) {
        let packets = of_interface(&agent, "dhcp_packets")?;
        ensure!(packets >= counted, "after {kills} kills there are {packets} packets, {counted} before");
        counted = packets;
        agent.stop(libc::SIGKILL)?;
        kills += 1;
        agent = launch.clone().start().with_context(|| format!("after {kills} kills"))?;
    }
    let report = flood.stop()?;
    let _ = trickle.stop();
    let elapsed = start.elapsed();
    let passed = lab.server.counts()?.of(FLOODER);
    let (allowed, due) =
        (CLIENT_LIMIT.allowed(elapsed), CLIENT_LIMIT.burst + CLIENT_LIMIT.rate * elapsed.as_secs() / 2);
    ensure!(passed <= allowed, "{passed} packets of the flood reached the server, {allowed} may in {elapsed:?}");
    ensure!(passed >= due, "{passed} packets reached the server, its limit admits at least {due}");
    println!(
        "{kills} kills in {:.1} s at {:.1} M/s: {passed} of {allowed} reached the server",
        elapsed.as_secs_f64(),
        report.rate_pps() / 1e6
    );
    Ok(())
}

/// A client in quarantine, an agent that is killed, and packets that pass when the time has come.
pub(super) fn quarantine_ends() -> Result<()> {
    const TTL: Duration = Duration::from_secs(8);
    let lab = Lab::new(Layout::PerMachine, 2)?;
    let mut agent = Agent::start(&lab.host, &lab.guarded(), "")?;
    let machine = lab.machines[0].mac;
    let who = format!("em0/{machine}");
    let start = Instant::now();
    agent.change(&["quarantine", "add", &who, "--ttl", &format!("{}s", TTL.as_secs()), "--reason", "a test"])?;
    let added = start.elapsed();
    in_data_plane(&agent)?;
    agent.stop(libc::SIGKILL)?;
    // Within its limit, so that only the quarantine can stop it.
    let trickle = Trickle::start_at(&lab.injection(0), Source::One(machine), CLIENT_LIMIT.rate, TTL * 4)?;
    wait::until("a packet that passes", DEADLINE, || Ok(lab.server.counts()?.of(machine) > 0))?;
    let passed = start.elapsed();
    let _ = trickle.stop();
    ensure!(passed >= TTL, "packets passed after {passed:?}, the quarantine was for {TTL:?}");
    let latest = TTL + added + Duration::from_millis(1500);
    ensure!(passed <= latest, "packets passed after {passed:?} only, the quarantine was for {TTL:?}");
    println!("a quarantine of {TTL:?} ended after {passed:?} without an agent");
    Ok(())
}

/// What was counted and learned before is there after.
pub(super) fn counters_go_on() -> Result<()> {
    const CLIENTS: usize = 3;
    let lab = Lab::new(Layout::Uplink, CLIENTS)?;
    let known: String = lab
        .machines
        .iter()
        .take(1)
        .map(|machine| format!("[[known_client]]\ninterface = \"uplink0\"\nmac = \"{}\"\n", machine.mac))
        .collect();
    let launch = Launch::new(&lab.host, &lab.guarded())?.config(&known)?;
    let mut agent = launch.clone().start()?;
    lab.get_leases(0..CLIENTS, DEADLINE)?;
    let mut before = Vec::new();
    wait::until("all clients in the counts", DEADLINE, || {
        before = clients(&agent)?;
        Ok(before.len() == CLIENTS && before.iter().all(|client| client.packets >= 2))
    })?;
    // Nothing is sent from here on.
    let packets = of_interface(&agent, "dhcp_packets")?;
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        agent.stop(signal)?;
        agent = launch.clone().start()?;
        ensure!(of_interface(&agent, "dhcp_packets")? == packets, "after signal {signal} packets are counted anew");
        let after = clients(&agent)?;
        ensure!(after == before, "signal {signal}\nbefore: {before:?}\nafter: {after:?}");
    }
    Ok(())
}

/// Many packets at once, long ago: without an agent, and when the next one has just come, nobody is over any limit.
pub(super) fn nobody_is_blamed() -> Result<()> {
    let lab = Lab::new(Layout::Uplink, 1)?;
    let launch = Launch::new(&lab.host, &lab.guarded())?;
    let mut agent = launch.clone().start()?;
    let flood = Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::packets(300))?;
    let sent = flood.wait()?.delivered();
    wait::until("all packets in the counts", DEADLINE, || Ok(of_interface(&agent, "dhcp_packets")? >= sent))?;
    let counted = of_interface(&agent, "dhcp_packets")?;
    agent.stop(libc::SIGKILL)?;
    let nobody = |agent: &Agent, when: &str| {
        let list = agent.json(&["offenders"])?;
        ensure!(list["offenders"].as_array().is_some_and(Vec::is_empty), "{when}: {list}");
        let packets = of_interface(agent, "dhcp_packets")?;
        ensure!(packets == counted, "{when} there are {packets} packets, {counted} before");
        let port = &agent.json(&["ports"])?["ports"][0];
        ensure!(port["rate_pps"] == 0 && port["state"] == "normal", "{when}: {port}");
        Ok(())
    };
    nobody(&agent, "without an agent")?;
    let agent = launch.start()?;
    nobody(&agent, "with the next one")?;
    let text = agent.text(&["explain", "uplink0"])?;
    ensure!(text.contains("it keeps to its limit"), "{text}");
    Ok(())
}

/// What the agent knew, and what happens now.
pub(super) fn queries() -> Result<()> {
    const CLIENTS: usize = 3;
    let lab = Lab::new(Layout::Uplink, CLIENTS)?;
    let launch = Launch::new(&lab.host, &lab.guarded())?;
    // Where the file says: a command knows nothing of how the agent was started.
    let state_dir = format!("state_dir = {:?}\n", launch.state_dir().display().to_string());
    let mut agent = launch.config(&state_dir)?.start()?;
    lab.get_leases(0..CLIENTS, DEADLINE)?;
    agent.change(&["quarantine", "add", "uplink0/02:00:00:00:77:01", "--ttl", "1h", "--reason", "a test"])?;
    agent.change(&["hold", "on", "--reason", "another test"])?;
    let mut before = Vec::new();
    wait::until("all clients in the counts", DEADLINE, || {
        before = clients(&agent)?;
        Ok(before.len() == CLIENTS && agent.json(&["status"])?["quarantined"] == 1)
    })?;
    let quarantines = agent.quarantines()?;
    // The state is on the disk when the agent has ended; what the maps have they have.
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    let ended = Timestamp::now();

    let config = agent.launch().folder().path("dhcp-guard.toml").display().to_string();
    let status = agent.json(&["status", "--config", &config])?;
    ensure!(status["agent_running"] == false && status["hold"] == true && status["quarantined"] == 1, "{status}");
    ensure!(status["interfaces"][0]["name"] == "uplink0" && status["warnings"].to_string().contains("no agent runs"));
    let text = agent.text(&["status", "--config", &config])?;
    ensure!(text.contains("guarding uplink0") && text.contains("without an agent for"), "{text}");
    let mode = attached::guard(&lab.host, "uplink0")?.way.mode();
    ensure!(status["interfaces"][0]["mode"] == mode.word(), "{status}");
    ensure!(clients(&agent)? == before, "{:?}\nbefore: {before:?}", clients(&agent)?);
    let after: Quarantines = agent.ask(&["quarantine", "list", "--config", &config])?;
    let after = after.quarantines;
    ensure!(after.len() == 1 && after[0].id == quarantines[0].id && after[0].reason == "a test", "{after:?}");
    ensure!(agent.json(&["ports"])?["ports"][0]["port"] == "uplink0", "{}", agent.json(&["ports"])?);
    ensure!(agent.offenders()?.is_empty(), "{:?}", agent.offenders()?);
    let flood = Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::time(DEADLINE))?;
    wait::until("the flooder among the offenders", DEADLINE, || Ok(!agent.offenders()?.is_empty()))?;
    flood.stop()?;
    // Some seconds have passed. The agent told the maps once a second that it is there.
    let status: Status = agent.ask(&["status", "--config", &config])?;
    let alone_since = status.started.duration_since(ended).as_secs_f64();
    ensure!((-2.0..=0.5).contains(&alone_since), "without an agent since {alone_since} s after its end");
    let words = ["quarantine", "release", "1", "--reason", "x"];
    let refused = agent.command(&words).output()?;
    let said = errors(&refused);
    ensure!(refused.status.code() == Some(2) && said.contains("no agent answers"), "{}: {said}", refused.status);
    agent.detach()?;
    let nothing = agent.command(&["status"]).output()?;
    ensure!(nothing.status.code() == Some(2), "a status of nothing: {}", errors(&nothing));
    Ok(())
}
