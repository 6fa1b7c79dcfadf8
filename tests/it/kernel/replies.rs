//! Servers' messages on their way out: which are counted, for which port, and that nothing else comes of it.

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, Ipv6Addr},
    process::{ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use dhcp_guard::dataplane::{DataPlane, Error, PortSpec, hook::Hook, interface::Interface, load::slot_of, replies};
use dhcp_guard_common::{layout::PortKey, parse::Vlans};
use libtest_mimic::Trial;
use tests::{
    guard_run::{GuardRun, port, spec},
    harness::{Need, trial_once},
    link,
    mac::Mac,
    netns::Netns,
    packet_socket::PacketSocket,
    packets::{Extension, Frame, Tag, discover, offer, request, solicit},
    wait,
};

use super::{
    KERNEL,
    shapes::{advertise, arp, name_query, relay_forward, relay_reply, relayed, relayed_offer},
};

/// Those with an interface of their own, whose programs on the way out are asked for.
const TCX: &[Need] = &[Need::Root, Need::BpfObject, Need::Tcx];

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial_once(
            "kernel: servers' messages that leave are counted, to clients and to relays",
            KERNEL,
            replies_counted,
        ),
        trial_once("kernel: nothing else that leaves is counted", KERNEL, nothing_else),
        trial_once(
            "kernel: a reply is counted for the port of its VLANs, or for the default port",
            KERNEL,
            of_its_port,
        ),
        trial_once("kernel: replies cut short leave and are counted as far as they are replies", KERNEL, cut_short),
        trial_once("kernel: replies are not told where nobody sees them", KERNEL, not_told),
        trial_once("kernel: servers' messages that come in by trusted ports are counted", KERNEL, from_trusted),
        trial_once("kernel: replies through a real interface are counted, and arrive", TCX, real_interface),
        trial_once("kernel: replies under a tag beside the frame are counted for its port", TCX, tag_beside),
        trial_once("kernel: another program on the way out still gets its turn", TCX, others_run),
        trial_once("kernel: an interface is not watched twice, nor one that is gone", TCX, refusals),
        trial_once("kernel: nothing is left on the way out after its watcher, nor after SIGKILL", TCX, detached),
    ]
}

const SERVER: Mac = Mac([2, 0, 0, 0, 9, 9]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

fn to_clients() -> Vec<Frame> {
    vec![
        offer(SERVER, CLIENT, ADDRESS),
        offer(SERVER, CLIENT, ADDRESS).with_ip_options(&[1; 8]),
        advertise(SERVER),
        advertise(SERVER).with_extensions(&[Extension::HopByHop(8), Extension::Destination(8)]),
    ]
}

fn replies() -> Vec<Frame> {
    [to_clients(), vec![relayed_offer(SERVER, ADDRESS, CLIENT), relay_reply(SERVER)]].concat()
}

fn others() -> Vec<Vec<u8>> {
    let (link, peer) = (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let frames = [
        discover(CLIENT),
        request(CLIENT, ADDRESS),
        solicit(CLIENT),
        relayed(SERVER, ADDRESS, CLIENT),
        relay_forward(SERVER, link, CLIENT, peer),
        name_query(CLIENT),
    ];
    frames.iter().map(Frame::bytes).chain([arp(CLIENT)]).collect()
}

/// The ports of the tests: untagged, one tag, two tags.
fn tagged_ports(ifindex: u32) -> Vec<PortSpec> {
    let of = |outer, inner| PortSpec { key: PortKey::new(ifindex, Vlans { outer, inner }), ..port(0, 0) };
    vec![of(0, 0), of(100, 0), of(100, 20)]
}

/// Replies counted for the port at each place.
fn counted(plane: &mut DataPlane) -> Result<Vec<Option<u64>>> {
    let snapshot = plane.snapshot(Instant::now())?;
    Ok(snapshot.replies[slot_of(0) as usize..].to_vec())
}

fn expect_counted(guard: &mut GuardRun, expected: &[u64], what: &str) -> Result<()> {
    let counted = counted(guard.plane())?;
    let expected: Vec<_> = expected.iter().copied().map(Some).collect();
    ensure!(counted == expected, "{what}: {counted:?} are counted, not {expected:?}");
    Ok(())
}

fn replies_counted() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    let _watch = guard.watch_replies()?;
    expect_counted(&mut guard, &[0], "before")?;
    for (place, frame) in (1..).zip(replies()) {
        guard.send_out(&vec![frame.bytes(); 10])?;
        expect_counted(&mut guard, &[10 * place], &format!("{frame:?}"))?;
    }
    Ok(())
}

fn nothing_else() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    let _watch = guard.watch_replies()?;
    guard.send_out(&others())?;
    expect_counted(&mut guard, &[0], "others")?;
    let three_tags = replies().into_iter().map(|frame| frame.tagged(&[Tag::s(1), Tag::c(2), Tag::c(3)]).bytes());
    guard.send_out(&three_tags.collect::<Vec<_>>())?;
    expect_counted(&mut guard, &[0], "under three tags")
}

fn of_its_port() -> Result<()> {
    let mut guard = GuardRun::new(&spec(tagged_ports(tests::guard_run::IFINDEX)))?;
    let _watch = guard.watch_replies()?;
    let mut expected = [0; 3];
    let cases: [(&[Tag], usize); 7] = [
        (&[], 0),
        (&[Tag::c(100)], 1),
        (&[Tag::s(100), Tag::c(20)], 2),
        (&[Tag::c(0)], 0),
        (&[Tag::c(0), Tag::c(100)], 1),
        (&[Tag::c(999)], 0),
        (&[Tag::s(100), Tag::c(21)], 0),
    ];
    for (tags, place) in cases {
        for frame in replies() {
            guard.send_out(&[frame.tagged(tags).bytes()])?;
            expected[place] += 1;
            expect_counted(&mut guard, &expected, &format!("{tags:?}"))?;
        }
    }
    Ok(())
}

/// As XDP has it: a packet to a client's port is a reply, whatever is left of it. One to a server's port says so itself.
fn cut_short() -> Result<()> {
    const UDP: usize = 8;
    let cases =
        [(offer(SERVER, CLIENT, ADDRESS), 4), (advertise(SERVER), 4), (relayed_offer(SERVER, ADDRESS, CLIENT), 0)];
    for (frame, with_both_ports) in cases {
        let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
        let _watch = guard.watch_replies()?;
        let bytes = frame.bytes();
        let headers = bytes.len() - frame.payload.len();
        let cut = (headers - UDP..headers).map(|len| bytes[..len].to_vec()).collect::<Vec<_>>();
        guard.send_out(&cut)?;
        expect_counted(&mut guard, &[with_both_ports], "cut in the UDP header")?;
        guard.send_out(&[bytes[..=headers].to_vec()])?;
        expect_counted(&mut guard, &[with_both_ports + 1], "with one byte of the message")?;
    }
    Ok(())
}

fn not_told() -> Result<()> {
    let other_interface = PortSpec { key: PortKey::default_of(77), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), other_interface]))?;
    ensure!(counted(guard.plane())? == [None, None], "nobody sees them yet");
    let watch = guard.watch_replies()?;
    ensure!(counted(guard.plane())? == [Some(0), None], "the interface that is watched");
    guard.send_out(&[offer(SERVER, CLIENT, ADDRESS).bytes()])?;
    ensure!(counted(guard.plane())? == [Some(1), None], "and no other");
    drop(watch);
    ensure!(counted(guard.plane())? == [None, None], "nobody sees them any more");
    let _watch = guard.watch_replies()?;
    ensure!(counted(guard.plane())? == [Some(1), None], "seen again, and it goes on from there");
    Ok(())
}

fn from_trusted() -> Result<()> {
    let trusted = PortSpec { trusted: true, ..port(100, 0) };
    let spec = spec(vec![port(0, 0), trusted]);
    let mut guard = GuardRun::new(&spec)?;
    let under = |id, frames: Vec<Frame>| -> Vec<Vec<u8>> {
        frames.into_iter().map(|frame| frame.tagged(&[Tag::c(id)]).bytes()).collect()
    };
    let client = vec![discover(CLIENT), request(CLIENT, ADDRESS), solicit(CLIENT)];
    guard.send_all(&under(100, replies()))?;
    guard.send_all(&under(100, client))?;
    ensure!(guard.snapshot()?.server_messages == 6, "{} of 6", guard.snapshot()?.server_messages);
    guard.send_all(&under(0, replies()))?;
    ensure!(guard.snapshot()?.server_messages == 6, "a rogue server's do not count");
    let mut nobody_trusted = spec.policy;
    nobody_trusted.ports[1].trusted = false;
    guard.plane().apply(&nobody_trusted)?;
    ensure!(guard.snapshot()?.server_messages == 0, "a port that is not trusted any more");
    Ok(())
}

/// A guarded interface with a machine at the other end, and a bridge with a server behind it.
struct Host {
    plane: DataPlane,
    interface: Interface,
    netns: Netns,
    machine: Netns,
    server: Netns,
}

const GUARDED: &str = "guarded0";

impl Host {
    fn new() -> Result<Self> {
        let (netns, machine, server) = (Netns::new("host")?, Netns::new("machine")?, Netns::new("server")?);
        netns.ip(&format!(
            "link add {GUARDED} type veth peer name nic netns {}\nlink add inner0 type veth peer name nic netns {}\n\
             link add br0 type bridge\nlink set {GUARDED} master br0\nlink set inner0 master br0\n\
             link set br0 up\nlink set {GUARDED} up\nlink set inner0 up\n",
            machine.path(),
            server.path()
        ))?;
        machine.ip("link set nic up\n")?;
        server.ip("link set nic up\n")?;
        link::wait_for_ports(&netns, 2)?;
        let ifindex = netns.ifindex(GUARDED)?;
        let plane = DataPlane::load(&spec(tagged_ports(ifindex)))?;
        let interface = Interface::bare(GUARDED, ifindex);
        Ok(Self { plane, interface, netns, machine, server })
    }

    fn watch(&mut self) -> Result<replies::ReplyWatch> {
        let Self { plane, interface, netns, .. } = self;
        Ok(netns.run(move || plane.watch_replies(interface, Hook::Auto))??)
    }

    /// Names of the programs on the way out, the first one first.
    fn programs(&self) -> Result<Vec<String>> {
        programs_on(&self.netns)
    }
}

fn programs_on(netns: &Netns) -> Result<Vec<String>> {
    let (_, programs) = netns.run(|| SchedClassifier::query_tcx(GUARDED, TcAttachType::Egress))??;
    Ok(programs.iter().filter_map(|program| program.name_as_str().map(str::to_owned)).collect())
}

fn real_interface() -> Result<()> {
    let mut host = Host::new()?;
    let _watch = host.watch()?;
    ensure!(host.programs()? == [replies::PROGRAM], "{:?}", host.programs()?);
    let socket = PacketSocket::open(&host.netns, GUARDED)?;
    let before = link::received(&host.machine, "nic")?.frames;
    let frames = [&[][..], &[Tag::c(100)], &[Tag::s(100), Tag::c(20)]];
    for frame in frames.iter().flat_map(|tags| replies().into_iter().map(|frame| frame.tagged(tags).bytes())) {
        socket.send(&frame)?;
    }
    others().iter().try_for_each(|frame| socket.send(frame))?;
    ensure!(counted(&mut host.plane)? == [Some(6); 3], "{:?}", counted(&mut host.plane)?);
    let arrived = || Ok(link::received(&host.machine, "nic")?.frames >= before + 18 + 7);
    wait::until("the frames at the other end", Duration::from_secs(5), arrived)
}

/// What a bridge passes on has its tag beside it: the kernel took it out of the frame on its way in.
fn tag_beside() -> Result<()> {
    let mut host = Host::new()?;
    let _watch = host.watch()?;
    let socket = PacketSocket::open(&host.server, "nic")?;
    for tags in [&[][..], &[Tag::c(100)], &[Tag::s(100), Tag::c(20)], &[Tag::c(999)]] {
        for frame in replies() {
            socket.send(&frame.tagged(tags).bytes())?;
        }
    }
    others().iter().try_for_each(|frame| socket.send(frame))?;
    let plane = &mut host.plane;
    wait::until("twelve replies of the default port, six of each other one", Duration::from_secs(5), || {
        Ok(counted(plane)? == [Some(12), Some(6), Some(6)])
    })
}

/// The other program is one of our own, of another agent: each of them gets in front of the other.
fn others_run() -> Result<()> {
    let mut host = Host::new()?;
    let watch = host.watch()?;
    let mut other = DataPlane::load(&spec(tagged_ports(host.interface.ifindex)))?;
    let interface = host.interface.clone();
    let other_watch = host.netns.run(|| other.watch_replies(&interface, Hook::Auto))??;
    ensure!(host.programs()?.len() == 2, "{:?}", host.programs()?);
    let socket = PacketSocket::open(&host.netns, GUARDED)?;
    let frame = offer(SERVER, CLIENT, ADDRESS).bytes();
    socket.send(&frame)?;
    for plane in [&mut host.plane, &mut other] {
        ensure!(counted(plane)?[0] == Some(1), "one of two programs did not get its turn");
    }
    drop(other_watch);
    socket.send(&frame)?;
    ensure!(counted(&mut host.plane)?[0] == Some(2), "the one that is left goes on");
    drop(watch);
    ensure!(host.programs()?.is_empty(), "{:?}", host.programs()?);
    Ok(())
}

fn refusals() -> Result<()> {
    let mut host = Host::new()?;
    let _watch = host.watch()?;
    let twice = host.watch().err().and_then(|error| error.downcast::<Error>().ok());
    ensure!(matches!(twice, Some(Error::Replies { .. })), "watched twice: {twice:?}");
    host.netns.ip(&format!("link del {GUARDED}\n"))?;
    let gone = host.watch().err().and_then(|error| error.downcast::<Error>().ok());
    ensure!(matches!(gone, Some(Error::Replies { .. })), "gone: {gone:?}");
    Ok(())
}

/// Set for the process that [`detached`] kills.
pub(crate) const VICTIM: &str = "DHCP_GUARD_REPLIES_VICTIM";

/// Watches an interface, says so, and waits to be killed.
pub(crate) fn victim() -> ExitCode {
    let watch = || -> Result<()> {
        let netns = Netns::current()?;
        let ifindex = netns.ifindex(GUARDED)?;
        let mut plane = DataPlane::load(&spec(tagged_ports(ifindex)))?;
        let interface = Interface::bare(GUARDED, ifindex);
        let _watch = plane.watch_replies(&interface, Hook::Auto)?;
        println!("ready");
        loop {
            thread::park();
        }
    };
    if let Err(error) = watch() {
        eprintln!("{error:?}");
    }
    ExitCode::FAILURE
}

fn detached() -> Result<()> {
    let mut host = Host::new()?;
    let watch = host.watch()?;
    ensure!(host.programs()?.len() == 1, "it is there");
    drop(watch);
    ensure!(host.programs()?.is_empty(), "dropped, and still there");
    let mut command = host.netns.command(env::current_exe()?);
    let mut victim = command.env(VICTIM, "1").stdout(Stdio::piped()).spawn().context("cannot start a watcher")?;
    let mut line = String::new();
    BufReader::new(victim.stdout.take().context("no output")?).read_line(&mut line)?;
    let programs = host.programs();
    victim.kill()?;
    victim.wait()?;
    ensure!(line == "ready\n" && programs? == [replies::PROGRAM], "the watcher did not get ready: {line:?}");
    wait::until("the end of the killed watcher's program", Duration::from_secs(5), || Ok(host.programs()?.is_empty()))
}
