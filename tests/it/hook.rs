//! Which hook guards which interface, and that never two of them judge the same frames: where there is TCX. Before kernel 6.6
//! see [`crate::clsact`].

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, XdpMode, tc::TcAttachOptions};
use dhcp_guard::dataplane::{DataPlane, Spec, replies};
use libtest_mimic::Trial;
use serde_json::Value;
use tests::{
    agent::{Agent, Launch, errors},
    control::{Control, Verdict},
    flood::{Flood, Limits, Mode},
    harness::{Need, trial_once},
    link,
    mac::Mac,
    packet_socket::PacketSocket,
    packets::{Tag, discover},
    tally::Tally,
    topology::{Lab, Layout},
    wait,
};

const NEEDS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tcx, Need::Tool("ip"), Need::Tool("ethtool")];
const RIGHTS: &[Need] =
    &[Need::Root, Need::BpfObject, Need::Tcx, Need::Tool("ip"), Need::Tool("ethtool"), Need::Tool("setpriv")];
const LAB: &[Need] = &[Need::Lab, Need::Tcx];
/// The agent reads its maps once a second.
const SEEN_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_once("hook: each interface gets the one that is right there", NEEDS, the_right_one),
        trial_once("hook: a bridge is guarded by TCX", LAB, bridge),
        trial_once("hook: VLANs are policed apart where the interface takes their tags off", NEEDS, stripped_tags),
        trial_once("hook: TCX guards what another XDP program passes", NEEDS, behind_another),
        trial_once("hook: what one hook guards, the other refuses", NEEDS, not_twice),
        trial_once(
            "hook: an agent that has given up its rights refuses what another one guards",
            NEEDS,
            not_twice_later,
        ),
        trial_once("hook: whoever may not name the programs there chooses the same", RIGHTS, with_few_rights),
    ]
}

fn modes(agent: &Agent) -> Result<(Vec<String>, Vec<Value>)> {
    let status = agent.json(&["status"])?;
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let words =
        list("interfaces").iter().map(|interface| interface["mode"].as_str().unwrap_or("").to_owned()).collect();
    Ok((words, list("warnings")))
}

fn the_right_one() -> Result<()> {
    let host = link::host_with_two()?;
    host.ip("link add br0 type bridge\nlink set br0 up\n\
         tuntap add mode tap name tap0\nlink set tap0 up\ntuntap add mode tap vnet_hdr name tap1\nlink set tap1 up\n")?;
    host.exec(&["ethtool", "-K", "up1", "rxvlan", "on"])?;
    let agent = Agent::start(&host, &["up0", "up1", "br0", "tap0", "tap1"], "")?;
    let (modes, warnings) = modes(&agent)?;
    ensure!(modes == ["native", "tcx", "tcx", "native", "tcx"], "{modes:?}");
    ensure!(warnings.is_empty(), "nothing is wrong with any of them: {warnings:?}");
    ensure!(agent.log().contains("up1 is guarded by TCX") && agent.log().contains("rxvlan off"), "{}", agent.log());
    ensure!(agent.text(&["status"])?.contains(" tcx "), "{}", agent.text(&["status"])?);
    Ok(())
}

/// Frames for everyone go up to the bridge itself, where the guard is.
fn bridge() -> Result<()> {
    const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);
    const FRAMES: u64 = 3000;
    // The burst of 20, and 2 a second for a flood of less than a second, on a machine that may be slow.
    const MAY_PASS: u64 = 30;
    let lab = Lab::new(Layout::Uplink, 1)?;
    let behind = Tally::start(lab.host.clone(), "br0")?;
    let agent = Agent::start(&lab.host, &["br0"], "")?;
    let limits = Limits::packets(FRAMES).at(10_000);
    let arrived = Flood::start(&lab.injection(0), Mode::One(FLOODER), limits)?.wait()?.delivered();
    let passed = behind.counts()?.of(FLOODER);
    ensure!((20..=MAY_PASS).contains(&passed), "{passed} of {arrived} frames passed the guard");
    wait::until("all drops in the status", SEEN_DEADLINE, || {
        let status = agent.json(&["status"])?;
        Ok(status["interfaces"][0]["dropped"].as_u64() == Some(arrived - passed))
    })
}

fn stripped_tags() -> Result<()> {
    let host = link::host_with_two()?;
    host.exec(&["ethtool", "-K", "up0", "rxvlan", "on"])?;
    let config = "[[port]]\ninterface = \"up0\"\nvlans = [100]\nclass = \"trusted\"\n";
    let agent = Agent::start(&host, &["up0"], config)?;
    let (modes, warnings) = modes(&agent)?;
    ensure!(modes == ["tcx"] && warnings.is_empty(), "{modes:?}, {warnings:?}");
    let socket = PacketSocket::open(&host, "up0-peer")?;
    for machine in 0..3 {
        socket.send(&discover(Mac::machine(machine)).tagged(&[Tag::c(100)]).bytes())?;
    }
    wait::until("three packets of the VLAN's port, and none of the other", SEEN_DEADLINE, || {
        let ports = agent.json(&["ports"])?;
        let ports = ports["ports"].as_array().cloned().unwrap_or_default();
        let packets =
            |name: &str| ports.iter().find(|port| port["port"] == name).and_then(|port| port["packets"].as_u64());
        Ok((packets("up0.100"), packets("up0")) == (Some(3), Some(0)))
    })
}

fn behind_another() -> Result<()> {
    let host = link::host_with_two()?;
    let _control = Control::attach(&host, "up0", Verdict::Pass, XdpMode::Driver)?;
    let agent = Agent::start_with(&host, &["up0"], "", &["--hook", "tcx"])?;
    let (modes, _) = modes(&agent)?;
    ensure!(modes == ["tcx"], "{modes:?}");
    let socket = PacketSocket::open(&host, "up0-peer")?;
    socket.send(&discover(Mac::machine(0)).bytes())?;
    wait::until("the packet that the other program passed", SEEN_DEADLINE, || {
        Ok(agent.json(&["status"])?["interfaces"][0]["dhcp_packets"].as_u64() == Some(1))
    })
}

fn not_twice() -> Result<()> {
    let host = link::host_with_two()?;
    let _xdp = Agent::start_with(&host, &["up0"], "", &["--hook", "xdp"])?;
    let _tcx = Agent::start_with(&host, &["up1"], "", &["--hook", "tcx"])?;
    for (interface, named) in [("up0", "the XDP program dhcp_guard "), ("up1", "the TCX program dhcp_guard_tcx ")] {
        for hook in ["xdp", "tcx", "auto"] {
            let output = Launch::new(&host, &[interface])?.arguments(&["--hook", hook]).run_to_its_end()?;
            let sentence = errors(&output);
            let right = sentence.contains(named) && sentence.contains("stop the agent that runs it");
            ensure!(output.status.code() == Some(2) && right, "{interface} with {hook}: {sentence}");
        }
    }
    Ok(())
}

/// An agent that runs is not told any more what programs are called.
fn not_twice_later() -> Result<()> {
    for hook in ["tcx", "xdp"] {
        let host = link::host_with_two()?;
        let _other = Agent::start_with(&host, &["up0"], "", &["--hook", hook])?;
        let agent = Agent::start(&host, &[], "interfaces = ['up1']\nhook = 'tcx'\n")?;
        agent.launch().folder().write("dhcp-guard.toml", "interfaces = ['up0', 'up1']\nhook = 'tcx'\n")?;
        let output = agent.command(&["reload"]).output().context("cannot run the CLI")?;
        let sentence = errors(&output);
        let right = sentence.contains("interface up0 is guarded by another agent: stop the agent that runs it");
        ensure!(output.status.code() == Some(1) && right, "beside {hook}: {sentence}");
    }
    Ok(())
}

/// With the capabilities that the agent asks for, and no others, the kernel says that a program is there, but not which.
fn with_few_rights() -> Result<()> {
    const USER: [&str; 7] = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+bpf,+net_admin,+perfmon",
        "--ambient-caps=+bpf,+net_admin,+perfmon",
        "--pdeathsig=KILL",
    ];
    let host = link::host_with_two()?;
    host.exec(&["ethtool", "-K", "up0", "rxvlan", "on"])?;
    // Any program will do that passes everything.
    let mut other = DataPlane::load(&Spec::default())?;
    let program: &mut SchedClassifier =
        other.ebpf().program_mut(replies::PROGRAM).context("no program for replies")?.try_into()?;
    program.load()?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    host.run(|| program.attach_with_options("up0", TcAttachType::Ingress, first))??;
    let agent = Launch::new(&host, &["up0"])?.for_everyone()?.through(&USER).start()?;
    let (modes, warnings) = modes(&agent)?;
    ensure!(modes == ["tcx"] && warnings.is_empty(), "{modes:?}, {warnings:?}");
    Ok(())
}
