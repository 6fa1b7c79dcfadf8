//! VLANs as networks have them: tags of the kernel's own bridges and 802.1q devices, beside the frames for the hooks of the
//! network stack, in them for XDP.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::hook::Hook;
use libtest_mimic::Trial;
use serde_json::Value;
use tests::{
    agent::Agent,
    client::Outcome,
    harness::{Need, trial, trial_at, trial_once},
    limit::Limit,
    link::Kind,
    mac::Mac,
    packet_socket::PacketSocket,
    packets::discover,
    program::current_hook,
    trickle::{Source, Trickle},
    trunk::{Host, Trunk},
    wait,
};

const NEEDS: &[Need] = &[Need::Lab, Need::Link(Kind::Vlan)];
const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);
/// Hundreds of times a client's limit, and little enough for a machine that is emulated.
const FLOOD_PPS: u64 = 1_500;
/// Long enough for the rate to count, and not the burst alone.
const FLOOD_TIME: Duration = Duration::from_secs(3);
const FLOOD_ENDS: Duration = Duration::from_secs(60);
const LEASE_DEADLINE: Duration = Duration::from_secs(20);
/// The agent reads its maps once a second.
const SEEN_DEADLINE: Duration = Duration::from_secs(5);
const PORTS: &str =
    "[[port]]\ninterface = \"uplink0\"\nvlans = [100]\n[[port]]\ninterface = \"uplink0\"\nvlans = [200]\n";

pub(crate) fn trials() -> Vec<Trial> {
    const FLOOD: &str = "trunk: a flood in one VLAN is its port's, and clients in both get leases";
    const STACKED: &str = "trunk: two tags of stacked devices are the port's of both";
    const DEVICE: &str = "trunk: a VLAN's device is a port of its own";
    vec![
        trial(FLOOD, NEEDS, flood_in_one_vlan),
        trial_at(Hook::Clsact, FLOOD, NEEDS, flood_in_one_vlan),
        trial_once("trunk: where tags are taken off, the guard goes where they are seen", NEEDS, right_hook),
        trial(STACKED, NEEDS, stacked_tags),
        trial_at(Hook::Clsact, STACKED, NEEDS, stacked_tags),
        trial(DEVICE, NEEDS, vlan_device),
        trial_at(Hook::Clsact, DEVICE, NEEDS, vlan_device),
    ]
}

/// A trunk whose tags are where the test's hook sees them.
fn trunk(host: Host, machines: &[u16]) -> Result<Trunk> {
    let trunk = Trunk::new(host, machines)?;
    if current_hook() == Some(Hook::Xdp) {
        trunk.leave_tags_in_frames()?;
    }
    Ok(trunk)
}

/// Packets that a client sent for its lease, which must be of this network (10.NUMBER.0.0/16).
fn sent_for_lease(outcome: &Outcome, network: u8) -> Result<u64> {
    let lease = outcome.lease().with_context(|| format!("no lease in 10.{network}: {outcome:?}"))?;
    let [_, second, ..] = lease.address.octets();
    ensure!(second == network, "a lease of another VLAN: {}, not 10.{network}", lease.address);
    Ok(u64::from(lease.discovers + lease.requests))
}

/// Packets of the ports, by name, and how many of them were dropped.
fn counted(agent: &Agent) -> Result<Vec<(String, u64, u64)>> {
    let answer = agent.json(&["ports"])?;
    let one =
        |port: &Value| Some((port["port"].as_str()?.to_owned(), port["packets"].as_u64()?, port["dropped"].as_u64()?));
    let ports = answer["ports"].as_array().into_iter().flatten();
    let mut ports: Vec<_> = ports.map(one).collect::<Option<_>>().with_context(|| format!("not ports: {answer}"))?;
    ports.sort();
    Ok(ports)
}

/// Waits until just these are the counts of just these ports.
fn wait_for_counts(agent: &Agent, expected: &[(&str, u64, u64)]) -> Result<()> {
    let mut seen = Vec::new();
    let counted = wait::until("the right counts of all ports", SEEN_DEADLINE, || {
        seen = counted(agent)?;
        Ok(seen.iter().map(|(name, packets, dropped)| (name.as_str(), *packets, *dropped)).eq(expected.iter().copied()))
    });
    counted.with_context(|| format!("{expected:?} is expected, there is {seen:?}\n{}", agent.log()))
}

/// Packets of one client that may pass in some time, and those that its limit has room for at least.
fn may_pass(elapsed: Duration) -> std::ops::RangeInclusive<u64> {
    Limit::CLIENT.burst + FLOOD_TIME.as_secs()..=Limit::CLIENT.allowed(elapsed)
}

/// The mode of the only interface.
fn mode(agent: &Agent) -> Result<String> {
    let status = agent.json(&["status"])?;
    Ok(status["interfaces"][0]["mode"].as_str().unwrap_or_default().to_owned())
}

fn flood_in_one_vlan() -> Result<()> {
    let trunk = trunk(Host::Bridge, &[100, 200, 100])?;
    let agent = Agent::start(&trunk.host, &["uplink0"], PORTS)?;
    let start = Instant::now();
    let flood = Trickle::start_at(&trunk.injection(0), Source::One(FLOODER), FLOOD_PPS, FLOOD_ENDS)?;
    let outcomes = trunk.get_leases(1..3, LEASE_DEADLINE)?;
    wait::until("the flooder among the offenders", FLOOD_TIME * 3, || Ok(!agent.offenders()?.is_empty()))?;
    let offenders = agent.offenders()?;
    wait::until("the flood's time", FLOOD_TIME * 2, || Ok(start.elapsed() >= FLOOD_TIME))?;
    let sent = flood.stop();
    let elapsed = start.elapsed();

    let (in_200, in_100) = (sent_for_lease(&outcomes[0], 78)?, sent_for_lease(&outcomes[1], 77)?);
    let named: Vec<_> =
        offenders.iter().map(|one| (one["mac"].clone(), one["port"].clone(), one["vlans"].clone())).collect();
    let flooder = (Value::from(FLOODER.to_string()), Value::from("uplink0.100"), Value::from(vec![100]));
    ensure!(named == [flooder], "not the flooder alone, on its port: {named:?}");
    let at_server = trunk.server.counts()?;
    let passed = at_server.of(FLOODER);
    ensure!(may_pass(elapsed).contains(&passed), "{passed} of {sent} packets of the flood passed in {elapsed:?}");
    let (packets, requests) = (sent + in_100, at_server.requests);
    let dropped = packets.checked_sub(requests).with_context(|| format!("{requests} arrived, {packets} were sent"))?;
    wait_for_counts(&agent, &[("uplink0", 0, 0), ("uplink0.100", packets, dropped), ("uplink0.200", in_200, 0)])?;
    println!("{passed} of {sent} packets passed in {elapsed:.1?}");
    Ok(())
}

fn right_hook() -> Result<()> {
    let trunk = Trunk::new(Host::Bridge, &[100, 200])?;
    let agent = Agent::start(&trunk.host, &["uplink0"], PORTS)?;
    let mode = mode(&agent)?;
    ensure!(["tcx", "clsact"].contains(&mode.as_str()), "{mode}");
    let warnings = agent.warnings()?;
    ensure!(warnings.is_empty(), "nothing is wrong with it: {warnings:?}");
    let outcomes = trunk.get_leases(0..2, LEASE_DEADLINE)?;
    let (in_100, in_200) = (sent_for_lease(&outcomes[0], 77)?, sent_for_lease(&outcomes[1], 78)?);
    wait_for_counts(&agent, &[("uplink0", 0, 0), ("uplink0.100", in_100, 0), ("uplink0.200", in_200, 0)])
}

/// The outer tag is beside the frame for the hooks of the network stack, the inner one is in it.
fn stacked_tags() -> Result<()> {
    let trunk = trunk(Host::Bridge, &[100])?;
    trunk.fabric.ip("link add link fab-up name outer type vlan protocol 802.1ad id 10\n\
         link add link outer name inner type vlan id 20\n\
         link set outer up\n\
         link set inner up\n")?;
    let ports = [vec![10, 20], vec![20], vec![10]];
    let port = |vlans: &Vec<u16>| format!("[[port]]\ninterface = \"uplink0\"\nvlans = {vlans:?}\n");
    let agent = Agent::start(&trunk.host, &["uplink0"], &ports.iter().map(port).collect::<String>())?;
    for (device, packets) in [("inner", 3), ("outer", 2)] {
        let socket = PacketSocket::open(&trunk.fabric, device)?;
        (0..packets).try_for_each(|machine| socket.send(&discover(Mac::machine(machine)).bytes()))?;
    }
    let expected = [("uplink0", 0, 0), ("uplink0.10", 2, 0), ("uplink0.10.20", 3, 0), ("uplink0.20", 0, 0)];
    wait_for_counts(&agent, &expected)
}

/// Whoever has a bridge for each VLAN may guard one of them alone.
fn vlan_device() -> Result<()> {
    let trunk = trunk(Host::Devices, &[100, 200, 100])?;
    let agent = Agent::start(&trunk.host, &["uplink0.100"], "")?;
    let expected = match current_hook() {
        Some(Hook::Xdp) => "generic",
        Some(Hook::Clsact) => "clsact",
        _ => "tcx",
    };
    let mode = mode(&agent)?;
    ensure!(mode == expected, "{mode}, not {expected}");
    let start = Instant::now();
    let flood = Trickle::start_at(&trunk.injection(0), Source::One(FLOODER), FLOOD_PPS, FLOOD_ENDS)?;
    let outcomes = trunk.get_leases(1..3, LEASE_DEADLINE)?;
    wait::until("the flood's time", FLOOD_TIME * 2, || Ok(start.elapsed() >= FLOOD_TIME))?;
    let sent = flood.stop();
    let elapsed = start.elapsed();
    sent_for_lease(&outcomes[0], 78)?;
    let packets = sent + sent_for_lease(&outcomes[1], 77)?;
    let at_server = trunk.server.counts()?;
    let passed = at_server.of(FLOODER);
    ensure!(may_pass(elapsed).contains(&passed), "{passed} of {sent} packets of the flood passed in {elapsed:?}");
    let requests = at_server.requests;
    let dropped = packets.checked_sub(requests).with_context(|| format!("{requests} arrived, {packets} were sent"))?;
    wait_for_counts(&agent, &[("uplink0.100", packets, dropped)])
}
