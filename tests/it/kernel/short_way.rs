//! What a CPU remembers, so that a flood costs little, changes no verdict and no count.
//!
//! The same frames go through two guards. In front of each frame, the second one gets a frame of another port that takes the
//! place of the first one among the ports last seen: so it goes the whole way every time.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use dhcp_guard::dataplane::{PortSpec, Snapshot, Spec, load::slot_of};
use dhcp_guard_common::{
    layout::FOREVER,
    verdict::{Note, Reason},
};
use libtest_mimic::Trial;
use tests::{
    bench::machine::Cpus,
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    orders::{on_port, whole_port},
    packets::{Tag, discover, offer, solicit},
};

use super::{
    KERNEL, burst_only, key, note, reason,
    shapes::{relay_forward, relayed, spoofed},
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: the short way for random MACs changes nothing", KERNEL, || same(|port| port)),
        trial("kernel: nor on a port that drops foreign hardware addresses", KERNEL, || {
            same(|port| PortSpec { drop_chaddr_mismatch: true, ..port })
        }),
        trial("kernel: nor on a port that is only watched", KERNEL, || same(|port| PortSpec { monitor: true, ..port })),
        trial("kernel: a rule that comes while the short way is open is seen at once", KERNEL, rule_while_open),
        trial("kernel: random MACs on a muted port take nobody's memos", KERNEL, memos_are_free),
        trial("kernel: VLANs without a port are counted for every packet", KERNEL, unknown_vlan_each_time),
        trial("kernel: foreign hardware addresses are not charged to a client over its limit", KERNEL, foreign_chaddr),
    ]
}

/// A VLAN whose port has the place of the untagged one.
const SAME_PLACE: u16 = 8;
const KNOWN: Mac = Mac([2, 0, 0, 0, 7, 1]);
const ALLOWED: Mac = Mac([2, 0, 0, 0, 7, 2]);
const MUTED: Mac = Mac([2, 0, 0, 0, 7, 3]);
const LOUD: Mac = Mac([2, 0, 0, 0, 7, 4]);

/// Everybody that the short way must let by: before the port's budgets are spent, among many, and after.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = vec![discover(LOUD).bytes(); 30];
    let (link, peer) = (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    for machine in 0..400 {
        let mac = Mac::machine(machine);
        frames.push(match machine % 4 {
            0 => solicit(mac).bytes(),
            1 => spoofed(mac, Mac::machine(9999)).bytes(),
            _ => discover(mac).bytes(),
        });
        if machine % 10 == 0 {
            frames.extend([KNOWN, ALLOWED, MUTED, LOUD].map(|mac| discover(mac).bytes()));
            frames.push(offer(mac, KNOWN, [10, 0, 0, 9].into()).bytes());
            frames.push(relayed(MUTED, [10, 0, 0, 9].into(), mac).bytes());
            frames.push(relay_forward(mac, link, Mac::machine(machine + 1000), peer).bytes());
            frames.push(discover(Mac([3, 0, 0, 0, 0, 1])).bytes());
            // Seen before, with and without an entry.
            frames.extend([0, machine / 2].map(|machine| discover(Mac::machine(machine)).bytes()));
        }
    }
    frames
}

/// Everything that is counted on the port, in order.
#[derive(Debug, PartialEq)]
struct Counted {
    reasons: Vec<u64>,
    messages: Vec<u64>,
    notes: Vec<u64>,
    clients: BTreeMap<(u64, u64), (bool, u64, u64, u64)>,
    distinct: bool,
}

impl Counted {
    fn of(snapshot: &Snapshot) -> Self {
        let slot = slot_of(0) as usize;
        let counters = &snapshot.ports[slot];
        let clients = snapshot.clients.iter().filter(|client| client.key.slot() == slot_of(0));
        Self {
            reasons: counters.reasons.into(),
            messages: counters.messages.into(),
            notes: counters.notes.into(),
            clients: clients
                .map(|client| {
                    let state = client.state;
                    ((state.relay, state.client), (client.known, state.packets, state.excess, state.own_excess))
                })
                .collect(),
            distinct: snapshot.distinct[slot].is_some_and(|macs| (300..600).contains(&macs)),
        }
    }
}

fn a_spec(change: impl Fn(PortSpec) -> PortSpec) -> Spec {
    let first = PortSpec {
        // Three quarters of what is above the first packet are a whole number: nothing comes back within a second.
        strangers: burst_only(201),
        new_clients: burst_only(20),
        client_v4: burst_only(10),
        client_v6: burst_only(10),
        ..port(0, 0)
    };
    let mut spec = spec(vec![change(first), port(SAME_PLACE, 0)]);
    spec.known_clients = vec![(port(0, 0).key, KNOWN.0)];
    spec.allowed_clients = vec![(port(0, 0).key, ALLOWED.0)];
    spec
}

/// What becomes of all frames, and how they are counted.
///
/// No limit here gives a packet back within the first second, and the frames take a tenth of that: a machine that is too
/// busy for it is given more tries.
fn results(spec: &Spec, whole_way: bool) -> Result<(Vec<Fate>, Counted)> {
    let elsewhere = discover(Mac::machine(5000)).tagged(&[Tag::c(SAME_PLACE)]).bytes();
    let frames = frames();
    for _ in 0..20 {
        let mut guard = GuardRun::new(spec)?;
        guard.mute(on_port(0, MUTED), FOREVER)?;
        let mut fates = Vec::new();
        let start = Instant::now();
        for frame in &frames {
            if whole_way {
                guard.send(&elsewhere)?;
            }
            fates.push(guard.send(frame)?);
        }
        if start.elapsed() < Duration::from_millis(950) {
            return Ok((fates, Counted::of(&guard.snapshot()?)));
        }
    }
    bail!("this machine is too busy: {} frames took more than a second, twenty times", frames.len())
}

fn same(change: impl Fn(PortSpec) -> PortSpec) -> Result<()> {
    let spec = a_spec(change);
    // On one CPU: each has a memory of its own.
    let cpus = Cpus::current()?;
    cpus.last().keep_to()?;
    let results = results(&spec, false).and_then(|short| Ok((short, results(&spec, true)?)));
    cpus.keep_to()?;
    let (short, whole) = results?;
    let differ = short.0.iter().zip(&whole.0).position(|(short, whole)| short != whole);
    ensure!(differ.is_none(), "frame {differ:?} has another fate on the short way");
    ensure!(short.1 == whole.1, "the short way counts {:#?}, the whole way {:#?}", short.1, whole.1);
    ensure!(short.1.distinct, "and everybody is marked");
    Ok(())
}

fn rule_while_open() -> Result<()> {
    let mut guard = GuardRun::new(&a_spec(|port| port))?;
    guard.send_all(&frames())?;
    let newcomer = Mac::machine(3000);
    ensure!(guard.send(&discover(newcomer).bytes())? == Fate::Dropped, "the share is spent");
    guard.allow(on_port(0, newcomer), FOREVER)?;
    ensure!(guard.send(&discover(newcomer).bytes())? == Fate::Passed, "it is allowed from now on");
    guard.plane().add_known(key(0, Mac::machine(3001)))?;
    ensure!(guard.send(&discover(Mac::machine(3001)).bytes())? == Fate::Passed, "it is known from now on");
    guard.mute(whole_port(0), FOREVER)?;
    let before = reason(&guard.snapshot()?, 0, Reason::DropQuarantine);
    for machine in 4000..4100 {
        ensure!(guard.send(&discover(Mac::machine(machine)).bytes())? == Fate::Dropped, "the port is muted");
    }
    let muted = reason(&guard.snapshot()?, 0, Reason::DropQuarantine) - before;
    ensure!(muted == 100, "{muted} of 100 are counted as quarantine");
    guard.release(whole_port(0))?;
    ensure!(guard.send(&discover(Mac::machine(3001)).bytes())? == Fate::Passed, "and not any more");
    Ok(())
}

/// More MACs than a CPU has memos, on a port in quarantine; afterwards somebody else's flood is still answered by one.
fn memos_are_free() -> Result<()> {
    let other = PortSpec { client_v4: burst_only(1), ..port(SAME_PLACE, 0) };
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), other]))?;
    guard.mute(whole_port(0), FOREVER)?;
    guard.send_all(&super::discovers(0..3000))?;
    let flood = discover(LOUD).tagged(&[Tag::c(SAME_PLACE)]).bytes();
    guard.repeat(&flood, 100)?;
    let taken = guard.memos()?.into_iter().filter(|memo| memo.pending > 0).collect::<Vec<_>>();
    ensure!(taken.len() == 1 && taken[0].client == key(1, LOUD).0, "{} memos are in use", taken.len());
    Ok(())
}

fn unknown_vlan_each_time() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(1), ..port(0, 0) }]))?;
    guard.repeat(&discover(LOUD).tagged(&[Tag::c(99)]).bytes(), 50)?;
    let snapshot = guard.snapshot()?;
    ensure!(note(&snapshot, 0, Note::UnknownVlan) == 50, "{} of 50", note(&snapshot, 0, Note::UnknownVlan));
    ensure!(reason(&snapshot, 0, Reason::DropClientLimit) >= 48, "most of them were over the limit");
    Ok(())
}

fn foreign_chaddr() -> Result<()> {
    let strict = PortSpec { client_v4: burst_only(1), drop_chaddr_mismatch: true, ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![strict]))?;
    guard.repeat(&discover(LOUD).bytes(), 20)?;
    guard.repeat(&spoofed(LOUD, Mac::machine(1)).bytes(), 30)?;
    let snapshot = guard.snapshot()?;
    let dropped = reason(&snapshot, 0, Reason::DropChaddrMismatch);
    ensure!(dropped == 30, "{dropped} of 30 were dropped for their hardware address");
    ensure!(super::counts(&snapshot, 0, LOUD).0 == 20, "and none of them is the client's");
    Ok(())
}
