//! The guard beside its nearest peer, what the kernel has without it: a filter of tc (flower) with a policer (act_police) on
//! the way in of the same interface, in the same lab, under the same floods, with the same limits.
//!
//! **What is the same.** One machine whose MAC an administrator has listed: both let its burst and its rate through and no
//! more, and touch neither other frames of that machine nor another machine's DHCP. The same function asks both.
//!
//! **What differs, and what the guard is for.** A policer has the one bucket of its filter. MACs that nobody listed can only
//! share one, so whoever makes up MACs takes it from everybody, also from a client that keeps to its limit. The guard has a
//! bucket for each client without a rule for it, and known clients do not compete with strangers. A client that is not known
//! does, and its first packet may be lost behind the guard, too; that is not tested here.
//!
//! A policer's bucket of packets begins empty (seen on Linux 6.1 and 7.3): what a machine sends right after the filter is set
//! is dropped, however little it is. The guard's begins full. Where the bound is asked for, the policer is given the time to
//! fill it.
//!
//! **What is not compared.** The cost of a packet; a policer for each MAC, kept by a script; nftables. Rates are low, because
//! a kernel that has these modules here is an emulated one.
//!
//! What is about tc runs once, since there is no hook of ours; the guard's half runs at both hooks.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use tests::{
    agent::Agent,
    harness::{Need, trial, trial_once},
    limit::Limit,
    mac::Mac,
    packet_socket::PacketSocket,
    packets::{Frame, discover},
    tally::Counts,
    topology::{Injection, Lab, Layout},
    trickle::{Source, Trickle},
    wait,
};

/// What a [`Lab`] needs, and tc with its modules.
const FLOWER: &[Need] = &[Need::Lab, Need::Tool("tc"), Need::Flower];

const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);
/// Where both of them are.
const UPLINK: &str = "uplink0";
/// Of a client. Not the guard's default of 2 a second, with which a policer's bucket fills in ten seconds.
const CLIENT_LIMIT: Limit = Limit { rate: 10, burst: 20 };
/// Of a port of the class `vm`.
const PORT_LIMIT: Limit = Limit { rate: 10, burst: 50 };
/// Ports of UDP that have nothing to do with DHCP.
const DISCARD: (u16, u16) = (9, 9);
const SOON: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_once("peer: a policer for its MAC bounds one machine's flood, and nothing else", FLOWER, || {
            one_machine(&|lab: &Lab| {
                police(lab, &format!("src_mac {FLOODER}"), CLIENT_LIMIT)?;
                // why: its bucket begins empty.
                thread::sleep(CLIENT_LIMIT.fills_in());
                Ok(())
            })
        }),
        trial("peer: the guard bounds it as a policer does, without a rule for its MAC", Need::LAB, || {
            let Limit { rate, burst } = CLIENT_LIMIT;
            let limits = format!("[limits]\nclient_rate_pps = {rate}\nclient_burst = {burst}\n");
            one_machine(&|lab: &Lab| Agent::start(&lab.host, &[UPLINK], &limits))
        }),
        trial_once("peer: a policer for everybody starves a client in a flood of random MACs", FLOWER, starved),
        trial("peer: the guard lets a known client through in the same flood", Need::LAB, not_starved),
    ]
}

/// Limits DHCP requests that a filter of tc matches. The answer is nothing to be kept: the filter goes with the lab.
fn police(lab: &Lab, which: &str, Limit { rate, burst }: Limit) -> Result<()> {
    lab.host.exec(&["tc", "qdisc", "add", "dev", UPLINK, "clsact"])?;
    let filter = format!(
        "filter add dev {UPLINK} ingress protocol ip flower {which} ip_proto udp dst_port 67 \
         action police pkts_rate {rate} pkts_burst {burst} conform-exceed drop/pass"
    );
    lab.host.exec_with_input(&["tc", "-batch", "-"], &format!("{filter}\n")).map(drop)
}

/// Sends frames on a guarded interface, one at a time.
fn send_each(from: &Injection, frame: &Frame, count: u64, period: Duration) -> Result<()> {
    let (socket, bytes) = (PacketSocket::open(&from.netns, &from.interface)?, frame.bytes());
    for _ in 0..count {
        socket.send(&bytes)?;
        // why: the pace of the frames.
        thread::sleep(period);
    }
    Ok(())
}

/// One machine floods; another machine, and all that is not DHCP, come through.
fn one_machine<T>(limit: &dyn Fn(&Lab) -> Result<T>) -> Result<()> {
    const RATE_PPS: u64 = 500;
    const TIME: Duration = Duration::from_secs(4);
    const OTHERS: u64 = 200;
    const REQUESTS: u64 = 10;
    let lab = Lab::new(Layout::Uplink, 1)?;
    let (from, other) = (lab.injection(0), lab.machines[0].mac);
    let _limited = limit(&lab)?;
    let start = Instant::now();
    let flood = Trickle::start_at(&from, Source::One(FLOODER), RATE_PPS, TIME)?;
    send_each(&from, &discover(other), REQUESTS, Duration::from_millis(100))?;
    let not_dhcp = Frame::broadcast_v4(FLOODER, DISCARD, vec![0; 100]);
    send_each(&from, &not_dhcp, OTHERS, Duration::from_millis(5))?;
    wait::until("the flood's time", TIME * 2, || Ok(start.elapsed() >= TIME))?;
    let sent = flood.stop();
    let arrived = |counts: &Counts| counts.frames - counts.requests >= OTHERS && counts.of(other) >= REQUESTS;
    wait::until("all frames of others at the server", SOON, || Ok(arrived(&lab.server.counts()?)))?;
    let (counts, elapsed) = (lab.server.counts()?, start.elapsed());
    let (passed, allowed) = (counts.of(FLOODER), CLIENT_LIMIT.allowed(elapsed));
    ensure!(sent >= 20 * CLIENT_LIMIT.burst, "a flood of {sent} frames is none");
    ensure!(passed <= allowed, "{passed} of {sent} frames of the flood passed, {allowed} may in {elapsed:?}");
    ensure!(passed >= CLIENT_LIMIT.burst, "{passed} of {sent} frames passed: not even the burst");
    ensure!(counts.of(other) == REQUESTS, "{} of {REQUESTS} of another machine passed", counts.of(other));
    println!("{passed} of {sent} frames passed in {elapsed:.1?}, {allowed} may");
    Ok(())
}

/// Packets of the client in [`random_macs`], five a second: the burst of its limit has room for them.
const OF_CLIENT: u64 = 15;

/// A client that keeps to its limit, in a flood of MACs that nobody has seen before: how many of its packets pass.
fn random_macs<T>(limit: &dyn Fn(&Lab) -> Result<T>) -> Result<u64> {
    const RATE_PPS: u64 = 1000;
    let lab = Lab::new(Layout::Uplink, 1)?;
    let (from, client) = (lab.injection(0), lab.machines[0].mac);
    let _limited = limit(&lab)?;
    let start = Instant::now();
    let flood = Trickle::start_at(&from, Source::Random, RATE_PPS, SOON * 2)?;
    let spent = || Ok(lab.received(UPLINK)?.frames >= 2 * PORT_LIMIT.burst);
    wait::until("twice as much of the flood as a burst", SOON, spent)?;
    send_each(&from, &discover(client), OF_CLIENT, Duration::from_millis(200))?;
    let sent = flood.stop();
    let (counts, elapsed) = (lab.server.counts()?, start.elapsed());
    let (passed, of_client) = (counts.requests, counts.of(client));
    ensure!(sent >= 2 * PORT_LIMIT.allowed(elapsed), "{sent} frames in {elapsed:?} are no flood");
    ensure!(passed <= PORT_LIMIT.allowed(elapsed), "{passed} of {sent} frames passed in {elapsed:?}");
    println!(
        "{of_client} of {OF_CLIENT} packets of the client passed, and {passed} of {sent} in all, in {elapsed:.1?}"
    );
    Ok(of_client)
}

fn starved() -> Result<()> {
    let passed = random_macs(&|lab: &Lab| police(lab, "", PORT_LIMIT))?;
    // Who gets the next token is a matter of luck, and of the moments in which a busy machine has the flood wait.
    ensure!(passed <= OF_CLIENT * 2 / 3, "{passed} of {OF_CLIENT} packets of the client passed the policer");
    Ok(())
}

fn not_starved() -> Result<()> {
    let guard = |lab: &Lab| {
        let known = format!("[[known_client]]\ninterface = \"{UPLINK}\"\nmac = \"{}\"\n", lab.machines[0].mac);
        let port = format!("[[port]]\ninterface = \"{UPLINK}\"\nclass = \"vm\"\n");
        Agent::start(&lab.host, &[UPLINK], &(port + &known))
    };
    let passed = random_macs(&guard)?;
    ensure!(passed == OF_CLIENT, "{passed} of {OF_CLIENT} packets of a known client passed the guard");
    Ok(())
}
