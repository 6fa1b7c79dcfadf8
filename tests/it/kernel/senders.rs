//! Who sends: other hardware addresses than the frame's, addresses that nobody can have, clients behind relays.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::{PortSpec, Snapshot, snapshot::ClientSample};
use dhcp_guard_common::{
    message::Sender,
    verdict::{Note, Reason},
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    packets::{discover, offer, solicit},
};

use super::{
    KERNEL, about, burst_only, counts, expect, note, reason,
    shapes::{relay_forward, relayed, spoofed},
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: another hardware address than the frame's is counted, and passes", KERNEL, mismatch_is_noted),
        trial("kernel: another hardware address than the frame's is dropped where wanted", KERNEL, mismatch_is_dropped),
        trial("kernel: a mismatch is dropped for nobody behind a relay", KERNEL, mismatch_behind_relay),
        trial("kernel: a client that names others' hardware addresses has one limit", KERNEL, mismatch_is_one_client),
        trial("kernel: sources that nobody has are dropped and get no entry", KERNEL, malformed),
        trial("kernel: sources that nobody has pass a monitored port", KERNEL, malformed_monitored),
        trial("kernel: DHCPv4 clients behind relays have limits of their own, relays have none", KERNEL, relays_v4),
        trial("kernel: DHCPv6 clients behind relays have limits of their own, relays have none", KERNEL, relays_v6),
    ]
}

const RELAY: Mac = Mac([2, 0, 0, 0x77, 0, 1]);

fn mismatch_is_noted() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    let (own, foreign) = (Mac::machine(0), spoofed(Mac::machine(1), Mac::machine(2)));
    guard.repeat(&discover(own).bytes(), 10)?;
    ensure!(guard.repeat(&foreign.bytes(), 20)?.0 == Fate::Passed, "it passes by default");
    let snapshot = guard.snapshot()?;
    ensure!(note(&snapshot, 0, Note::ChaddrMismatch) == 20, "20 of 30 name another address");
    ensure!(counts(&snapshot, 0, Mac::machine(1)).0 == 20, "the frame's source is the client");
    ensure!(counts(&snapshot, 0, Mac::machine(2)).0 == 0, "who is named is not");
    Ok(())
}

fn mismatch_is_dropped() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { drop_chaddr_mismatch: true, ..port(0, 0) }]))?;
    let foreign = spoofed(Mac::machine(1), Mac::machine(2)).bytes();
    ensure!(guard.repeat(&foreign, 20)?.0 == Fate::Dropped, "a mismatch passed");
    for honest in [discover(Mac::machine(0)), solicit(Mac::machine(0))] {
        ensure!(guard.send(&honest.bytes())? == Fate::Passed, "an honest client was dropped");
    }
    let reply = offer(Mac::machine(3), Mac::machine(0), [10, 0, 0, 9].into()).bytes();
    ensure!(guard.send(&reply)? == Fate::Passed, "a server names its client");
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::DropChaddrMismatch) == 20, "dropped for another reason");
    ensure!(note(&snapshot, 0, Note::ChaddrMismatch) == 20, "and not counted as such");
    ensure!(counts(&snapshot, 0, Mac::machine(1)) == (0, 0, 0), "what is forged is nobody's");
    Ok(())
}

fn mismatch_behind_relay() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { drop_chaddr_mismatch: true, ..port(0, 0) }]))?;
    let frame = relayed(RELAY, [10, 0, 0, 1].into(), Mac::machine(0)).bytes();
    ensure!(guard.repeat(&frame, 20)?.0 == Fate::Passed, "a relay sends for others");
    let snapshot = guard.snapshot()?;
    ensure!(note(&snapshot, 0, Note::ChaddrMismatch) == 0, "no mismatch");
    ensure!(note(&snapshot, 0, Note::Relayed) == 20, "counted as relayed");
    Ok(())
}

fn mismatch_is_one_client() -> Result<()> {
    let start = std::time::Instant::now();
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(5), ..port(0, 0) }]))?;
    let frames: Vec<_> = (10..210).map(|i| spoofed(Mac::machine(0), Mac::machine(i)).bytes()).collect();
    let passed = guard.send_all(&frames)? as u64;
    expect("packets of one source", passed, &about(5u32, start))?;
    ensure!(note(&guard.snapshot()?, 0, Note::ChaddrMismatch) == 200, "counted also where the memo answers");
    Ok(())
}

/// All of these are from group addresses, or from nobody.
fn malformed_sources() -> [Mac; 4] {
    [Mac([0; 6]), Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1]), Mac([3, 0, 0, 0, 0, 0])]
}

fn malformed() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    for mac in malformed_sources() {
        for frame in [discover(mac), solicit(mac), offer(mac, Mac::machine(0), [10, 0, 0, 9].into())] {
            ensure!(guard.repeat(&frame.bytes(), 10)?.0 == Fate::Dropped, "{mac} passed");
        }
    }
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::DropMalformed) == 120, "counted as such");
    ensure!(snapshot.clients.is_empty(), "{:?} have an entry", snapshot.clients);
    ensure!(snapshot.troubles.untracked == 0, "nobody's packets are nobody's");
    ensure!(guard.send(&discover(Mac([2, 0, 0, 0, 0, 0])).bytes())? == Fate::Passed, "an address that one can have");
    Ok(())
}

fn malformed_monitored() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { monitor: true, ..port(0, 0) }]))?;
    for mac in malformed_sources() {
        ensure!(guard.repeat(&discover(mac).bytes(), 10)?.0 == Fate::Passed, "monitor mode never drops");
    }
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::WouldDropMalformed) == 40, "counted as such");
    ensure!(snapshot.clients.is_empty(), "{:?} have an entry", snapshot.clients);
    Ok(())
}

/// Each frame is sent 20 times, more than its client's limit of 5 admits; all of them must be clients of their own.
fn each_has_its_limit(guard: &mut GuardRun, frames: &[Vec<u8>]) -> Result<()> {
    for (place, frame) in frames.iter().enumerate() {
        let start = std::time::Instant::now();
        let passed = guard.send_all(&vec![frame.clone(); 20])? as u64;
        expect(&format!("packets of client {place}"), passed, &about(5u32, start))?;
    }
    let snapshot = guard.snapshot()?;
    ensure!(snapshot.clients.len() == frames.len(), "{} entries for {} clients", snapshot.clients.len(), frames.len());
    ensure!(snapshot.clients.iter().all(|client| client.state.packets == 20), "{:?}", snapshot.clients);
    ensure!(note(&snapshot, 0, Note::Relayed) == 20 * frames.len() as u64, "counted as relayed, also by the memo");
    ensure!(counts(&snapshot, 0, RELAY) == (0, 0, 0), "the relay itself is no client");
    Ok(())
}

fn strict() -> Result<GuardRun> {
    GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(5), client_v6: burst_only(5), ..port(0, 0) }]))
}

/// The one client with these addresses.
fn behind(snapshot: &Snapshot, is_relay: impl Fn(u64) -> bool, client: u64) -> Result<ClientSample> {
    let found: Vec<_> =
        snapshot.clients.iter().filter(|c| c.state.client == client && is_relay(c.state.relay)).collect();
    ensure!(found.len() == 1, "{} entries have these addresses", found.len());
    found.first().map(|c| **c).context("nobody")
}

/// An address as it stands in memory.
fn in_memory(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}

fn relays_v4() -> Result<()> {
    let gateways: [Ipv4Addr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
    let clients = [Mac::machine(0), Mac::machine(1)];
    let mut guard = strict()?;
    let frames: Vec<_> =
        gateways.iter().flat_map(|gateway| clients.map(|client| relayed(RELAY, *gateway, client).bytes())).collect();
    each_has_its_limit(&mut guard, &frames)?;
    let snapshot = guard.snapshot()?;
    for gateway in gateways {
        for mac in clients {
            let relay = Sender::RELAY_V4 | in_memory(&gateway.octets());
            let client = behind(&snapshot, |r| r == relay, in_memory(&mac.0))?;
            ensure!(client.key.is_relayed(), "the key says that it is behind a relay");
        }
    }
    ensure!(guard.send(&discover(clients[0]).bytes())? == Fate::Passed, "a client without the relay is another one");
    Ok(())
}

fn relays_v6() -> Result<()> {
    let links: [Ipv6Addr; 2] = ["2001:db8:1::1".parse()?, "2001:db8:2::1".parse()?];
    let peers: [Ipv6Addr; 2] = ["fe80::1:2".parse()?, "fe80::1:3".parse()?];
    let mut guard = strict()?;
    let frames: Vec<_> = links
        .iter()
        .flat_map(|link| peers.map(|peer| relay_forward(RELAY, *link, Mac::machine(0), peer).bytes()))
        .collect();
    each_has_its_limit(&mut guard, &frames)?;
    let snapshot = guard.snapshot()?;
    let mut relays: Vec<u64> = snapshot.clients.iter().map(|client| client.state.relay).collect();
    relays.sort_unstable();
    relays.dedup();
    ensure!(relays.len() == 2 && relays.iter().all(|r| r & Sender::RELAY_V6 != 0), "two relays: {relays:x?}");
    for relay in relays {
        for peer in peers {
            let client = behind(&snapshot, |r| r == relay, in_memory(&peer.octets()[8..]))?;
            ensure!(client.key.is_relayed(), "the key says that it is behind a relay");
        }
    }
    Ok(())
}
