//! The guard outlives its agent: killed, stopped, started again, of another version, broken off anywhere, in want of anything.
//!
//! * [`killed`]: limits, quarantines and counters while there is no agent. [`upgrade`]: another version, and back.
//! * [`broken_off`]: SIGKILL and errors of the kernel in the middle of a start. [`descriptors`]: a start that has few.
//! * [`damage`]: what a start can find. [`pins`]: what becomes of them while an agent runs.
//!
//! What a filter of tc has its own steps for is broken off there, too (`[clsact]`). Once for both hooks: the lock of the pin
//! folder, descriptors, and the state file, which no program is about.

mod broken_off;
mod damage;
mod descriptors;
mod killed;
mod pins;
mod upgrade;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::hook::Hook;
use libtest_mimic::Trial;
use serde_json::Value;
use tests::{
    agent::Agent,
    attached::guarded,
    harness::{Need, trial, trial_at, trial_once},
    limit::Limit,
    link,
    mac::Mac,
    netns::Netns,
    wait,
};

const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);
/// Longer than anything here should take.
const DEADLINE: Duration = Duration::from_secs(20);
/// The default client limit: packets a second, and packets in a burst.
const CLIENT_LIMIT: Limit = Limit::CLIENT;

/// What the tests need that upgrade.
const UPGRADE: &[Need] = &[Need::Lab, Need::OtherVersion];
/// What the tests need that break the start off.
const TRACED: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("strace")];
/// The same with clients and a server.
const TRACED_LAB: &[Need] = &[Need::Lab, Need::Tool("strace")];
const AGAIN: &str = "lifecycle: killed between any two steps of a start that takes over, nothing is lost or passes";
const WANT: &str = "lifecycle: no room and no descriptors at any step of a start that takes over";
/// And those with mounts of their own.
const MOUNTS: &[Need] =
    &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("unshare"), Need::Tool("mount"), Need::Tool("umount")];
/// The others.
const HOST: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip")];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "lifecycle: killed again and again in a flood, nothing passes beyond the limit",
            Need::LAB,
            killed::in_a_flood,
        ),
        trial("lifecycle: a quarantine ends on time without an agent", Need::LAB, killed::quarantine_ends),
        trial("lifecycle: counters and known clients go on after a restart", Need::LAB, killed::counters_go_on),
        trial(
            "lifecycle: what was over a limit before an agent came is nobody's offence now",
            Need::LAB,
            killed::nobody_is_blamed,
        ),
        trial("lifecycle: without an agent, queries are answered from the pinned maps", Need::LAB, killed::queries),
        trial("lifecycle: to another version and back in a flood, without a gap", UPGRADE, upgrade::there_and_back),
        trial("lifecycle: who was learned stays known over a change of version and back", UPGRADE, upgrade::learned),
        trial("lifecycle: tables of another size take over what must not be lost", Need::LAB, upgrade::other_size),
        trial("lifecycle: what is not configured any more is let go", HOST, damage::let_go),
        trial("lifecycle: without a BPF file system the guard ends with its agent", HOST, damage::no_bpffs),
        trial_once(
            "lifecycle: where no BPF file system is mounted, one is, and pinned to",
            MOUNTS,
            damage::mounts_bpffs,
        ),
        trial_once("lifecycle: a BPF file system that cannot be used is told of", MOUNTS, damage::unusable_bpffs),
        trial_once("lifecycle: pinned maps of a wrong size or type are replaced", HOST, damage::odd_maps),
        trial_once("lifecycle: two agents cannot share a pin folder", HOST, damage::shared_folder),
        trial(
            "lifecycle: pins of a foreign layout are replaced, those of others left alone",
            HOST,
            damage::foreign_pins,
        ),
        trial("lifecycle: half of the pins deleted", HOST, damage::half_deleted),
        trial("lifecycle: pins removed under the agent are made again", HOST, pins::removed),
        trial("lifecycle: where pins cannot be made again, the end of the guard is told", HOST, pins::unmounted),
        trial(
            "lifecycle: what is said of a pin elsewhere is said only while it is there",
            HOST,
            pins::moved_away_and_back,
        ),
        trial_once("lifecycle: under `ip netns exec` the guard is said to end with its agent", HOST, pins::hidden),
        trial_once("lifecycle: a state file cut off at every 100th byte", HOST, damage::truncated_state),
        trial_once(
            "lifecycle: quarantines that only the maps know are listed, and can be ended",
            HOST,
            damage::lost_state,
        ),
        trial("lifecycle: an interface that goes while it is attached to", TRACED, broken_off::interface_goes),
        trial("lifecycle: killed between any two steps of a first start", TRACED, broken_off::killed_at_first),
        trial(AGAIN, TRACED_LAB, broken_off::killed_again),
        trial_once("lifecycle: killed while it saves its state", TRACED, broken_off::killed_saving),
        trial(WANT, TRACED_LAB, broken_off::in_want),
        trial_at(
            Hook::Clsact,
            "lifecycle: killed between any two steps of a first start",
            TRACED,
            broken_off::killed_at_first,
        ),
        trial_at(Hook::Clsact, AGAIN, TRACED_LAB, broken_off::killed_again),
        trial_at(Hook::Clsact, WANT, TRACED_LAB, broken_off::in_want),
        trial_once(
            "lifecycle: whatever number of descriptors a start has, nothing is lost by it",
            HOST,
            descriptors::few_descriptors,
        ),
        trial_once(
            "lifecycle: whatever number of descriptors a first start has, it guards all or none",
            HOST,
            descriptors::all_or_none,
        ),
    ]
}

/// A number in the status of an agent's only interface.
fn of_interface(agent: &Agent, key: &str) -> Result<u64> {
    let status = agent.json(&["status"])?;
    status["interfaces"][0][key].as_u64().with_context(|| format!("no {key} in {status}"))
}

/// How a client stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Client {
    mac: String,
    known: bool,
    packets: u64,
}

/// All clients but the flooder.
fn clients(agent: &Agent) -> Result<Vec<Client>> {
    let document = agent.json(&["clients"])?;
    let clients = document["clients"].as_array().context("no clients")?;
    let one = |client: &Value| Client {
        mac: client["mac"].as_str().unwrap_or("?").to_owned(),
        known: client["known"] == true,
        packets: client["packets"].as_u64().unwrap_or(0),
    };
    let mut clients: Vec<_> = clients.iter().map(one).filter(|one| one.mac != FLOODER.to_string()).collect();
    clients.sort();
    Ok(clients)
}

/// Waits until the data plane has said what became of every quarantine.
fn in_data_plane(agent: &Agent) -> Result<()> {
    wait::until("the quarantine in the data plane", DEADLINE, || {
        let quarantines = agent.quarantines()?;
        Ok(!quarantines.is_empty() && quarantines.iter().all(|one| !one.outcomes.is_empty()))
    })
}

/// A host with two interfaces that can be guarded.
struct Host(Netns);

impl Host {
    fn new() -> Result<Self> {
        let netns = Netns::new("host")?;
        link::add(&netns, "up0", "peer0")?;
        link::add(&netns, "up1", "peer1")?;
        Ok(Self(netns))
    }

    /// Exactly these interfaces are guarded.
    fn guards(&self, expected: &[&str]) -> Result<()> {
        let guarded = guarded(&self.0)?;
        ensure!(guarded == expected, "{guarded:?} are guarded, expected: {expected:?}");
        Ok(())
    }
}
