//! What the guard says when it cannot do what it was asked to: one sentence, with the thing and the remedy, exit code 2,
//! and nothing left behind. And what it says where it goes on all the same.
//!
//! Once for both hooks: what ends before any interface is looked at; queries; and what only XDP has, one program an interface
//! and a generic mode.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use dhcp_guard::dataplane::hook::{Hook, Way};
use libtest_mimic::Trial;
use serde_json::Value;
use tests::{
    agent::{Agent, Launch, errors},
    attached::{self, guarded, programs},
    control::{Control, Verdict},
    flood::{Flood, Limits, Mode},
    harness::{Need, trial, trial_once},
    link,
    mac::Mac,
    netns::Netns,
    process,
    program::current_hook,
    tally::Tally,
    topology::{Lab, Layout},
    wait,
};

const NEEDS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip")];
const RIGHTS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("setpriv")];
const MOUNTS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("unshare"), Need::Tool("mount")];

/// A user without any rights.
const NOBODY: &[&str] =
    &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--pdeathsig=KILL"];
/// Longer than any query may take.
const QUERY_DEADLINE: Duration = Duration::from_secs(10);
/// The agent reads its maps once a second.
const SEEN_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_once("errors: a user without rights is told which", RIGHTS, without_rights),
        trial_once("errors: root without one capability is told which", RIGHTS, without_one_capability),
        trial("errors: the capabilities that are asked for are enough", RIGHTS, with_just_the_capabilities),
        trial_once("errors: a kernel without BTF", MOUNTS, without_btf),
        trial_once("errors: an interface that is not there, or cannot be", NEEDS, no_such_interface),
        trial("errors: an interface that is down", NEEDS, interface_down),
        trial_once("errors: another program on the interface stays, and is named", NEEDS, another_program),
        trial("errors: of two interfaces, one unusable, none is guarded", NEEDS, one_of_two),
        trial("errors: an interface that another agent guards", NEEDS, guarded_already),
        trial_once("errors: a socket that another agent listens on", NEEDS, socket_in_use),
        trial("errors: a stale socket is taken over", NEEDS, stale_socket),
        trial_once("errors: paths that cannot be a socket, and files that stay", NEEDS, unusable_sockets),
        trial_once("errors: a configuration that cannot be read, or is wrong", NEEDS, bad_configurations),
        trial_once("errors: an inventory that cannot be read is a warning, and the guard works", NEEDS, no_inventory),
        trial_once("errors: queries without an agent", NEEDS, queries_without_agent),
        trial_once("errors: a user who may not ask is told who may", RIGHTS, queries_without_rights),
        trial_once("errors: a reader who has seen enough is no error", NEEDS, closed_output),
        trial(
            "errors: an interface that goes away leaves the others guarded, and a warning",
            NEEDS,
            interface_vanishes,
        ),
        trial_once(
            "errors: a driver without native XDP is guarded in generic mode, with a warning",
            Need::LAB,
            generic_mode,
        ),
    ]
}

/// A host with two links that are up and one that is down.
struct Host(Netns);

const UP: [&str; 2] = ["up0", "up1"];
const DOWN: &str = "down0";

impl Host {
    fn new() -> Result<Self> {
        let netns = Netns::new("host")?;
        // As on a host that is set up for XDP; otherwise there is a warning, which has a test of its own.
        link::add(&netns, "up0", "peer0")?;
        link::add(&netns, "up1", "peer1")?;
        netns.ip("link add down0 type veth peer name peer2\n")?;
        Ok(Self(netns))
    }

    fn launch(&self, interfaces: &[&str]) -> Result<Launch> {
        Launch::new(&self.0, interfaces)
    }

    /// Starts an agent that must refuse, for a reason that names all of `parts`: its sentence. What is attached does not
    /// change, and there is no socket.
    fn refuses(&self, launch: &Launch, parts: &[&str]) -> Result<()> {
        self.refuses_beside_socket(launch, parts)?;
        ensure!(!is_socket(launch.socket_path()), "a socket is left at {}", launch.socket_path().display());
        Ok(())
    }

    /// The same where a socket was there before.
    fn refuses_beside_socket(&self, launch: &Launch, parts: &[&str]) -> Result<()> {
        let before = programs(&self.0)?;
        println!("{}", check_sentence(&launch.run_to_its_end()?, parts)?);
        let after = programs(&self.0)?;
        ensure!(before == after, "attached before: {before:?}, and after: {after:?}");
        Ok(())
    }
}

/// Whether there is a socket at this path, listened on or not.
fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// Exit code 2, nothing on standard output, and one line of error with all of `parts` in it: that line.
fn check_sentence(output: &Output, parts: &[&str]) -> Result<String> {
    let errors = errors(output);
    ensure!(output.status.code() == Some(2), "{}, not exit code 2: {errors}", output.status);
    ensure!(output.stdout.is_empty(), "standard output: {}", String::from_utf8_lossy(&output.stdout));
    let line = errors.strip_suffix('\n').unwrap_or(&errors);
    ensure!(line.starts_with("dhcp-guard: ") && !line.contains('\n'), "not one sentence: {errors:?}");
    for part in parts {
        ensure!(line.contains(part), "`{part}` is not in: {line}");
    }
    Ok(line.to_owned())
}

fn without_rights() -> Result<()> {
    let host = Host::new()?;
    let launch = host.launch(&["up0"])?.for_everyone()?.through(NOBODY);
    host.refuses(&launch, &["without CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON: ", "run dhcp-guard as root", "setcap"])
}

fn without_one_capability() -> Result<()> {
    let host = Host::new()?;
    for name in ["bpf", "net_admin", "perfmon"] {
        let (inheritable, bounding) = (format!("--inh-caps=-{name}"), format!("--bounding-set=-{name}"));
        let launch = host.launch(&["up0"])?.through(&["setpriv", &inheritable, &bounding]);
        let missing = format!("without CAP_{}: ", name.to_uppercase());
        host.refuses(&launch, &[&missing, "as root with all its rights", "setcap", "AmbientCapabilities="])?;
    }
    Ok(())
}

/// What the sentence asks for is neither too little nor for root alone.
fn with_just_the_capabilities() -> Result<()> {
    const SET: &str = "+bpf,+net_admin,+perfmon";
    let host = Host::new()?;
    let (inheritable, ambient) = (format!("--inh-caps={SET}"), format!("--ambient-caps={SET}"));
    let mut wrapper: Vec<&str> = NOBODY.iter().copied().filter(|word| !word.starts_with("--inh-caps")).collect();
    wrapper.extend([inheritable.as_str(), ambient.as_str()]);
    let agent = host.launch(&["up0"])?.for_everyone()?.through(&wrapper).start()?;
    let status = agent.json(&["status"])?;
    ensure!(status["warnings"] == Value::Array(vec![]), "{status}");
    ensure!(guarded(&host.0)? == ["up0"], "guarded: {:?}", guarded(&host.0)?);
    if current_hook() == Some(Hook::Xdp) {
        // The program's name needs more rights; the refusal does not.
        let _control = Control::attach(&host.0, "up1", Verdict::Pass, XdpMode::Driver)?;
        let launch = host.launch(&["up1"])?.for_everyone()?.through(&wrapper);
        host.refuses(&launch, &["interface up1 already runs the XDP program", "(id ", "will not displace"])?;
    }
    Ok(())
}

fn without_btf() -> Result<()> {
    let host = Host::new()?;
    // Seen by this process alone: the mount is in a namespace that goes with it.
    let hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    let launch = host.launch(&["up0"])?.through(&["unshare", "--mount", "sh", "-c", hide, "sh"]);
    host.refuses(&launch, &["no BTF", "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y"])
}

fn no_such_interface() -> Result<()> {
    let host = Host::new()?;
    host.refuses(&host.launch(&["nosuch0"])?, &["no interface \"nosuch0\"", "`ip -br link` lists"])?;
    for odd in ["sixteen-letters0", "a/b", "a b", ".", "", "up0:1", "up0\nup1"] {
        host.refuses(&host.launch(&[odd])?, &["interface", "1 to 15 characters"])
            .with_context(|| format!("interface {odd:?}"))?;
    }
    // Names that the kernel would take, of interfaces that are not there.
    for strange in ["fünf", "-x", "up%d", "UP0"] {
        host.refuses(&host.launch(&[])?.arguments(&[&format!("--interface={strange}")]), &["no interface", strange])
            .with_context(|| format!("interface {strange:?}"))?;
    }
    host.refuses(&host.launch(&[])?, &["nothing to guard", "-i IF"])
}

fn interface_down() -> Result<()> {
    let host = Host::new()?;
    host.refuses(&host.launch(&[DOWN])?, &["interface down0 is down", "`ip link set down0 up`"])
}

fn another_program() -> Result<()> {
    let host = Host::new()?;
    for mode in [XdpMode::Driver, XdpMode::Skb] {
        let control = Control::attach(&host.0, "up0", Verdict::Pass, mode)?;
        let before = programs(&host.0)?;
        ensure!(before.len() == 1 && before[0].name == "pass", "the other program is not attached: {before:?}");
        let named = before[0].named();
        host.refuses(&host.launch(&["up0"])?, &["interface up0", &named, "will not displace", "take it off"])?;
        drop(control);
        ensure!(programs(&host.0)?.is_empty(), "the other program did not come off");
    }
    Ok(())
}

fn one_of_two() -> Result<()> {
    let host = Host::new()?;
    host.refuses(&host.launch(&["up0", DOWN])?, &["interface down0 is down"])?;
    host.refuses(&host.launch(&["up0", "nosuch0"])?, &["no interface \"nosuch0\""])?;
    host.refuses(&host.launch(&["up0", "up0"])?, &["`up0` is listed twice"])?;
    let _other = Agent::start(&host.0, &["up1"], "")?;
    let named = attached::guard(&host.0, "up1")?.named();
    host.refuses(&host.launch(&UP)?, &["interface up1 already runs", &named])
}

fn guarded_already() -> Result<()> {
    let host = Host::new()?;
    let mut first = Agent::start(&host.0, &UP, "")?;
    let before = programs(&host.0)?;
    let named = attached::guard(&host.0, "up0")?.named();
    host.refuses(&host.launch(&["up0"])?, &["interface up0", &named, "stop the agent that runs it"])?;
    ensure!(first.json(&["status"])?["warnings"] == Value::Array(vec![]), "the first agent goes on");
    ensure!(programs(&host.0)? == before, "it does not go on");
    let refused = check_sentence(&ask(first.command(&["detach"]))?, &["while its agent runs", "stop the agent first"])?;
    println!("{refused}");
    ensure!(first.stop(libc::SIGTERM)?.success(), "{}", first.log());
    host.refuses(&host.launch(&["up0"])?, &["interface up0", &named, "`dhcp-guard detach`"])?;
    first.detach()?;
    ensure!(programs(&host.0)?.is_empty(), "the guard did not come off");
    Ok(())
}

fn socket_in_use() -> Result<()> {
    let host = Host::new()?;
    let first = Agent::start(&host.0, &["up0"], "")?;
    let named = format!("in use by another agent (pid {})", first.pid());
    let launch = host.launch(&["up1"])?.socket(first.socket());
    host.refuses_beside_socket(&launch, &[&named, &first.socket().display().to_string(), "--socket"])?;
    ensure!(first.json(&["status"])?["pid"] == first.pid(), "the first agent still answers there");
    Ok(())
}

fn stale_socket() -> Result<()> {
    let host = Host::new()?;
    let launch = host.launch(&["up0"])?;
    let mut killed = launch.clone().start()?;
    killed.stop(libc::SIGKILL)?;
    ensure!(is_socket(launch.socket_path()), "an agent that was killed leaves its socket");
    ensure!(guarded(&host.0)? == ["up0"], "the guard goes on without an agent: {:?}", guarded(&host.0)?);
    let next = launch.clone().start()?;
    ensure!(next.json(&["status"])?["pid"] == next.pid(), "the next agent answers there");
    Ok(())
}

fn unusable_sockets() -> Result<()> {
    let host = Host::new()?;
    let refuses_at = |socket: &Path, parts: &[&str]| {
        let launch = host.launch(&["up0"])?.socket(socket.to_owned());
        host.refuses(&launch, &[parts, &[&socket.display().to_string(), "--socket"]].concat())
    };
    refuses_at(Path::new("/proc/nowhere/socket"), &["cannot create the folder"])?;
    let launch = host.launch(&["up0"])?;
    let folder = launch.folder();
    let file = folder.write("notes", "precious")?;
    refuses_at(&file, &["it is no socket, and is left alone"])?;
    ensure!(fs::read_to_string(&file)? == "precious", "the file is not what it was");
    refuses_at(&file.join("socket"), &["Not a directory"])?;
    let directory = folder.path("directory");
    fs::create_dir(&directory)?;
    refuses_at(&directory, &["it is no socket"])?;
    ensure!(directory.is_dir(), "the directory is gone");
    let long = folder.path(&"x".repeat(108));
    host.refuses(&launch.clone().socket(long), &["a socket's path has 1 to 107 bytes"])
}

fn bad_configurations() -> Result<()> {
    let host = Host::new()?;
    let launch = host.launch(&["up0"])?;
    let missing = launch.folder().path("missing.toml");
    let folder = launch.folder().path("folder");
    fs::create_dir(&folder)?;
    for (path, reason) in [(missing, "No such file or directory"), (folder, "Is a directory")] {
        let parts = ["cannot read the configuration", &path.display().to_string(), reason, "--config"];
        host.refuses(&launch.clone().config_file(path.clone()), &parts)?;
    }
    for (content, parts) in [
        ("mode = 'monitor'\nlimits = [1, 2\n", &["is not valid: line 2, column 15: "][..]),
        ("mod = 'monitor'\n", &["line 1: mod: there is no such key", "did you mean `mode`?"]),
        ("[limits]\nclient_rate = 2\n", &["line 2: limits.client_rate: there is no such key", "`client_rate_pps`"]),
        ("[limits]\nclient_rate_pps = 0\n", &["line 2: limits.client_rate_pps: 0 is out of range"]),
        ("mode = 'monitr'\n", &["line 1: mode: ", "monitor"]),
    ] {
        let launch = launch.clone().config(content)?;
        host.refuses(&launch, &[parts, &["dhcp-guard.toml is not valid"]].concat()).with_context(|| content)?;
    }
    Ok(())
}

fn no_inventory() -> Result<()> {
    let host = Host::new()?;
    let launch = host.launch(&["up0"])?;
    let path = launch.folder().path("machines.csv").display().to_string();
    let launch = launch.config(&format!("inventory = {path:?}\n"))?;
    let warned = |parts: &[&str]| -> Result<()> {
        let mut agent = launch.clone().start()?;
        let seen = agent.warnings()?;
        ensure!(seen.len() == 1 && parts.iter().all(|part| seen[0].contains(part)), "{seen:?}");
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
        Ok(())
    };
    warned(&["cannot read the inventory", &path, "No such file or directory", "`inventory`"])?;
    launch.folder().write("machines.csv", "name,mac\n")?;
    warned(&["the header of the inventory", &path, "no column server_id", "first line"])
}

/// Asks, and waits for the answer no longer than a query may take.
fn ask(command: Command) -> Result<Output> {
    process::output_within(command, QUERY_DEADLINE)
}

fn queries_without_agent() -> Result<()> {
    let host = Host::new()?;
    let launch = host.launch(&[])?;
    let socket = launch.socket_path().display().to_string();
    let parts = ["no agent answers on", socket.as_str(), "dhcp-guard run -i IF", "--socket"];
    let queries: [&[&str]; 6] =
        [&["status"], &["offenders"], &["ports"], &["clients"], &["events"], &["events", "--follow"]];
    for query in queries {
        check_sentence(&ask(launch.cli(query))?, &parts)?;
        check_sentence(&ask(launch.cli(&[query, &["--json"]].concat()))?, &parts)?;
    }
    // A file of another kind is no agent either, and stays.
    fs::write(launch.socket_path(), "precious")?;
    check_sentence(&ask(launch.cli(&["status"]))?, &parts)?;
    ensure!(fs::read_to_string(launch.socket_path())? == "precious", "the file is not what it was");
    Ok(())
}

fn queries_without_rights() -> Result<()> {
    let host = Host::new()?;
    let launch = host.launch(&["up0"])?.for_everyone()?;
    let agent = launch.clone().start()?;
    let socket = agent.socket().display().to_string();
    for query in ["status", "offenders", "events"] {
        let output = ask(launch.clone().through(NOBODY).cli(&[query]))?;
        check_sentence(
            &output,
            &["you may not ask the agent", socket.as_str(), "be root, or join the socket's group"],
        )?;
    }
    // And who is said to may, may.
    let group: Vec<&str> =
        NOBODY.iter().map(|word| if *word == "--regid=65534" { "--regid=0" } else { *word }).collect();
    let output = ask(launch.through(&group).cli(&["status"]))?;
    ensure!(output.status.success(), "a member of the group: {}", errors(&output));
    Ok(())
}

fn closed_output() -> Result<()> {
    let host = Host::new()?;
    let agent = Agent::start(&host.0, &["up0"], "")?;
    for query in [&["status"][..], &["status", "--json"], &["ports"], &["events", "--follow"], &["--help"]] {
        let (reader, writer) = io::pipe()?;
        drop(reader);
        let mut command = agent.command(query);
        command.stdout(writer).stderr(Stdio::piped());
        let output = process::end_within(command.spawn()?, &query.join(" "), QUERY_DEADLINE)?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{query:?}: {output:?}");
    }
    Ok(())
}

fn interface_vanishes() -> Result<()> {
    let host = Host::new()?;
    let mut agent = Agent::start(&host.0, &UP, "")?;
    ensure!(agent.warnings()?.is_empty(), "warnings before anything happened: {:?}", agent.warnings()?);
    host.0.ip("link delete up0\n")?;
    let mut seen = Vec::new();
    wait::until("a warning", SEEN_DEADLINE, || {
        seen = agent.warnings()?;
        Ok(!seen.is_empty())
    })?;
    wait::until("an event that says so", Duration::from_secs(5), || {
        let events = agent.json(&["events"])?;
        Ok(events["events"].as_array().is_some_and(|all| all.iter().any(|event| event["kind"] == "interface_gone")))
    })?;
    ensure!(seen.len() == 1 && seen[0].contains("up0 is to be guarded and is not there"), "{seen:?}");
    ensure!(guarded(&host.0)? == ["up1"], "guarded: {:?}", guarded(&host.0)?);
    // One that comes back under the same name is another interface, and is guarded as well.
    host.0.ip("link add up0 type veth peer name peer0\nlink set up0 up\n")?;
    link::keep_vlan_tags(&host.0, "up0")?;
    wait::until("the warning is over", SEEN_DEADLINE, || {
        Ok(agent.warnings()?.iter().all(|warning| !seen.contains(warning)))
    })?;
    ensure!(guarded(&host.0)? == UP, "guarded: {:?}", guarded(&host.0)?);
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    agent.detach()?;
    ensure!(programs(&host.0)?.is_empty() && !agent.socket().exists(), "something is left");
    Ok(())
}

/// A bridge has no native XDP. Frames for everyone go up to the bridge itself, where the guard is, and on to the server,
/// which is beside it.
fn generic_mode() -> Result<()> {
    const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);
    const FRAMES: u64 = 3000;
    // The burst of 20, and 2 a second for a flood of less than a second, on a machine that may be slow.
    const MAY_PASS: u64 = 30;
    let lab = Lab::new(Layout::Uplink, 1)?;
    // After XDP, also the generic one, and before anything else.
    let behind = Tally::start(lab.host.clone(), "br0")?;
    let send = || Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::packets(FRAMES).at(10_000))?.wait();
    send()?;
    let passed = behind.counts()?.of(FLOODER);
    ensure!(passed == FRAMES, "without the guard {passed} of {FRAMES} frames reach the bridge itself");

    let agent = Agent::start_with(&lab.host, &["br0"], "", &["--hook", "xdp"])?;
    let there = programs(&lab.host)?;
    ensure!(there.len() == 1 && (&*there[0].interface, there[0].way) == ("br0", Way::Generic), "attached: {there:?}");
    let status = agent.json(&["status"])?;
    ensure!(status["interfaces"][0]["mode"] == "generic", "{status}");
    let warned = agent.warnings()?;
    let right = |text: &str| text.contains("interface br0 is guarded in generic mode only") && text.contains("CPU");
    ensure!(warned.len() == 1 && right(&warned[0]), "{warned:?}");
    ensure!(agent.log().lines().any(|line| line.contains("WARN") && right(line)), "{}", agent.log());
    ensure!(agent.text(&["status"])?.contains("generic"), "{}", agent.text(&["status"])?);

    send()?;
    let passed = behind.counts()?.of(FLOODER) - passed;
    ensure!((20..=MAY_PASS).contains(&passed), "{passed} of {FRAMES} frames passed the guard");
    wait::until("all drops in the status", SEEN_DEADLINE, || {
        let status = agent.json(&["status"])?;
        Ok(status["interfaces"][0]["dropped"].as_u64() == Some(FRAMES - passed))
    })
}
