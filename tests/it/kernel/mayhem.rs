//! Random everything: whatever comes, everything is accounted for.

use std::{collections::HashMap, net::Ipv4Addr, thread, time::Instant};

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::{PortSpec, Snapshot, Spec, load::slot_of};
use dhcp_guard_common::{
    layout::FOREVER,
    verdict::{MessageType, Note, Reason},
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    orders::{on_port, whole_port},
    packets::{Frame, TYPE_IN_MESSAGE, Tag, XID_IN_MESSAGE, discover, offer, solicit},
};

use super::{
    KERNEL, burst_only, counts, expect, newcomers, note, refill,
    shapes::{advertise, arp, name_query, relayed, spoofed},
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: of random frames every one is accounted for", KERNEL, || mayhem(0x5eed_0001)),
        trial("kernel: of other random frames, too", KERNEL, || mayhem(0x5eed_0002)),
    ]
}

const FRAMES: usize = 12_000;
const KNOWN: Mac = Mac([2, 0, 0, 0, 7, 7]);
const MUTED: Mac = Mac([2, 0, 0, 0, 8, 8]);
const ALLOWED: Mac = Mac([2, 0, 0, 0, 9, 9]);
/// Limits of each port, and the newcomers' entries that it may make at once.
const STRANGERS: u32 = 200;
const NEW_CLIENTS: u32 = 100;

/// Places in the policy.
const DEFAULT: usize = 0;
const MONITORED: usize = 2;
const TRUSTED: usize = 3;
const MUTED_PORT: usize = 4;

fn ports() -> Vec<PortSpec> {
    let limits = |outer, inner| PortSpec {
        strangers: burst_only(STRANGERS),
        new_clients: burst_only(NEW_CLIENTS),
        discover: Some(burst_only(500)),
        client_v4: burst_only(6),
        client_v6: burst_only(6),
        drop_chaddr_mismatch: outer == 100,
        ..port(outer, inner)
    };
    vec![
        limits(0, 0),
        limits(100, 20),
        PortSpec { monitor: true, ..limits(200, 0) },
        PortSpec { trusted: true, total: burst_only(300), ..limits(300, 0) },
        limits(400, 0),
    ]
}

fn all_rules() -> Spec {
    let mut spec = spec(ports());
    spec.policy.host.limit = Some((burst_only(2500), burst_only(1500)));
    spec.policy.host.drop_rogue_servers = true;
    spec.known_clients = vec![(ports()[DEFAULT].key, KNOWN.0)];
    spec.allowed_clients = ports().iter().map(|port| (port.key, ALLOWED.0)).collect();
    spec
}

/// xorshift64*: the same frames for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 20) % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn mac(&mut self) -> Mac {
        let [a, b, c, d, e, ..] = self.next().to_le_bytes();
        match self.below(10) {
            // Anything, also what nobody can have.
            0 => Mac([a, b, c, d, e, 1]),
            1 => self.one_of(&[MUTED, ALLOWED, Mac([0; 6]), Mac::BROADCAST]),
            2..=4 => Mac::machine(self.below(8) as usize),
            _ => Mac([0x0a, a, b, c, d, e]),
        }
    }

    fn tags(&mut self) -> Vec<Tag> {
        match self.below(8) {
            0 => vec![Tag::s(100), Tag::c(20)],
            1 => vec![Tag::c(200)],
            2 => vec![Tag::c(300)],
            3 => vec![Tag::c(400)],
            4 => vec![Tag::c(1 + self.below(4094) as u16)],
            5 => vec![Tag::s(1 + self.below(4094) as u16), Tag::c(1 + self.below(4094) as u16)],
            _ => vec![],
        }
    }

    /// A frame, and whether it is DHCP.
    fn frame(&mut self) -> (Vec<u8>, bool) {
        let (mac, other) = (self.mac(), self.mac());
        let gateway = Ipv4Addr::new(10, 0, 0, 1 + self.below(3) as u8);
        let (mut frame, is_dhcp): (Frame, bool) = match self.below(12) {
            0 => return (arp(mac), false),
            1 => (name_query(mac), false),
            2 => (offer(mac, other, [10, 0, 0, 9].into()), true),
            3 => (advertise(mac), true),
            4 => (spoofed(mac, other), true),
            5 => (relayed(mac, gateway, other), true),
            6 | 7 => (solicit(mac), true),
            _ => (discover(mac), true),
        };
        if is_dhcp && frame.payload.len() > TYPE_IN_MESSAGE {
            frame.payload[TYPE_IN_MESSAGE] = self.below(20) as u8;
            frame.payload[XID_IN_MESSAGE..][..4].copy_from_slice(&self.next().to_le_bytes()[..4]);
        } else if is_dhcp {
            frame.payload[0] = self.one_of(&[frame.payload[0], 0, 3, 5, 6, 8, 11, 13, 14, 255]);
        }
        (frame.tagged(&self.tags()).bytes(), is_dhcp)
    }
}

/// What was sent and what became of it.
#[derive(Default)]
struct Sent {
    dhcp: u64,
    passed_dhcp: u64,
    known: u64,
    isolated: u64,
}

fn mayhem(seed: u64) -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&all_rules())?;
    for place in 0..ports().len() {
        guard.isolate(on_port(place, MUTED), FOREVER)?;
    }
    guard.mute(whole_port(MUTED_PORT), FOREVER)?;
    let sent = send_all(&mut guard, &mut Random(seed))?;
    let snapshot = guard.snapshot()?;
    all_are_accounted_for(&snapshot, &sent)?;
    verdicts_are_where_they_belong(&snapshot)?;
    clients_add_up(&snapshot)?;
    entries_are_bounded(&snapshot, start)?;
    let known = counts(&snapshot, DEFAULT, KNOWN);
    ensure!(known == (sent.known, 0, 0), "the known client lost something: {known:?} of {}", sent.known);
    let events = guard.events().len() as u64;
    let cpus = thread::available_parallelism()?.get() as u64;
    ensure!(events <= cpus * (128 + 64 * refill(start)), "{events} events");
    Ok(())
}

/// A known client keeps to its limit in the midst of it, with a packet now and then.
fn send_all(guard: &mut GuardRun, random: &mut Random) -> Result<Sent> {
    let mut sent = Sent::default();
    for round in 0..FRAMES {
        let (frame, is_dhcp) = random.frame();
        let passed = guard.send_all(&[frame])? as u64;
        if is_dhcp {
            sent.dhcp += 1;
            sent.passed_dhcp += passed;
        } else {
            sent.isolated += 1 - passed;
        }
        if round % (FRAMES / 6) == 0 {
            let passed = guard.send_all(&[discover(KNOWN).bytes()])? as u64;
            ensure!(passed == 1, "a packet of the known client was dropped in round {round}");
            sent.known += 1;
            sent.dhcp += 1;
            sent.passed_dhcp += 1;
        }
    }
    Ok(sent)
}

fn all_are_accounted_for(snapshot: &Snapshot, sent: &Sent) -> Result<()> {
    let mut passed = 0;
    let mut all = 0;
    for (slot, port) in snapshot.ports.iter().enumerate() {
        let reasons: u64 = port.reasons.iter().sum();
        let messages: u64 = port.messages.iter().sum();
        ensure!(reasons == messages, "slot {slot}: {reasons} reasons and {messages} types");
        all += reasons;
        passed += Reason::ALL.iter().filter(|r| !r.is_drop()).map(|r| port.reasons[r.index()]).sum::<u64>();
    }
    ensure!(all == sent.dhcp, "{all} of {} are counted", sent.dhcp);
    ensure!(passed == sent.passed_dhcp, "{passed} are counted as passed, {} did", sent.passed_dhcp);
    let isolated: u64 = (0..ports().len()).map(|place| note(snapshot, place, Note::IsolatedFrame)).sum();
    ensure!(isolated == sent.isolated, "{isolated} isolated frames are counted of {}", sent.isolated);
    Ok(())
}

fn sum(snapshot: &Snapshot, which: impl Fn(usize, Reason) -> bool) -> u64 {
    let of = |place: usize| {
        let port = &snapshot.ports[slot_of(place) as usize];
        Reason::ALL.iter().filter(|r| which(place, **r)).map(|r| port.reasons[r.index()]).sum::<u64>()
    };
    (0..ports().len()).map(of).sum()
}

fn verdicts_are_where_they_belong(snapshot: &Snapshot) -> Result<()> {
    let wrong = sum(snapshot, |place, reason| match place {
        MONITORED => reason.is_drop(),
        TRUSTED => !matches!(reason, Reason::PassTrusted | Reason::DropPortLimit | Reason::PassAllowed),
        MUTED_PORT => !matches!(reason, Reason::DropQuarantine | Reason::DropMalformed | Reason::PassAllowed),
        _ => reason.is_would_drop() || reason == Reason::PassTrusted,
    });
    ensure!(wrong == 0, "{wrong} verdicts that these ports cannot have");
    // If one of these never came, the frames are not random enough to prove anything.
    for reason in [
        Reason::PassAllowed,
        Reason::PassKnown,
        Reason::PassStranger,
        Reason::PassTrusted,
        Reason::DropQuarantine,
        Reason::DropClientLimit,
        Reason::DropStrangerShare,
        Reason::DropPortLimit,
        Reason::DropRogueServer,
        Reason::DropChaddrMismatch,
        Reason::DropMalformed,
        Reason::WouldDropClientLimit,
        Reason::WouldDropStrangerShare,
        Reason::WouldDropQuarantine,
        Reason::WouldDropRogueServer,
        Reason::WouldDropMalformed,
    ] {
        ensure!(sum(snapshot, |_, r| r == reason) > 0, "no frame was {}", reason.name());
    }
    Ok(())
}

/// Each packet of a client, on a port where clients are counted, is counted for its client or as nobody's.
fn clients_add_up(snapshot: &Snapshot) -> Result<()> {
    let mut by_slot: HashMap<u32, u64> = HashMap::new();
    for client in &snapshot.clients {
        *by_slot.entry(client.key.slot()).or_default() += client.state.packets;
    }
    ensure!(snapshot.troubles.insert_failed == 0, "one CPU at a time: {:?}", snapshot.troubles);
    let of_clients = |reason: Reason| {
        let verdicts = [Reason::PassKnown, Reason::PassStranger];
        let limits = [
            Reason::DropClientLimit,
            Reason::DropStrangerShare,
            Reason::DropDiscoverShare,
            Reason::DropPortLimit,
            Reason::DropHostLimit,
        ];
        verdicts.contains(&reason) || limits.iter().any(|limit| reason == *limit || reason == limit.monitored())
    };
    let judged = sum(snapshot, |place, reason| place != TRUSTED && of_clients(reason));
    let muted = sum(snapshot, |_, r| matches!(r, Reason::DropQuarantine | Reason::WouldDropQuarantine));
    let tracked: u64 = by_slot.values().sum();
    let counted = tracked + snapshot.troubles.untracked;
    // A muted sender's messages to clients are nobody's.
    expect("packets of clients", counted, &(judged..=judged + muted))?;
    let to_clients = [MessageType::Offer, MessageType::V6Advertise];
    let replies: u64 =
        snapshot.ports.iter().map(|p| to_clients.iter().map(|t| p.messages[t.index()]).sum::<u64>()).sum();
    ensure!(replies > 0, "no server's message came");
    Ok(())
}

fn entries_are_bounded(snapshot: &Snapshot, start: Instant) -> Result<()> {
    for place in [0, 1, 2] {
        let strangers = snapshot.clients.iter().filter(|c| !c.known && c.key.slot() == slot_of(place)).count() as u64;
        let budgets = u64::from(STRANGERS) + u64::from(NEW_CLIENTS) + 2 * refill(start);
        ensure!(strangers <= budgets, "{strangers} entries of budgets for {budgets} on port {place}");
        ensure!(place != 0 || strangers >= newcomers(STRANGERS), "{strangers} entries on the busiest port");
    }
    ensure!(!snapshot.clients.iter().any(|c| c.key.slot() == slot_of(TRUSTED)), "nobody is tracked on a trusted port");
    Ok(())
}
