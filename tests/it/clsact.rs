//! The guard as a filter of tc, which is what `tcx` falls to on kernels before 6.6: what no link holds must be found, replaced,
//! missed and taken off all the same, and nobody else's filters with it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use dhcp_guard::{
    dataplane::{DataPlane, Spec, replies},
    model::{Event, EventKind},
};
use libtest_mimic::Trial;
use serde_json::Value;
use tests::{
    agent::{Agent, Launch, errors},
    flood::{Flood, Limits, Mode},
    follower::Follower,
    harness::{Need, trial_once},
    limit::Limit,
    link,
    mac::Mac,
    netns::Netns,
    packet_socket::PacketSocket,
    packets::{Tag, discover},
    topology::{Lab, Layout},
    trickle::Trickle,
    wait,
};

const NEEDS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("tc"), Need::Tool("ethtool")];
const BOTH: &[Need] =
    &[Need::Root, Need::BpfObject, Need::Tcx, Need::Tool("ip"), Need::Tool("tc"), Need::Tool("ethtool")];
const CLSACT: &[&str] = &["--hook", "clsact"];
/// The agent reads its maps once a second, and looks as often whether its programs are where they were put.
const SEEN: Duration = Duration::from_secs(5);
const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_once("clsact: a flood is dropped, also after the agent, and `detach` leaves no filter", Need::LAB, flood),
        trial_once("clsact: killed ten times in a flood, nothing passes beyond the limit", Need::LAB, killed),
        trial_once("clsact: VLANs are policed apart where the interface takes their tags off", NEEDS, stripped_tags),
        trial_once("clsact: filters of others stay whatever the guard does", NEEDS, others),
        trial_once("clsact: whoever deletes the filter is noticed, and it is put back", NEEDS, deleted),
        trial_once("clsact: never two guards on one interface", NEEDS, not_twice),
        trial_once("clsact: from one hook to the other there is one guard", BOTH, from_hook_to_hook),
        trial_once(
            "clsact: without a BPF file system the filter goes with its agent, or with the next",
            NEEDS,
            no_bpffs,
        ),
        trial_once("clsact: a start that was broken off, and an interface that went", NEEDS, broken_off),
        trial_once("clsact: `detach` names a filter whose pin is gone, and how it goes", NEEDS, lost_pins),
        trial_once(
            "clsact: under somebody's ingress qdisc replies are not seen, and that is said",
            NEEDS,
            ingress_only,
        ),
        trial_once("clsact: the doctor knows it", NEEDS, doctor),
    ]
}

fn add(host: &Netns, name: &str) -> Result<()> {
    link::add(host, name, &format!("{name}-peer"))
}

/// What `tc` says of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    priority: u64,
    kind: String,
    /// Of the program; empty: none.
    name: String,
    program: u64,
    handle: String,
}

fn filters(host: &Netns, interface: &str, way: &str) -> Result<Vec<Filter>> {
    let text = host.exec(&["tc", "-json", "filter", "show", "dev", interface, way])?;
    let list: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("not a list: {text}"))?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |filter: &Value| {
        let options = &filter["options"];
        Some(Filter {
            priority: filter["pref"].as_u64()?,
            kind: word(&filter["kind"]),
            name: word(&options["bpf_name"]),
            program: options["prog"]["id"].as_u64().unwrap_or(0),
            handle: word(&options["handle"]),
        })
    };
    // What all of a priority have in common has no options.
    Ok(list.iter().filter(|filter| !filter["options"].is_null()).filter_map(one).collect())
}

/// Ours, on the way in.
fn guards(host: &Netns, interface: &str) -> Result<Vec<Filter>> {
    Ok(filters(host, interface, "ingress")?.into_iter().filter(|one| one.name == "dhcp_guard_tcx").collect())
}

/// Ours, on the way out.
fn watches(host: &Netns, interface: &str) -> Result<Vec<Filter>> {
    Ok(filters(host, interface, "egress")?.into_iter().filter(|one| one.name == replies::PROGRAM).collect())
}

/// How many guards are on an interface at all.
fn guarded_by(host: &Netns, interface: &str) -> Result<Vec<&'static str>> {
    let links: Value = serde_json::from_str(&host.exec(&["ip", "-json", "link", "show", "dev", interface])?)?;
    let mut hooks = Vec::new();
    if links[0]["xdp"]["prog"]["id"].is_u64() {
        hooks.push("xdp");
    }
    let (_, tcx) = host.run(|| SchedClassifier::query_tcx(interface, TcAttachType::Ingress))??;
    hooks.extend(tcx.iter().map(|_| "tcx"));
    hooks.extend(guards(host, interface)?.iter().map(|_| "clsact"));
    Ok(hooks)
}

fn launch(host: &Netns, interfaces: &[&str]) -> Result<Launch> {
    Ok(Launch::new(host, interfaces)?.arguments(CLSACT))
}

fn pins(agent: &Agent) -> Result<Vec<String>> {
    let entries = fs::read_dir(agent.launch().pin_dir().join("links"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn about(kind: EventKind, interface: &'static str) -> impl Fn(&Event) -> bool {
    move |event| event.kind == kind && event.interface.as_deref() == Some(interface)
}

fn flood() -> Result<()> {
    const FRAMES: u64 = 3000;
    let lab = Lab::new(Layout::Uplink, 1)?;
    let start = Instant::now();
    let mut agent = launch(&lab.host, &lab.guarded())?.start()?;
    let status = agent.json(&["status"])?;
    ensure!(status["interfaces"][0]["mode"] == "clsact" && agent.warnings()?.is_empty(), "{status}");
    ensure!(agent.text(&["status"])?.contains(" clsact "), "{}", agent.text(&["status"])?);
    ensure!(guards(&lab.host, "uplink0")?.len() == 1 && watches(&lab.host, "uplink0")?.len() == 1, "{status}");
    // Leases go through.
    lab.get_leases(0..1, Duration::from_secs(20))?;
    let limits = Limits::packets(FRAMES).at(10_000);
    let arrived = Flood::start(&lab.injection(0), Mode::One(FLOODER), limits)?.wait()?.delivered();
    wait::until("all drops in the status", SEEN, || {
        let passed = lab.server.counts()?.of(FLOODER);
        let status = agent.json(&["status"])?;
        Ok(status["interfaces"][0]["dropped"].as_u64() == Some(arrived - passed))
    })?;
    agent.stop(libc::SIGKILL)?;
    Flood::start(&lab.injection(0), Mode::One(FLOODER), limits)?.wait()?;
    let passed = lab.server.counts()?.of(FLOODER);
    ensure!(
        (20..=Limit::CLIENT.allowed(start.elapsed())).contains(&passed),
        "{passed} of {} frames passed",
        2 * FRAMES
    );
    let said = agent.detach()?;
    ensure!(said == "the guard is off: uplink0\n", "{said}");
    let left = [filters(&lab.host, "uplink0", "ingress")?, filters(&lab.host, "uplink0", "egress")?].concat();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn killed() -> Result<()> {
    const KILLS: usize = 10;
    let lab = Lab::new(Layout::Uplink, 1)?;
    let launch = launch(&lab.host, &lab.guarded())?;
    let mut agent = launch.clone().start()?;
    let start = Instant::now();
    let time = Duration::from_secs(120);
    let trickle = Trickle::start(&lab.injection(0), FLOODER, time)?;
    let flood = Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::time(time))?;
    let mut before = guards(&lab.host, "uplink0")?;
    for _ in 0..KILLS {
        agent.stop(libc::SIGKILL)?;
        ensure!(guards(&lab.host, "uplink0")? == before, "the filter went with the agent");
        agent = launch.clone().start()?;
        let after = guards(&lab.host, "uplink0")?;
        let same_place = |a: &Filter, b: &Filter| (a.priority, &a.handle) == (b.priority, &b.handle);
        ensure!(after.len() == 1 && same_place(&after[0], &before[0]), "{after:?}, before {before:?}");
        ensure!(after[0].program != before[0].program, "its program was not replaced: {after:?}");
        before = after;
    }
    let report = flood.stop()?;
    let _ = trickle.stop();
    let elapsed = start.elapsed();
    let passed = lab.server.counts()?.of(FLOODER);
    let due = 20 + elapsed.as_secs();
    ensure!(
        (due..=Limit::CLIENT.allowed(elapsed)).contains(&passed),
        "{passed} reached the server, {} may",
        Limit::CLIENT.allowed(elapsed)
    );
    ensure!(watches(&lab.host, "uplink0")?.len() == 1, "{:?}", watches(&lab.host, "uplink0")?);
    let named = format!("-{}", lab.host.ifindex("uplink0")?);
    ensure!(pins(&agent)? == [format!("clsact{named}"), format!("clsact-replies{named}")], "{:?}", pins(&agent)?);
    println!("{KILLS} kills in {elapsed:?} at {:.1} M/s: {passed} reached the server", report.rate_pps() / 1e6);
    Ok(())
}

fn stripped_tags() -> Result<()> {
    let host = link::host_with_two()?;
    host.exec(&["ethtool", "-K", "up0", "rxvlan", "on"])?;
    let config = "[[port]]\ninterface = \"up0\"\nvlans = [100]\nclass = \"trusted\"\n";
    let agent = launch(&host, &["up0"])?.config(config)?.start()?;
    ensure!(agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    let socket = PacketSocket::open(&host, "up0-peer")?;
    for machine in 0..3 {
        socket.send(&discover(Mac::machine(machine)).tagged(&[Tag::c(100)]).bytes())?;
    }
    wait::until("three packets of the VLAN's port, and none of the other", SEEN, || {
        let ports = agent.json(&["ports"])?;
        let ports = ports["ports"].as_array().cloned().unwrap_or_default();
        let packets =
            |name: &str| ports.iter().find(|port| port["port"] == name).and_then(|port| port["packets"].as_u64());
        Ok((packets("up0.100"), packets("up0")) == (Some(3), Some(0)))
    })
}

/// A filter of another tool with a program that passes everything.
fn another(host: &Netns, interface: &str, handle: TcHandle) -> Result<()> {
    let mut other = DataPlane::load(&Spec::default())?;
    let program: &mut SchedClassifier =
        other.ebpf().program_mut(replies::PROGRAM).context("no program for replies")?.try_into()?;
    program.load()?;
    host.run(|| -> Result<()> {
        let _ = qdisc_add_clsact(interface);
        let options = NlOptions { priority: 1, handle, classid: None };
        let id = program.attach_with_options(interface, TcAttachType::Ingress, TcAttachOptions::Netlink(options))?;
        // Dropping it would look for the filter in the host's own network namespace.
        std::mem::forget(program.take_link(id)?);
        Ok(())
    })?
}

fn others() -> Result<()> {
    let host = link::host_with_two()?;
    another(&host, "up0", TcHandle::new(0, 7))?;
    host.exec(&["tc", "qdisc", "add", "dev", "up1", "clsact"])?;
    // One of another kind has the first priority to itself.
    host.exec(&[
        "tc", "filter", "add", "dev", "up1", "ingress", "pref", "1", "u32", "match", "u32", "0", "0", "flowid", "1:1",
    ])?;
    let theirs = || {
        let all = [filters(&host, "up0", "ingress")?, filters(&host, "up1", "ingress")?].concat();
        Ok::<_, anyhow::Error>(all.into_iter().filter(|one| one.name != "dhcp_guard_tcx").collect::<Vec<_>>())
    };
    let before = theirs()?;
    let launch = launch(&host, &["up0", "up1"])?;
    let mut agent = launch.clone().start()?;
    for round in 0..2 {
        let first = &filters(&host, "up0", "ingress")?[0];
        ensure!((first.priority, first.name.as_str()) == (1, "dhcp_guard_tcx"), "round {round}: {first:?}");
        let second = guards(&host, "up1")?;
        ensure!(second.len() == 1 && second[0].priority == 2, "round {round}: {second:?}");
        ensure!(theirs()? == before, "round {round}: {:?}, before {before:?}", theirs()?);
        agent.stop(libc::SIGTERM)?;
        agent = launch.clone().start()?;
    }
    agent.stop(libc::SIGTERM)?;
    agent.detach()?;
    ensure!(guards(&host, "up0")?.is_empty() && guards(&host, "up1")?.is_empty());
    ensure!(theirs()? == before, "{:?}, before {before:?}", theirs()?);
    Ok(())
}

fn deleted() -> Result<()> {
    let host = link::host_with_two()?;
    let agent = launch(&host, &["up0"])?.start()?;
    let mut follower = Follower::start(&agent)?;
    let handle = guards(&host, "up0")?.first().context("no filter")?.handle.clone();
    let ways: [&[&str]; 3] = [
        &["tc", "filter", "del", "dev", "up0", "ingress", "pref", "1", "handle", &handle, "bpf"],
        &["tc", "filter", "del", "dev", "up0", "ingress"],
        &["tc", "qdisc", "del", "dev", "up0", "clsact"],
    ];
    for way in ways {
        follower.forget()?;
        host.exec(way)?;
        follower.wait_for(SEEN, about(EventKind::Detached, "up0"))?;
        follower.wait_for(SEEN, about(EventKind::Reattached, "up0"))?;
        wait::until(
            "both filters",
            SEEN,
            || Ok((guards(&host, "up0")?.len(), watches(&host, "up0")?.len()) == (1, 1)),
        )?;
    }
    ensure!(agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    ensure!(pins(&agent)?.len() == 2, "{:?}", pins(&agent)?);

    // Somebody else's program that has our handle meanwhile is not ours, and stays.
    let handle = u32::from_str_radix(handle.trim_start_matches("0x"), 16)?;
    agent.signal(libc::SIGSTOP)?;
    host.exec(&["tc", "filter", "del", "dev", "up0", "ingress"])?;
    another(&host, "up0", handle.into())?;
    let theirs = filters(&host, "up0", "ingress")?;
    agent.signal(libc::SIGCONT)?;
    wait::until("the guard at another place", SEEN, || Ok(guards(&host, "up0")?.len() == 1))?;
    ensure!(filters(&host, "up0", "ingress")?.starts_with(&theirs), "{:?}", filters(&host, "up0", "ingress")?);
    agent.detach().err().context("the agent runs, and is not to be detached")?;
    Ok(())
}

fn not_twice() -> Result<()> {
    let host = link::host_with_two()?;
    let _clsact = launch(&host, &["up0"])?.start()?;
    for hook in ["xdp", "tcx", "clsact", "auto"] {
        let output = Launch::new(&host, &["up0"])?.arguments(&["--hook", hook]).run_to_its_end()?;
        let sentence = errors(&output);
        let right = sentence.contains("the clsact program dhcp_guard_tcx ")
            && sentence.contains("stop the agent that runs it")
            && sentence.contains("tc filter del");
        ensure!(output.status.code() == Some(2) && right, "{hook}: {sentence}");
    }
    // Before kernel 6.6 a filter stands in for TCX.
    let tcx = if Need::Tcx.missing().is_none() { "the TCX program" } else { "the clsact program" };
    let tcx = format!("{tcx} dhcp_guard_tcx ");
    for (hook, named) in [("xdp", "the XDP program dhcp_guard "), ("tcx", tcx.as_str())] {
        let mut first = Launch::new(&host, &["up1"])?.arguments(&["--hook", hook]).start()?;
        let output = launch(&host, &["up1"])?.run_to_its_end()?;
        ensure!(output.status.code() == Some(2) && errors(&output).contains(named), "{}", errors(&output));
        first.stop(libc::SIGTERM)?;
        first.detach()?;
    }
    Ok(())
}

fn from_hook_to_hook() -> Result<()> {
    let host = link::host_with_two()?;
    let base = Launch::new(&host, &["up0"])?;
    for hook in ["clsact", "tcx", "clsact", "xdp", "clsact", "auto", "clsact"] {
        let mut agent = base.clone().arguments(&["--hook", hook]).start()?;
        let expected = if hook == "auto" { "xdp" } else { hook };
        ensure!(guarded_by(&host, "up0")? == [expected], "{hook}: {:?}", guarded_by(&host, "up0")?);
        let filters = watches(&host, "up0")?.len();
        let (_, links) = host.run(|| SchedClassifier::query_tcx("up0", TcAttachType::Egress))??;
        let both = if hook == "clsact" { (1, 0) } else { (0, 1) };
        ensure!((filters, links.len()) == both, "{hook}: {filters} filters and {} links watch", links.len());
        ensure!(pins(&agent)?.len() == 2 && agent.warnings()?.is_empty(), "{hook}: {:?}", pins(&agent)?);
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    }
    Ok(())
}

fn no_bpffs() -> Result<()> {
    let host = link::host_with_two()?;
    let launch = launch(&host, &["up0"])?;
    let elsewhere = launch.folder().path("no-bpffs");
    let without = launch.clone().pins(elsewhere);
    let mut agent = without.clone().start()?;
    ensure!(guards(&host, "up0")?.len() == 1 && watches(&host, "up0")?.len() == 1);
    // While it lives it is somebody's.
    let second = Launch::new(&host, &["up0"])?.arguments(CLSACT).run_to_its_end()?;
    ensure!(second.status.code() == Some(2), "{}", errors(&second));
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    ensure!(guards(&host, "up0")?.is_empty() && watches(&host, "up0")?.is_empty(), "they did not go with the agent");

    let mut agent = without.clone().start()?;
    agent.stop(libc::SIGKILL)?;
    let stale = guards(&host, "up0")?;
    ensure!(stale.len() == 1, "{stale:?}");
    let mut agent = without.clone().start()?;
    let replaced = guards(&host, "up0")?;
    ensure!(replaced.len() == 1 && replaced[0].program != stale[0].program, "{replaced:?}, before {stale:?}");
    agent.stop(libc::SIGKILL)?;
    // The next one can pin.
    let agent = launch.start()?;
    ensure!(guards(&host, "up0")?.len() == 1 && watches(&host, "up0")?.len() == 1, "{}", agent.log());
    ensure!(guards(&host, "up0")?[0].handle != replaced[0].handle && pins(&agent)?.len() == 2, "{:?}", pins(&agent)?);
    Ok(())
}

fn lost_pins() -> Result<()> {
    let host = link::host_with_two()?;
    let launch = launch(&host, &["up0"])?;
    let mut agent = launch.clone().start()?;
    agent.stop(libc::SIGKILL)?;
    fs::remove_dir_all(launch.pin_dir().join("links"))?;
    let said = agent.detach()?;
    ensure!(said.starts_with("no guard is pinned in ") && said.contains("still guards on up0"), "{said}");
    // What it says is what takes them off.
    for command in said.split('`').skip(1).step_by(2) {
        ensure!(command.starts_with("tc filter del dev up0 "), "{said}");
        host.exec(&["sh", "-c", command])?;
    }
    ensure!(guards(&host, "up0")?.is_empty() && watches(&host, "up0")?.is_empty(), "{said}");
    let said = agent.detach()?;
    ensure!(said.ends_with("nothing to take off\n"), "{said}");
    Ok(())
}

fn broken_off() -> Result<()> {
    let host = link::host_with_two()?;
    let launch = launch(&host, &["up0", "up1"])?;
    let mut agent = launch.clone().start()?;
    let index = host.ifindex("up0")?;
    let links = launch.pin_dir().join("links");
    agent.stop(libc::SIGKILL)?;
    // As between the filter's change and the pin's: the pin still is the next one's.
    fs::rename(links.join(format!("clsact-{index}")), links.join(format!("next-clsact-{index}")))?;
    let before = guards(&host, "up0")?;
    let mut agent = launch.clone().start()?;
    let after = guards(&host, "up0")?;
    ensure!(after.len() == 1 && after[0].program != before[0].program, "{after:?}, before {before:?}");
    ensure!(
        pins(&agent)?.len() == 4 && pins(&agent)?.iter().all(|name| !name.starts_with("next")),
        "{:?}",
        pins(&agent)?
    );
    agent.stop(libc::SIGKILL)?;
    fs::rename(links.join(format!("clsact-{index}")), links.join(format!("next-clsact-{index}")))?;
    host.ip("link delete up1\n")?;
    let said = agent.detach()?;
    ensure!(said == "the guard is off: up0\n" && guards(&host, "up0")?.is_empty(), "{said}");

    add(&host, "up1")?;
    let mut agent = launch.clone().start()?;
    agent.stop(libc::SIGKILL)?;
    host.ip("link delete up1\n")?;
    let agent = launch.only(&["up0"]).start()?;
    ensure!(pins(&agent)?.len() == 2, "{:?}", pins(&agent)?);
    ensure!(agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    Ok(())
}

fn ingress_only() -> Result<()> {
    let host = link::host_with_two()?;
    host.exec(&["tc", "qdisc", "add", "dev", "up0", "ingress"])?;
    let agent = launch(&host, &["up0"])?.start()?;
    let seen = filters(&host, "up0", "ingress")?;
    ensure!(seen.len() == 1 && seen[0].name == "dhcp_guard_tcx", "{seen:?}");
    let warnings = agent.warnings()?;
    let is_right =
        |warning: &String| warning.contains("replies leave through interface up0") && warning.contains("ingress");
    ensure!(warnings.len() == 1 && warnings.iter().all(is_right), "{warnings:?}");
    Ok(())
}

fn doctor() -> Result<()> {
    let host = link::host_with_two()?;
    let config = "interfaces = [\"up0\"]\nhook = \"clsact\"\n";
    let launch = Launch::new(&host, &[])?.config(config)?;
    let folder = launch.folder().path("dhcp-guard.toml").display().to_string();
    let mut agent = launch.start()?;
    let rows = |agent: &Agent, id: &str| -> Result<String> {
        let output = agent.command(&["doctor", "--config", &folder, "--json"]).output()?;
        let report: Value = serde_json::from_slice(&output.stdout).with_context(|| errors(&output))?;
        let findings = report["findings"].as_array().context("no findings")?;
        Ok(findings
            .iter()
            .filter(|row| row["id"] == id)
            .map(|row| format!("{} {}", row["severity"], row["what"]))
            .collect())
    };
    for id in ["attached", "duplicate_links", "other_guard", "tcx_in_front", "replies"] {
        let said = rows(&agent, id)?;
        ensure!(said.contains("\"ok\""), "{id}: {said}");
    }
    ensure!(rows(&agent, "native_mode")?.contains("by clsact"), "{}", rows(&agent, "native_mode")?);
    agent.stop(libc::SIGKILL)?;
    // Its pin says whose it is.
    ensure!(rows(&agent, "other_guard")?.contains("\"ok\""), "{}", rows(&agent, "other_guard")?);
    another(&host, "up0", TcHandle::new(0, 7))?;
    ensure!(rows(&agent, "tcx_in_front")?.contains("dhcp_replies"), "{}", rows(&agent, "tcx_in_front")?);
    Ok(())
}
