//! Quarantine, end to end: who is put into it, who never is, and what survives. The three incidents of the product's
//! history are among them.

mod actuators;
mod caps;
mod cold_boot;
mod crafted;
mod dead_server;
mod forger;
mod incident;
mod restart;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::model::{Covered, Explained, Explanation, QuarantineReport, Times};
use libtest_mimic::Trial;
use serde_json::Value;
use tests::{
    agent::{Agent, Launch},
    harness::{Need, trial, trial_once},
    mac::Mac,
    topology::{Lab, TO_SERVER},
    wait,
};

/// Ten windows of a second, the one in which it begins, and room for a machine that is busy with all of this.
const BEGIN_DEADLINE: Duration = Duration::from_secs(20);
/// The design's promise: in quarantine at most this long after the first packet.
const PROMISED: Duration = Duration::from_secs(15);
/// The agent reads its maps once a second.
const SEEN_DEADLINE: Duration = Duration::from_secs(5);
/// Real clients need tens of milliseconds; this is for a machine that is busy with something else.
const LEASE_DEADLINE: Duration = Duration::from_secs(20);
/// Says where the server is, so that replies are seen.
const SERVER_PORT: &str = "[[port]]\ninterface = \"to-server\"\nclass = \"trusted\"\n";

const NEEDS_MOUNT: &[Need] = &[Need::Lab, Need::Tool("unshare"), Need::Tool("mount")];

/// Once for both hooks: requests and what hangs, which no frame is about; and whom the engine blames, and how many, which it
/// decides from counters alone. That both hooks count the same is what the tests in the kernel are about; what a hook makes of
/// a quarantine, the first test, the forger's and the one about what outlives the agent.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("quarantine: one machine floods, is muted within 15 s, and comes back", Need::LAB, incident::one_machine),
        trial_once(
            "quarantine: a server dies, and none of its 200 clients is blamed",
            Need::LAB,
            dead_server::nobody_is_blamed,
        ),
        trial_once(
            "quarantine: of 30 floods on 70 ports no more than the cap, the others are held back",
            Need::LAB,
            caps::held_back,
        ),
        trial_once("quarantine: 30 floods on 30 ports are nobody's fault", Need::LAB, caps::systemic),
        trial_once(
            "quarantine: 250 machines behind one port boot at once, and none is an offender",
            Need::LAB,
            cold_boot::on_one_port,
        ),
        trial("quarantine: whoever floods with another's MAC is alone in it", Need::LAB, forger::alone),
        trial_once("quarantine: with both in the inventory, the forger's machine is named", Need::LAB, forger::named),
        trial_once(
            "quarantine: crafted requests change nothing, and are on record",
            Need::LAB,
            crafted::changes_nothing,
        ),
        trial_once("quarantine: undo restores everything as it was", Need::LAB, crafted::undone),
        trial_once(
            "quarantine: a stuck webhook, a stuck command or a full disk delay nobody",
            NEEDS_MOUNT,
            actuators::delay_nobody,
        ),
        trial("quarantine: it outlives the agent, with hold and allowlist", Need::LAB, restart::outlives_the_agent),
    ]
}

/// The guarded interfaces, and the one towards the server.
fn with_server_port(lab: &Lab) -> Vec<&str> {
    lab.guarded().into_iter().chain([TO_SERVER]).collect()
}

/// The key of the configuration that says whose each guarded interface is: one machine's own, em-0042 and so on.
fn inventory(launch: &Launch, interfaces: &[&str]) -> Result<String> {
    let row = |(number, interface): (usize, &&str)| format!("em-{:04},{interface}\n", 42 + number);
    let rows: String = interfaces.iter().enumerate().map(row).collect();
    let file = launch.folder().write("inventory.csv", &format!("server_id,interface\n{rows}"))?;
    Ok(format!("inventory = {:?}\n", file.display().to_string()))
}

/// The entries of a list in a document.
fn list<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}

/// Ends an agent, and takes its guard off: the next one is another one.
fn stop(agent: &mut Agent) -> Result<()> {
    agent.stop(libc::SIGTERM)?;
    agent.detach().map(drop)
}

fn warnings(agent: &Agent) -> Result<Vec<String>> {
    let status = agent.json(&["status"])?;
    Ok(list(&status, "warnings").filter_map(Value::as_str).map(str::to_owned).collect())
}

/// What is known about a port or client; of several that fit, the port.
fn explain(agent: &Agent, what: &str) -> Result<Explanation> {
    let explained: Explained = agent.ask(&["explain", what])?;
    explained.subjects.into_iter().next().with_context(|| format!("nobody is {what}"))
}

/// The only quarantine there is.
fn only_quarantine(agent: &Agent) -> Result<QuarantineReport> {
    let mut all = agent.quarantines()?;
    ensure!(all.len() == 1, "not one quarantine: {all:?}");
    all.pop().context("there is one")
}

/// Whether all that is covered is on this port.
fn is_on(covers: &[Covered], port: &str) -> bool {
    !covers.is_empty() && covers.iter().all(|covered| covered.port == port)
}

/// From the first excess to the quarantine in the data plane, as soon as that has said that it has it; times that are
/// there, and in their order.
fn time_to_quarantine(mut quarantine: impl FnMut() -> Result<Option<QuarantineReport>>) -> Result<Duration> {
    let mut times = Times::default();
    wait::until("the quarantine in the data plane", SEEN_DEADLINE, || {
        times = quarantine()?.and_then(|quarantine| quarantine.times).unwrap_or_default();
        Ok(times.quarantined.is_some())
    })?;
    let in_order = || {
        let (excess, detected, quarantined) = (times.first_excess?, times.detected?, times.quarantined?);
        (excess <= detected && detected <= quarantined).then(|| quarantined.duration_since(excess).unsigned_abs())
    };
    in_order().with_context(|| format!("times that are missing, or not in their order: {times:?}"))
}

/// A MAC of the test's own.
fn mac(index: usize) -> Mac {
    Mac([2, 0xc1, 0, 0, 0, 0]).with_index(u16::try_from(index).expect("fewer clients than that"))
}
