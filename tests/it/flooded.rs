//! The data plane under floods at the generator's full rate: what it promises must hold throughout, not only afterwards.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::{HostSpec, Policy, PortSpec, Snapshot, Spec};
use dhcp_guard_common::{
    layout::{ClientKey, PortKey},
    parse::Vlans,
    verdict::Reason,
};
use libtest_mimic::Trial;
use tests::{
    flood::{Limits, Mode, Traffic},
    guard_run::{self, Fate, count},
    harness::{Need, trial},
    mac::Mac,
    packets::{Tag, discover},
    wire::{self, GuardedWire},
};

const NEEDS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("ethtool")];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flooded: 1,000 known clients lose nothing in 30 s of random MACs at full rate", NEEDS, known_clients),
        trial("flooded: a policy is switched 1,000 times, and each packet meets exactly one", NEEDS, switched_policies),
        trial("flooded: random everything on random VLANs is accounted for, frame by frame", NEEDS, random_everything),
    ]
}

const SEED: u64 = 0x7769_7265;
/// The default limits of a port's strangers and of a client.
const STRANGERS: (u32, u32) = (25, 125);
const CLIENT: (u32, u32) = (2, 20);

fn total(snapshot: &Snapshot) -> u64 {
    snapshot.ports.iter().flat_map(|port| port.reasons).sum()
}

fn known_clients() -> Result<()> {
    const CLIENTS: usize = 1000;
    const FLOOD: Duration = Duration::from_secs(30);
    /// Each client sends one packet in two seconds: a quarter of what it may.
    const PERIOD: Duration = Duration::from_millis(2);
    let mut wire = GuardedWire::new(|ifindex| {
        let limits = PortSpec { total: (2000, 2000), strangers: STRANGERS, client_v4: CLIENT, ..wire::port(ifindex) };
        let port = PortSpec { new_clients: (128, 128), ..limits };
        let host = HostSpec { limit: Some(((2000, 2000), STRANGERS)), drop_rogue_servers: false };
        let known_clients = (0..CLIENTS).map(|i| (port.key, Mac::machine(i).0)).collect();
        Spec { policy: Policy { ports: vec![port], host }, known_clients, ..guard_run::spec(vec![]) }
    })?;
    // The last client has spent its burst when the flood begins. That must not be forgotten, either.
    let spent = discover(Mac::machine(CLIENTS - 1)).bytes();
    for _ in 0..CLIENT.1 {
        ensure!(wire.judge(&spent)? == Fate::Passed, "a burst passes");
    }
    let frames: Vec<_> = (0..CLIENTS - 1).map(|i| discover(Mac::machine(i)).bytes()).collect();
    let flood = wire.flood(Mode::Random { seed: SEED }, Limits::time(FLOOD * 2))?;
    ensure!((0..5).any(|_| wire.judge(&spent).is_ok_and(|fate| fate == Fate::Dropped)), "its limiter was forgotten");

    let start = Instant::now();
    let (mut sent, mut refused) = (vec![0_u64; frames.len()], 0);
    let mut due = 0;
    while start.elapsed() < FLOOD {
        if start.elapsed() < PERIOD * due {
            // The rate of the clients is the point.
            std::thread::yield_now();
            continue;
        }
        let client = due as usize % frames.len();
        refused += usize::from(wire.judge(&frames[client])? == Fate::Dropped);
        sent[client] += 1;
        due += 1;
    }
    let flood = flood.stop()?;
    ensure!(refused == 0, "{refused} of {due} packets of known clients were dropped");
    check_known(&mut wire, &sent)?;
    let snapshot = wire.snapshot()?;
    let dropped = count(&snapshot, 1, Reason::DropStrangerShare);
    ensure!(dropped > 1_000_000, "only {dropped} frames of {} of the flood were stopped", flood.sent);
    let strangers = snapshot.clients.iter().filter(|client| !client.known).count() as u64;
    let budget = 125 + 128 + (25 + 128) * (start.elapsed().as_secs() + 1);
    ensure!(strangers <= budget, "{strangers} strangers have entries, {budget} are in the budgets");
    println!("{due} packets of {CLIENTS} known clients passed beside {dropped} dropped ones; {strangers} strangers");
    Ok(())
}

/// Every known client is known, with exactly its own packets, none of them over a limit.
fn check_known(wire: &mut GuardedWire, sent: &[u64]) -> Result<()> {
    let snapshot = wire.snapshot()?;
    for (i, sent) in sent.iter().enumerate() {
        let key = ClientKey::from_mac(1, Mac::machine(i).0);
        let client = snapshot.clients.iter().find(|client| client.key == key && client.known);
        let state = client.map(|client| client.state).unwrap_or_default();
        ensure!(client.is_some(), "known client {i} is not known any more");
        ensure!(state.packets == *sent && state.excess == 0, "client {i} sent {sent}: {state:?}");
        ensure!(state.limiter_v4 > 0 && state.first_seen > 0, "client {i} lost its limiter: {state:?}");
    }
    Ok(())
}

/// Two policies under which a packet of the flood has different reasons, and halves of which make reasons that neither
/// has: the one watches and has no room for the host, the other enforces and has none for the port.
fn switched_policies() -> Result<()> {
    const SWITCHES: usize = 1000;
    // The same rate as what is full, so that the limiters, which go on from policy to policy, mean the same in both.
    const ROOM: (u32, u32) = (1, 100_000);
    const FULL: (u32, u32) = (1, 1);
    let mut wire = GuardedWire::new(|ifindex| guard_run::spec(vec![wire::port(ifindex)]))?;
    let port = |total, monitor| PortSpec { total, monitor, strangers: ROOM, new_clients: FULL, ..wire.port() };
    let host = HostSpec { limit: Some((FULL, ROOM)), drop_rogue_servers: false };
    let watched = Policy { ports: vec![port(ROOM, true)], host };
    let enforced = Policy { ports: vec![port(FULL, false)], host: HostSpec::default() };
    wire.plane().apply(&watched)?;

    let before = wire.received()?;
    let start = Instant::now();
    let flood = wire.flood(Mode::Random { seed: SEED }, Limits::time(Duration::from_secs(120)))?;
    for switch in 0..SWITCHES {
        wire.plane().apply(if switch % 2 == 0 { &enforced } else { &watched })?;
    }
    flood.stop()?;
    let snapshot = wire.snapshot()?;
    let received = wire.received()? - before;
    let of = |reason| count(&snapshot, 1, reason);
    let passed = of(Reason::PassStranger);
    let (of_watched, of_enforced) = (of(Reason::WouldDropHostLimit), of(Reason::DropPortLimit));
    ensure!(total(&snapshot) == received, "{} verdicts on {received} frames", total(&snapshot));
    ensure!(
        of_watched + of_enforced + passed == received,
        "{received} frames: {of_watched} met one policy, {of_enforced} the other, {passed} passed; some met halves of \
         both: {:?}",
        snapshot.ports[1].reasons
    );
    ensure!(of_watched > 10_000 && of_enforced > 10_000, "both were in force: {of_watched}, {of_enforced}");
    ensure!(passed <= 4 + 2 * start.elapsed().as_secs(), "{passed} passed, which both limit to one a second");
    println!(
        "{SWITCHES} switches in {:.1} s: {of_watched} frames met one policy, {of_enforced} the other, {passed} passed",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn random_everything() -> Result<()> {
    const FRAMES: u64 = 5_000_000;
    let mut wire = GuardedWire::new(|ifindex| {
        let limits =
            PortSpec { strangers: STRANGERS, new_clients: (128, 128), client_v4: CLIENT, ..wire::port(ifindex) };
        let vlan = |outer| PortSpec { key: PortKey::new(ifindex, Vlans { outer, inner: 0 }), ..limits };
        guard_run::spec((0..50).map(vlan).collect())
    })?;
    let before = wire.received()?;
    let start = Instant::now();
    let tags = [Tag::s(1), Tag::c(1)];
    for tags in [&tags[..1], &tags[..]] {
        let traffic = Traffic::from(Mode::RandomAll { seed: SEED }).tagged(tags).with_random_vlans();
        wire.flood(traffic, Limits::packets(FRAMES / 2))?.wait()?;
    }
    let seconds = start.elapsed().as_secs() + 1;
    let snapshot = wire.snapshot()?;
    let received = wire.received()? - before;
    ensure!(total(&snapshot) == received, "{} verdicts on {received} frames", total(&snapshot));
    let messages: u64 = snapshot.ports.iter().flat_map(|port| port.messages).sum();
    ensure!(messages == received, "{messages} types of {received} frames");
    let passed: u64 = (1..snapshot.ports.len()).map(|slot| count(&snapshot, slot, Reason::PassStranger)).sum();
    let (rate, burst) = (u64::from(STRANGERS.0), u64::from(STRANGERS.1));
    ensure!(passed <= 50 * (burst + rate * seconds), "{passed} frames passed 50 ports in {seconds} s");
    let strangers = snapshot.clients.len() as u64;
    let budget = 50 * (burst + 128 + (rate + 128) * seconds);
    ensure!(strangers <= budget, "{strangers} entries, {budget} in the budgets");
    let events = wire.plane().take_events().map_or(0, |mut ring| std::iter::from_fn(|| ring.next().map(drop)).count());
    // A port over its limit, and a VLAN without a port, once each.
    ensure!(events <= 101, "{events} events");
    println!("{received} frames on random VLANs: {passed} passed, {strangers} entries, {events} events");
    Ok(())
}
