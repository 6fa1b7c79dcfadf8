//! The agent ends, kindly or not, and starts again: what was in force is.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::model::EventKind;
use serde_json::{Value, json};
use tests::{
    agent::{Agent, Launch},
    flood::{Flood, Limits, Mode},
    follower::Follower,
    topology::{Lab, Layout},
    wait,
};

use super::{BEGIN_DEADLINE, SEEN_DEADLINE, SERVER_PORT, with_server_port};

const RATE: u64 = 1000;
/// More than any limit lets through at once.
const PROBES: u64 = 100;

pub(super) fn outlives_the_agent() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, 4)?;
    let launch = Launch::new(&lab.host, &with_server_port(&lab))?.config(SERVER_PORT)?;
    let mut agent = launch.clone().start()?;
    let mut follower = Follower::start(&agent)?;
    let limits = Limits::time(Duration::from_secs(60)).at(RATE);
    let flood = Flood::start(&lab.injection(0), Mode::One(lab.machines[0].mac), limits)?;
    follower.wait_for_kind(BEGIN_DEADLINE, EventKind::QuarantineBegan)?;
    flood.stop()?;
    for words in [
        &["quarantine", "add", "em1", "--ttl", "1h", "--reason", "by hand"][..],
        &["allow", "add", "em2", "--for", "2h", "--reason", "for two hours"],
        &["allow", "add", "em3/02:00:00:00:00:04", "--reason", "for good"],
        &["hold", "on", "--reason", "nothing new"],
    ] {
        ensure!(!agent.change(words)?.is_empty(), "{words:?} changed nothing");
    }
    let mut before = Value::Null;
    wait::until("all of it in what is listed", SEEN_DEADLINE, || {
        before = documents(&agent)?;
        let count = |key: &str| super::list(&before, key).count();
        Ok((count("quarantines"), count("allowed")) == (2, 2) && before["hold"][1] == true)
    })?;
    are_muted(&lab, &agent)?;
    // The kind end is also the end of an upgrade; the other one that of a machine that loses its power.
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        drop(follower);
        agent.stop(signal)?;
        agent = launch.clone().start().with_context(|| format!("after signal {signal}"))?;
        follower = Follower::start(&agent)?;
        let after = documents(&agent)?;
        ensure!(after == before, "signal {signal}\nbefore: {before}\nafter: {after}");
        are_muted(&lab, &agent).with_context(|| format!("after signal {signal}"))?;
    }
    let began = follower.of_kind(EventKind::QuarantineBegan)?;
    println!("twice the same: {before}; told of as begun again: {}", began.len());
    Ok(())
}

/// What must be the same: who, since when, until when, by whom, why.
fn documents(agent: &Agent) -> Result<Value> {
    let fields = |list: &Value, names: &[&str]| -> Result<Vec<Value>> {
        let entries = list.as_array().with_context(|| format!("no list: {list}"))?;
        let one = |entry: &Value| names.iter().map(|name| entry[*name].clone()).collect();
        Ok(entries.iter().map(one).collect())
    };
    let quarantines = agent.json(&["quarantine", "list"])?;
    let allowed = agent.json(&["allow", "list"])?;
    let who = ["id", "kind", "covers", "action", "by", "reason", "since", "expires_at", "repeat"];
    let allowed_who = ["interface", "port", "mac", "by", "reason", "since", "expires_at"];
    Ok(json!({
        "quarantines": fields(&quarantines["quarantines"], &who)?,
        "hold": [&quarantines["hold"], &agent.json(&["status"])?["hold"]],
        "allowed": fields(&allowed["allowed"], &allowed_who)?,
    }))
}

/// Nothing of those in quarantine reaches the server; whoever is allowed passes without a limit.
fn are_muted(lab: &Lab, agent: &Agent) -> Result<()> {
    let dhcp_packets = |port: &str| -> Result<u64> {
        let ports = agent.json(&["ports"])?;
        let found = super::list(&ports, "ports").find(|one| one["port"] == port).cloned();
        found.and_then(|one| one["packets"].as_u64()).with_context(|| format!("no port {port} in {ports}"))
    };
    let before = lab.server.counts()?;
    let seen: Vec<u64> = (0..3).map(|index| dhcp_packets(&format!("em{index}"))).collect::<Result<_>>()?;
    for index in 0..3 {
        let mode = Mode::One(lab.machines[index].mac);
        Flood::start(&lab.injection(index), mode, Limits::packets(PROBES).at(RATE))?.wait()?;
    }
    for (index, seen) in seen.iter().enumerate() {
        wait::until("all probes seen by the guard", SEEN_DEADLINE, || {
            Ok(dhcp_packets(&format!("em{index}"))? - seen >= PROBES)
        })?;
    }
    let after = lab.server.counts()?;
    let passed: Vec<u64> = lab.machines.iter().map(|one| after.of(one.mac) - before.of(one.mac)).collect();
    ensure!(passed[..3] == [0, 0, PROBES], "of {PROBES} each, {passed:?} passed");
    Ok(())
}
