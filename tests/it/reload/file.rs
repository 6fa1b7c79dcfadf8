//! The file is read again: all of it is in force, or nothing has changed.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use dhcp_guard::{dataplane::hook::Hook, model::EventKind};
use serde_json::Value;
use tests::{
    agent::{Agent, errors},
    attached::{guarded, programs},
    control::{Control, Verdict},
    flood::{Flood, Limits, Mode},
    follower::Follower,
    process,
    program::current_hook,
    topology::{Lab, Layout},
    wait,
};

use super::{FLOODER, SEEN, add, host, next, write};

/// A refusal: exit code, and standard error.
fn refused(agent: &Agent, words: &[&str]) -> Result<(Option<i32>, String)> {
    let output = agent.command(words).output().context("cannot run the CLI")?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    Ok((output.status.code(), errors(&output)))
}

pub(super) fn limits_under_flood() -> Result<()> {
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

pub(super) fn pipe() -> Result<()> {
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

pub(super) fn broken_file() -> Result<()> {
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

pub(super) fn diff_and_dry_run() -> Result<()> {
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

pub(super) fn all_or_nothing() -> Result<()> {
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

pub(super) fn hangup() -> Result<()> {
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
