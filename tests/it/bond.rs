//! Bonds: what the guard knows of a client is the bond's, whichever member a frame comes in by.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::hook::Hook;
use libtest_mimic::Trial;
use tests::{
    agent::Agent,
    bond::{BOND, Bonded, Mode},
    client::leases,
    harness::{Need, trial, trial_at, trial_once},
    limit::Limit,
    link::{self, Kind},
    mac::Mac,
    packet_socket::PacketSocket,
    packets::discover,
    program::current_hook,
    trickle::{Source, Trickle},
    wait,
};

const NEEDS: &[Need] = &[Need::Lab, Need::Link(Kind::Bond)];
const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);
/// Hundreds of times a client's limit, and little enough for a machine that is emulated.
const FLOOD_PPS: u64 = 1_500;
const FLOOD_ENDS: Duration = Duration::from_secs(60);
const LEASE_DEADLINE: Duration = Duration::from_secs(20);
/// The agent reads its maps once a second.
const SEEN_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) fn trials() -> Vec<Trial> {
    const FAIL_OVER: &str =
        "bond: a flood is held to one limit, also when other members take over, and clients get leases";
    const MEMBER: &str = "bond: whoever guards a member guards what comes in by it";
    vec![
        trial(FAIL_OVER, NEEDS, fail_over),
        trial_at(Hook::Clsact, FAIL_OVER, NEEDS, fail_over),
        trial_once("bond: what comes in by several members at once is counted exactly", NEEDS, several_at_once),
        trial_once("bond: `auto` does not trust in native XDP, which would be the members'", NEEDS, not_in_the_driver),
        trial(MEMBER, NEEDS, member),
        trial_at(Hook::Clsact, MEMBER, NEEDS, member),
    ]
}

/// Packets and drops of the first port, which is the only one.
fn counted(agent: &Agent) -> Result<(u64, u64)> {
    let answer = agent.json(&["ports"])?;
    let number = |key: &str| answer["ports"][0][key].as_u64().with_context(|| format!("no {key} in {answer}"));
    Ok((number("packets")?, number("dropped")?))
}

fn mode(agent: &Agent) -> Result<String> {
    let status = agent.json(&["status"])?;
    Ok(status["interfaces"][0]["mode"].as_str().unwrap_or_default().to_owned())
}

/// How the hook that the test is about guards something that has no native XDP.
fn mode_without_driver() -> &'static str {
    match current_hook() {
        Some(Hook::Xdp) => "generic",
        Some(Hook::Clsact) => "clsact",
        _ => "tcx",
    }
}

fn one_lease(network: &Bonded, machine: usize) -> Result<()> {
    let outcomes = network.get_leases(machine..machine + 1, LEASE_DEADLINE)?;
    ensure!(leases(&outcomes).len() == 1, "{outcomes:?}");
    Ok(())
}

fn fail_over() -> Result<()> {
    let mut network = Bonded::new(Mode::ActiveBackup, 4)?;
    let agent = Agent::start(&network.host, &[BOND], "")?;
    let (mode, expected) = (mode(&agent)?, mode_without_driver());
    ensure!(mode == expected, "{mode}, not {expected}");
    let warned = agent.warnings()?.iter().any(|warning| warning.contains("in the drivers of its members"));
    ensure!(warned == (expected == "generic"), "{:?}", agent.warnings()?);

    let start = Instant::now();
    let flood = Trickle::start_at(&network.injection(0), Source::One(FLOODER), FLOOD_PPS, FLOOD_ENDS)?;
    one_lease(&network, 1)?;
    let mut seen = 0;
    // What comes in after each of them is the guard's, too: the second member was there when it was attached, the third was
    // not.
    for (machine, member) in [(2, "b1"), (3, "b2")] {
        if member == "b2" {
            network.add_member()?;
        }
        let active = network.fail_over()?;
        ensure!(active == member, "{active} has taken over, not {member}");
        let before = counted(&agent)?.0.max(seen);
        one_lease(&network, machine)?;
        wait::until("a thousand more packets of the flood", SEEN_DEADLINE, || {
            seen = counted(&agent)?.0;
            Ok(seen >= before + 1_000)
        })
        .with_context(|| format!("by {member}: {seen} packets, {before} before"))?;
    }
    let sent = flood.stop();
    let elapsed = start.elapsed();
    let passed = network.server.counts()?.of(FLOODER);
    let (least, most) = (20 + elapsed.as_secs(), Limit::CLIENT.allowed(elapsed));
    ensure!((least..=most).contains(&passed), "{passed} of {sent} passed in {elapsed:?}: not {least} to {most}");
    println!("{passed} of {sent} packets passed in {elapsed:.1?}");
    Ok(())
}

fn several_at_once() -> Result<()> {
    const MACHINES: usize = 4;
    const FRAMES: u64 = 150;
    let network = Bonded::new(Mode::Lacp, MACHINES)?;
    let agent = Agent::start(&network.host, &[BOND], "")?;
    let received = |member| link::received(&network.host, member);
    let before = [received("b0")?.frames, received("b1")?.frames];
    let start = Instant::now();
    for machine in 0..MACHINES {
        let from = network.injection(machine);
        let socket = PacketSocket::open(&from.netns, &from.interface)?;
        let frame = discover(Mac::machine(machine)).bytes();
        (0..FRAMES).try_for_each(|_| socket.send(&frame))?;
    }
    let by = [received("b0")?.frames - before[0], received("b1")?.frames - before[1]];
    let elapsed = start.elapsed();
    ensure!(by.iter().all(|frames| *frames >= FRAMES), "both members are to have a part: {by:?}");
    let at_server = network.server.counts()?;
    for machine in 0..MACHINES {
        let passed = at_server.of(Mac::machine(machine));
        ensure!(
            (20..=Limit::CLIENT.allowed(elapsed)).contains(&passed),
            "{passed} of machine {machine} passed in {elapsed:?}"
        );
    }
    let packets = FRAMES * MACHINES as u64;
    let expected = (packets, packets - at_server.requests);
    wait::until("all packets in the bond's counts", SEEN_DEADLINE, || Ok(counted(&agent)? == expected))
        .with_context(|| format!("{:?}, not {expected:?}", counted(&agent)))
}

/// All members leave tags in the frames and have native XDP, so the bond has, too; but it is not the bond's.
fn not_in_the_driver() -> Result<()> {
    let network = Bonded::new(Mode::ActiveBackup, 1)?;
    for interface in ["b0", "b1", BOND] {
        link::keep_vlan_tags(&network.host, interface)?;
    }
    let agent = Agent::start(&network.host, &[BOND], "")?;
    let mode = mode(&agent)?;
    ensure!(["tcx", "clsact"].contains(&mode.as_str()), "{mode}");
    let warnings = agent.warnings()?;
    ensure!(warnings.is_empty(), "nothing is wrong with it: {warnings:?}");
    one_lease(&network, 0)?;
    wait::until("two packets on the bond's port", SEEN_DEADLINE, || Ok(counted(&agent)?.0 >= 2))
}

fn member() -> Result<()> {
    let network = Bonded::new(Mode::ActiveBackup, 2)?;
    link::keep_vlan_tags(&network.host, "b0")?;
    let agent = Agent::start(&network.host, &["b0"], "")?;
    let expected = if current_hook() == Some(Hook::Xdp) { "native" } else { mode_without_driver() };
    let mode = mode(&agent)?;
    ensure!(mode == expected, "{mode}, not {expected}");
    let start = Instant::now();
    let flood = Trickle::start_at(&network.injection(0), Source::One(FLOODER), FLOOD_PPS, FLOOD_ENDS)?;
    one_lease(&network, 1)?;
    wait::until("two thousand packets", SEEN_DEADLINE * 2, || Ok(counted(&agent)?.0 >= 2_000))?;
    let sent = flood.stop();
    let elapsed = start.elapsed();
    let passed = network.server.counts()?.of(FLOODER);
    ensure!((20..=Limit::CLIENT.allowed(elapsed)).contains(&passed), "{passed} of {sent} passed in {elapsed:?}");
    Ok(())
}
