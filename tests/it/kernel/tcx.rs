//! What is different where the network stack begins: tags beside the frame, and frames of which only the beginning can be
//! read at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dhcp_guard::{
    dataplane::{
        DataPlane, PortSpec, Snapshot,
        attach::Attachment,
        hook::{Facts, Hook},
        interface::Interface,
    },
    governor::{Sanction, Target},
};
use dhcp_guard_common::{
    layout::{FOREVER, PortKey},
    parse::Vlans,
    verdict::{MessageType, Note, Reason},
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{port, spec},
    harness::{Need, trial_once},
    mac::Mac,
    netns::Netns,
    orders::{Orders, whole_port},
    packet_ring::PacketRing,
    packet_socket::PacketSocket,
    packets::{Extension, Frame, Tag, discover, solicit},
    tally::Tally,
    wait,
};

use super::{burst_only, note, reason, shapes::arp};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial_once("kernel: TCX polices each VLAN apart though its tag is beside the frame", TCX, tags_beside),
        trial_once("kernel: TCX isolates a VLAN though its tag is beside the frame", TCX, isolated_beside),
        trial_once("kernel: TCX judges frames that hide behind their Ethernet header", TCX, in_pieces),
        trial_once("kernel: TCX drops what is over a limit, and passes the rest on", TALLY, dropped_or_passed),
    ]
}

const TCX: &[Need] = &[Need::Root, Need::BpfObject, Need::Tcx];
const TALLY: &[Need] = &[Need::Root, Need::BpfObject, Need::Tcx, Need::Tool("nft")];
const GUARDED: &str = "guarded0";
const MACHINE: Mac = Mac([2, 0, 0, 0, 0, 7]);
const DEADLINE: Duration = Duration::from_secs(5);
/// The ports of the guarded interface, by place.
const STACKS: [(u16, u16); 3] = [(0, 0), (100, 0), (100, 20)];

/// A host with one guarded interface, and a machine at the other end of it.
struct Host {
    _attachment: Attachment,
    plane: DataPlane,
    epoch: Instant,
    netns: Netns,
    machine: Netns,
}

impl Host {
    fn new(limits: PortSpec) -> Result<Self> {
        let (netns, machine) = (Netns::new("host")?, Netns::new("machine")?);
        netns.ip(&format!("link add {GUARDED} type veth peer name nic netns {}\n", machine.path()))?;
        machine.ip("link set nic up\n")?;
        netns.ip(&format!("link set {GUARDED} up\n"))?;
        let ifindex = netns.ifindex(GUARDED)?;
        let stack = |(outer, inner)| PortSpec { key: PortKey::new(ifindex, Vlans { outer, inner }), ..limits };
        let mut plane = DataPlane::load(&spec(STACKS.map(stack).into()))?;
        let facts = Facts { has_tcx: true, ..Facts::default() };
        let interface = Interface { name: GUARDED.to_owned(), ifindex, up: true, facts, ..Interface::default() };
        let attachment = netns.run(|| plane.attach(interface, Hook::Tcx))??;
        Ok(Self { _attachment: attachment, plane, epoch: Instant::now(), netns, machine })
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        Ok(self.plane.snapshot(self.epoch)?)
    }

    /// Waits until each port has so many packets of strangers that passed.
    fn wait_for(&mut self, expected: [u64; 3]) -> Result<()> {
        let mut passed = [0; 3];
        let outcome = wait::until("packets on their ports", DEADLINE, || {
            let snapshot = self.snapshot()?;
            passed = [0, 1, 2].map(|place| reason(&snapshot, place, Reason::PassStranger));
            Ok(passed == expected)
        });
        outcome.map_err(|error| error.context(format!("{passed:?} passed on the ports, expected {expected:?}")))
    }
}

fn with_tags(frame: &Frame) -> [Vec<u8>; 4] {
    [&[][..], &[Tag::c(100)], &[Tag::s(100), Tag::c(20)], &[Tag::c(0), Tag::c(100)]]
        .map(|tags| frame.clone().tagged(tags).bytes())
}

/// The kernel takes the outermost tag out of each frame before TCX sees it, as a card with `rx-vlan-offload` does.
fn tags_beside() -> Result<()> {
    let mut host = Host::new(port(0, 0))?;
    let socket = PacketSocket::open(&host.machine, "nic")?;
    for frame in with_tags(&discover(MACHINE)).iter().chain(&with_tags(&solicit(MACHINE))) {
        socket.send(frame)?;
    }
    // Three tags are not looked under.
    socket.send(&discover(MACHINE).tagged(&[Tag::s(100), Tag::c(20), Tag::c(30)]).bytes())?;
    socket.send(&discover(MACHINE).bytes())?;
    host.wait_for([3, 4, 2])
}

fn isolated_beside() -> Result<()> {
    let mut host = Host::new(port(0, 0))?;
    Orders::default().impose(&mut host.plane, Target::one(whole_port(2)), Sanction::Isolate, FOREVER)?;
    let socket = PacketSocket::open(&host.machine, "nic")?;
    let tagged = |tags: &[[u8; 4]]| {
        let frame = arp(MACHINE);
        [&frame[..12], tags.as_flattened(), &frame[12..]].concat()
    };
    let (outer, inner) = ([0x88, 0xa8, 0, 100], [0x81, 0, 0, 20]);
    for tags in [&[][..], &[outer], &[outer, inner], &[outer, inner, inner]] {
        socket.send(&tagged(tags))?;
    }
    socket.send(&discover(MACHINE).bytes())?;
    host.wait_for([1, 0, 0])?;
    let snapshot = host.snapshot()?;
    let isolated = [0, 1, 2].map(|place| note(&snapshot, place, Note::IsolatedFrame));
    ensure!(isolated == [0, 0, 2], "isolated frames of the ports: {isolated:?}");
    Ok(())
}

/// A sender may decide how much of a frame can be read without asking the kernel: here 14 bytes.
fn in_pieces() -> Result<()> {
    let mut host = Host::new(port(0, 0))?;
    let mut ring = PacketRing::open(&host.machine, "nic")?;
    let extended = solicit(MACHINE).with_extensions(&[Extension::HopByHop(8)]);
    for frame in [discover(MACHINE), solicit(MACHINE), extended] {
        with_tags(&frame).iter().try_for_each(|frame| ring.send(frame))?;
    }
    ring.send(&arp(MACHINE))?;
    host.wait_for([3, 6, 3])?;
    let snapshot = host.snapshot()?;
    // The types are read from what lies furthest behind.
    let of_type = |kind: MessageType| snapshot.ports.iter().map(|port| port.messages[kind.index()]).sum::<u64>();
    let types = (of_type(MessageType::Discover), of_type(MessageType::V6Solicit));
    ensure!(types == (4, 8), "DISCOVERs and Solicits: {types:?}");
    Ok(())
}

fn dropped_or_passed() -> Result<()> {
    let mut host = Host::new(PortSpec { client_v4: burst_only(2), ..port(0, 0) })?;
    // It stands behind TCX.
    let behind = Tally::start(host.netns.clone(), GUARDED)?;
    let mut ring = PacketRing::open(&host.machine, "nic")?;
    let frame = discover(MACHINE).bytes();
    (0..10).try_for_each(|_| ring.send(&frame))?;
    ring.send(&arp(MACHINE))?;
    host.wait_for([2, 0, 0])?;
    let snapshot = host.snapshot()?;
    let dropped = reason(&snapshot, 0, Reason::DropClientLimit);
    ensure!(dropped == 8, "{dropped} of 10 frames were dropped");
    let passed = behind.counts()?;
    ensure!((passed.of(MACHINE), passed.frames >= 3) == (2, true), "behind the guard: {passed:?}");
    Ok(())
}
