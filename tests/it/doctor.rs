//! `doctor` on hosts with something wrong: the row for it is there, what it says to do really mends it, and the exit code
//! says whether anything is left. And `run`, which refuses to be blind.
//!
//! Once for both hooks: what is about the host, and what `doctor` says of each hook on its own, which is in one test then.

use std::{
    collections::HashSet,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use dhcp_guard::{
    dataplane::hook::Hook,
    model::{Checkup, Finding, Severity, Subject},
};
use libtest_mimic::Trial;
use serde_json::json;
use tests::{
    agent::{Agent, Launch, errors},
    attached::{programs, take_off},
    control::{Control, Verdict},
    harness::{Need, trial, trial_once},
    link,
    netns::Netns,
    process,
    program::current_hook,
    wait,
};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::BpfObject,
    Need::Tool("ip"),
    Need::Tool("ethtool"),
    Need::Tool("unshare"),
    Need::Tool("mount"),
    Need::Tool("umount"),
];
const RIGHTS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("ethtool"), Need::Tool("setpriv")];

/// It loads the program and measures the clock: a second, more on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("doctor: a host on which all is well, with and without an agent", NEEDS, all_is_well),
        trial_once("doctor: VLAN tags that are taken off, and run refuses to be blind", NEEDS, vlan_offload),
        trial_once("doctor: VLAN tags that are taken off only after the start", NEEDS, offload_after_start),
        trial_once("doctor: an interface that lost its guard while no agent runs", NEEDS, lost_without_agent),
        trial_once("doctor: an interface that is down, and one that is not there", NEEDS, interfaces),
        trial_once("doctor: another XDP program", NEEDS, another_program),
        trial_once("doctor: no BPF file system, one that is hidden, one that is read-only", NEEDS, bpffs),
        trial_once("doctor: missing capabilities", RIGHTS, capabilities),
        trial_once("doctor: a bridge has generic mode only", NEEDS, generic_mode),
        trial_once("doctor: an MTU that a tap does not take natively", NEEDS, mtu),
        trial("doctor: a guard of another agent, and a watch too many", NEEDS, another_guard),
        trial_once("doctor: frames that go past the guard", NEEDS, past_the_guard),
        trial_once("doctor: a broken inventory, odd configuration, foreign state", NEEDS, files),
    ]
}

/// A host with two veths that are up, set up as for XDP, and one that is down.
struct Host {
    netns: Netns,
    launch: Launch,
}

impl Host {
    fn new() -> Result<Self> {
        let netns = Netns::new("host")?;
        for (interface, peer) in [("up0", "peer0"), ("up1", "peer1"), ("down0", "peer2")] {
            link::add(&netns, interface, peer)?;
        }
        netns.ip("link set down0 down\n")?;
        let launch = Launch::new(&netns, &["up0"])?;
        // Relative paths count from the file's folder.
        let host = Self { netns, launch };
        host.config(&current_hook().map_or_else(String::new, |hook| format!("hook = {}\n", json!(hook))))?;
        Ok(host)
    }

    fn config(&self, content: &str) -> Result<()> {
        self.launch.folder().write("dhcp-guard.toml", &format!("state_dir = 'state'\n{content}")).map(drop)
    }

    fn command(&self, interface: &str, more: &[&str]) -> Command {
        let config = self.launch.folder().path("dhcp-guard.toml").display().to_string();
        self.launch.cli(&[&["doctor", "-i", interface, "--config", &config], more].concat())
    }

    /// What `doctor` finds on an interface. The exit code must be that of the findings.
    fn examine(&self, interface: &str) -> Result<Checkup> {
        let mut all = examine(self.command(interface, &["--json"]))?;
        ensure!(all.len() == 1, "{} documents", all.len());
        Ok(all.remove(0))
    }

    /// The rows of one check.
    fn rows(&self, interface: &str, id: &str) -> Result<Vec<Finding>> {
        Ok(rows(&self.examine(interface)?, id))
    }

    /// Something is wrong, and nothing else: does what the row says, and all is well.
    fn mends(&self, interface: &str, id: &str, severity: Severity) -> Result<()> {
        let checkup = self.examine(interface)?;
        let finding = only(&checkup, id, severity)?;
        let remedy = command_in(finding)?;
        println!("{}", finding.sentence());
        self.netns.exec(&["sh", "-c", remedy])?;
        let after = rows(&self.examine(interface)?, id);
        ensure!(is_ok(&after), "after `{remedy}`: {after:?}");
        Ok(())
    }
}

/// Runs `doctor --json`, perhaps several times over: the documents. The exit code is the last one's.
fn examine(command: Command) -> Result<Vec<Checkup>> {
    let output = process::output_within(command, DEADLINE)?;
    let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Checkup>();
    let documents: Vec<Checkup> = documents.collect::<Result<_, _>>().with_context(|| errors(&output))?;
    let last = documents.last().with_context(|| errors(&output))?;
    let bad = |severity| last.findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    ensure!((last.blind, last.weak) == (bad(Severity::Blind), bad(Severity::Weak)), "{last:?}");
    let expected = i32::from(last.blind + last.weak > 0);
    ensure!(output.status.code() == Some(expected), "{}: {last:?}", output.status);
    ensure!(last.findings.is_sorted_by_key(|finding| finding.severity), "the worst does not come first: {last:?}");
    Ok(documents)
}

fn rows(checkup: &Checkup, id: &str) -> Vec<Finding> {
    checkup.findings.iter().filter(|finding| finding.id == id).cloned().collect()
}

fn is_ok(rows: &[Finding]) -> bool {
    !rows.is_empty() && rows.iter().all(|row| row.severity == Severity::Ok && row.remedy.is_none())
}

/// The one finding of `severity`, which must be of the check `id`; nothing else is blind or weak.
fn only<'a>(checkup: &'a Checkup, id: &str, severity: Severity) -> Result<&'a Finding> {
    let bad: Vec<_> = checkup.findings.iter().filter(|it| it.severity <= Severity::Weak || it.id == id).collect();
    ensure!(bad.len() == 1 && bad[0].id == id && bad[0].severity == severity, "not only {id}: {bad:#?}");
    Ok(bad[0])
}

/// The first command of a remedy.
fn command_in(finding: &Finding) -> Result<&str> {
    let remedy = finding.remedy.as_deref().with_context(|| format!("no remedy: {finding:?}"))?;
    remedy.split('`').nth(1).with_context(|| format!("no command in: {remedy}"))
}

fn says(rows: &[Finding], severity: Severity, subject: &Subject, parts: &[&str]) -> Result<()> {
    let [row] = rows else { anyhow::bail!("not one row: {rows:?}") };
    let said = row.sentence();
    ensure!(row.severity == severity && row.subject == *subject, "{row:?}");
    for part in parts {
        ensure!(said.contains(part), "`{part}` is not in: {said}");
    }
    Ok(())
}

fn interface(name: &str) -> Subject {
    Subject::Interface(name.into())
}

fn all_is_well() -> Result<()> {
    let host = Host::new()?;
    let before = host.examine("up0")?;
    ensure!(before.blind + before.weak == 0, "{before:#?}");
    let ids: HashSet<&str> = before.findings.iter().map(|finding| finding.id.as_str()).collect();
    let expected = "agent bpffs bypass_devices capabilities clock config duplicate_links interface_up interfaces jit \
                    kernel_btf kernel_features lro mtu native_mode other_guard other_xdp_program program replies \
                    rogue_servers sriov_vfs state_dir tcx_in_front unguarded_taps vhost_user vlan_offload";
    ensure!(ids == expected.split_whitespace().collect(), "{ids:?}");
    ensure!(programs(&host.netns)?.is_empty(), "something was attached: {:?}", programs(&host.netns)?);
    ensure!(!host.launch.folder().path("state").exists(), "the state folder was made");

    let agent = host.launch.clone().start()?;
    let with_agent = host.examine("up0")?;
    ensure!(with_agent.blind + with_agent.weak == 0, "{with_agent:#?}");
    ensure!(is_ok(&rows(&with_agent, "agent")) && is_ok(&rows(&with_agent, "attached")), "{with_agent:#?}");
    let (severity, mode) = match current_hook() {
        Some(Hook::Tcx) => (Severity::Info, "by TCX"),
        _ => (Severity::Ok, "runs in the driver"),
    };
    says(&rows(&with_agent, "native_mode"), severity, &interface("up0"), &[mode])?;
    // Nothing that was asked has disturbed it.
    ensure!(agent.json(&["status"])?["warnings"] == json!([]), "{}", agent.log());
    // What is to be guarded and is not.
    says(&host.rows("up1", "agent")?, Severity::Weak, &Subject::Host, &["does not guard up1"])?;

    let output = process::output_within(host.command("up0", &[]), DEADLINE)?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && text.starts_with("nothing makes the guard blind or weak here"), "{text}");
    print!("{text}");
    Ok(())
}

fn vlan_offload() -> Result<()> {
    let host = Host::new()?;
    let offload = || host.netns.exec(&["ethtool", "-K", "up0", "rxvlan", "on"]);
    const PORT: &str = "[[port]]\ninterface = 'up0'\nvlans = [100]\n";
    offload()?;
    // TCX sees the tags, and is what `auto` takes there.
    host.config(PORT)?;
    says(&host.rows("up0", "vlan_offload")?, Severity::Ok, &interface("up0"), &["TCX sees them"])?;
    says(&host.rows("up0", "native_mode")?, Severity::Info, &interface("up0"), &["by TCX", "rxvlan off"])?;
    host.config("hook = 'xdp'\n")?;
    host.mends("up0", "vlan_offload", Severity::Weak)?;

    host.config(&format!("hook = 'xdp'\n{PORT}"))?;
    offload()?;
    let blind = host.launch.run_to_its_end()?;
    let said = errors(&blind);
    ensure!(blind.status.code() == Some(2), "{said}");
    let last = said.lines().last().unwrap_or_default();
    for part in ["dhcp-guard: the guard would be blind: interface up0", "up0.100", "rxvlan off", "--even-if-blind"] {
        ensure!(last.contains(part), "`{part}` is not in: {said}");
    }
    ensure!(programs(&host.netns)?.is_empty(), "something is attached: {:?}", programs(&host.netns)?);
    ensure!(!host.launch.socket_path().exists(), "the socket is left");

    let agent = host.launch.clone().arguments(&["--even-if-blind"]).start()?;
    let warnings = agent.json(&["status"])?["warnings"].to_string();
    ensure!(warnings.contains("ethtool -K up0 rxvlan off"), "{warnings}");
    drop(agent);
    host.launch.cli(&["detach"]).output()?;
    // Nobody said that an interface must be guarded right that only matches a pattern.
    let by_pattern = Launch::new(&host.netns, &["up*"])?.config(&format!("hook = 'xdp'\n{PORT}"))?.start()?;
    let warnings = by_pattern.json(&["status"])?["warnings"].to_string();
    ensure!(warnings.contains("ethtool -K up0 rxvlan off"), "{warnings}");
    let launch = by_pattern.launch().clone();
    drop(by_pattern);
    launch.cli(&["detach"]).output()?;
    host.mends("up0", "vlan_offload", Severity::Blind)?;
    // Mended, it is not refused any more.
    host.launch.clone().start().map(drop)
}

/// Where the guard is counts, not where it would be.
fn offload_after_start() -> Result<()> {
    let host = Host::new()?;
    host.config("[[port]]\ninterface = 'up0'\nvlans = [100]\n")?;
    let agent = host.launch.clone().start()?;
    ensure!(agent.json(&["status"])?["interfaces"][0]["mode"] == "native", "{}", agent.log());
    ensure!(is_ok(&host.rows("up0", "vlan_offload")?), "tags stay in the frame");
    host.netns.exec(&["ethtool", "-K", "up0", "rxvlan", "on"])?;
    let parts = ["nothing is ever seen on up0.100", "systemctl restart dhcp-guard"];
    says(&host.rows("up0", "vlan_offload")?, Severity::Blind, &interface("up0"), &parts)?;
    // The other remedy: a new start takes the other hook.
    drop(agent);
    let _agent = host.launch.clone().start()?;
    says(&host.rows("up0", "vlan_offload")?, Severity::Ok, &interface("up0"), &["TCX sees them"])?;
    says(&host.rows("up0", "native_mode")?, Severity::Info, &interface("up0"), &["is guarded by TCX"])
}

fn lost_without_agent() -> Result<()> {
    let host = Host::new()?;
    let both = ["up0", "up1"];
    let launch = host.launch.clone().only(&both);
    let mut agent = launch.clone().start()?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    ensure!(is_ok(&host.rows("up1", "attached")?), "its guard is left");
    fs::remove_file(launch.link_pin("up1")?)?;
    // The kernel lets go of what was pinned a moment later.
    let is_off = || Ok(programs(&host.netns)?.iter().all(|program| program.interface != "up1"));
    wait::until("the guard of up1 to be gone", DEADLINE, is_off)?;
    let parts = ["it is not guarded, and no agent runs", "systemctl start dhcp-guard"];
    says(&host.rows("up1", "attached")?, Severity::Blind, &interface("up1"), &parts)?;
    ensure!(is_ok(&host.rows("up0", "attached")?), "the other one's is left");
    // A query says so, too.
    host.config("interfaces = ['up0', 'up1']\n")?;
    let config = host.launch.folder().path("dhcp-guard.toml").display().to_string();
    let status = process::output_within(launch.cli(&["status", "--config", &config]), DEADLINE)?;
    let text = String::from_utf8(status.stdout.clone())?;
    ensure!(text.contains("warning: interface up1 is configured and not guarded"), "{text}{}", errors(&status));
    ensure!(!text.contains("pid 0") && text.starts_with("guarding up0 (native)"), "{text}");
    Ok(())
}

fn interfaces() -> Result<()> {
    let host = Host::new()?;
    host.mends("down0", "interface_up", Severity::Blind)?;
    let missing = host.examine("nosuch0")?;
    let finding = only(&missing, "interface_up", Severity::Blind)?;
    ensure!(finding.sentence().contains("interface nosuch0: there is no such interface"), "{finding:?}");
    host.netns.ip("link add nosuch0 type veth peer name peer3\nlink set nosuch0 up\nlink set peer3 up\n")?;
    ensure!(is_ok(&host.rows("nosuch0", "interface_up")?), "made, it is there");

    let config = host.launch.folder().path("dhcp-guard.toml").display().to_string();
    let nothing = examine(host.launch.cli(&["doctor", "--json", "--config", &config]))?.remove(0);
    only(&nothing, "interfaces", Severity::Blind)?;
    // A configuration that is wrong is an error, not a finding.
    host.config("mod = 'monitor'\n")?;
    let output = process::output_within(host.command("up0", &[]), DEADLINE)?;
    ensure!(output.status.code() == Some(2) && output.stdout.is_empty(), "{}", errors(&output));
    ensure!(errors(&output).contains("did you mean `mode`?"), "{}", errors(&output));
    Ok(())
}

fn another_program() -> Result<()> {
    let host = Host::new()?;
    for mode in [XdpMode::Driver, XdpMode::Skb] {
        let control = Control::attach(&host.netns, "up0", Verdict::Pass, mode)?;
        let found = host.examine("up0")?;
        let finding = only(&found, "other_xdp_program", Severity::Blind)?;
        let sentence = finding.sentence();
        ensure!(sentence.contains("XDP program pass (id ") && sentence.contains("not displace"), "{sentence}");
        drop(control);
        ensure!(is_ok(&host.rows("up0", "other_xdp_program")?), "taken off, it is gone");
    }
    Ok(())
}

/// `doctor`, then what a shell does, then `doctor` again, in one mount namespace that `before` prepares.
fn around(host: &Host, before: &str, between: &str) -> Result<[Checkup; 2]> {
    let script = format!("{{ {before}; }} && {{ \"$@\"; {between}; }} && exec \"$@\"");
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let launch = host.launch.clone().through(&wrapper).pins("/sys/fs/bpf/dhcp-guard".into());
    let through = Host { netns: host.netns.clone(), launch };
    let all = examine(through.command("up0", &["--json"]))?;
    all.try_into().map_err(|all: Vec<_>| anyhow::anyhow!("{} documents", all.len()))
}

fn bpffs() -> Result<()> {
    const MISSING: &str = "mount -t bpf bpf /sys/fs/bpf";
    const READ_ONLY: &str = "mount -o remount,rw /sys/fs/bpf";
    let host = Host::new()?;
    // Wherever the machine has one it is mounted outside, too, and then it counts as hidden.
    let [without, mended] = around(&host, "umount -q /sys/fs/bpf || true", MISSING)?;
    // Where it is only missing, the agent mounts one.
    let hidden = rows(&without, "bpffs").iter().any(|row| row.what.contains("hides"));
    let finding = only(&without, "bpffs", if hidden { Severity::Weak } else { Severity::Info })?;
    ensure!(finding.subject == Subject::File("/sys/fs/bpf/dhcp-guard".into()), "{finding:?}");
    ensure!(hidden || command_in(finding)? == MISSING, "{finding:?}");
    ensure!(is_ok(&rows(&mended, "bpffs")), "{:?}", rows(&mended, "bpffs"));

    // What `ip netns exec` does to a process.
    let [hidden, mended] = around(&host, "mount -t bpf bpf /sys/fs/bpf && mount -t sysfs none /sys", "umount /sys")?;
    let finding = only(&hidden, "bpffs", Severity::Weak)?;
    ensure!(finding.what.contains("ip netns exec") && finding.sentence().contains("nsenter --net"), "{finding:?}");
    ensure!(is_ok(&rows(&mended, "bpffs")), "{:?}", rows(&mended, "bpffs"));

    let [read_only, mended] = around(&host, "mount -t bpf -o ro bpf /sys/fs/bpf", READ_ONLY)?;
    let finding = only(&read_only, "bpffs", Severity::Weak)?;
    ensure!(finding.what.contains("read-only") && command_in(finding)? == READ_ONLY, "{finding:?}");
    ensure!(is_ok(&rows(&mended, "bpffs")), "{:?}", rows(&mended, "bpffs"));
    Ok(())
}

fn capabilities() -> Result<()> {
    let host = Host::new()?;
    let through = |words: &[&str]| -> Result<Checkup> {
        let wrapper = [&["setpriv"], words].concat();
        let host = Host { netns: host.netns.clone(), launch: host.launch.clone().for_everyone()?.through(&wrapper) };
        host.examine("up0")
    };
    for name in ["bpf", "net_admin", "perfmon"] {
        let checkup = through(&[&format!("--inh-caps=-{name}"), &format!("--bounding-set=-{name}")])?;
        let found = rows(&checkup, "capabilities");
        says(
            &found,
            Severity::Blind,
            &Subject::Host,
            &[&format!("CAP_{}", name.to_uppercase()), "AmbientCapabilities="],
        )?;
    }
    // A user without any rights is told what could be seen, and is not told what could not.
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let checkup = through(&nobody)?;
    let all = ["CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON", "`sudo dhcp-guard doctor`"];
    says(&rows(&checkup, "capabilities"), Severity::Blind, &Subject::Host, &all)?;
    ensure!(is_ok(&rows(&checkup, "interface_up")) && rows(&checkup, "program").is_empty(), "{checkup:#?}");
    ensure!(rows(&checkup, "kernel_features").iter().all(|row| row.severity >= Severity::Info), "{checkup:#?}");
    // With what is asked for, nothing is missing.
    let checkup = through(&["--inh-caps=+bpf,+net_admin,+perfmon", "--ambient-caps=+bpf,+net_admin,+perfmon"])?;
    ensure!(is_ok(&rows(&checkup, "capabilities")) && is_ok(&rows(&checkup, "program")), "{checkup:#?}");
    Ok(())
}

fn generic_mode() -> Result<()> {
    let host = Host::new()?;
    host.netns.ip("link add br0 type bridge\nlink set br0 up\nlink set up0 master br0\n")?;
    link::keep_vlan_tags(&host.netns, "br0").ok();
    // `auto` takes TCX there.
    says(&host.rows("br0", "native_mode")?, Severity::Info, &interface("br0"), &["by TCX"])?;
    host.config("hook = 'xdp'\n")?;
    let before = host.examine("br0")?;
    let finding = only(&before, "native_mode", Severity::Weak)?;
    ensure!(finding.what.contains("no native XDP"), "{finding:?}");
    // What it says to do names an interface that has it.
    let members = host.netns.exec(&["sh", "-c", command_in(finding)?])?;
    ensure!(members.starts_with("up0"), "{members}");
    ensure!(is_ok(&host.rows("up0", "native_mode")?), "its member");

    let bridge = Launch::new(&host.netns, &["br0"])?.config("hook = 'xdp'\n")?;
    let _agent = bridge.socket(host.launch.socket_path().to_owned()).start()?;
    let with_agent = host.examine("br0")?;
    let finding = only(&with_agent, "native_mode", Severity::Weak)?;
    ensure!(finding.what.starts_with("the guard runs in generic mode"), "{finding:?}");
    Ok(())
}

fn mtu() -> Result<()> {
    let host = Host::new()?;
    host.netns.ip("tuntap add dev tap0 mode tap\nlink set tap0 mtu 9000 up\n")?;
    link::keep_vlan_tags(&host.netns, "tap0").ok();
    says(&host.rows("tap0", "mtu")?, Severity::Info, &interface("tap0"), &["MTU 9000", "mtu 1500"])?;
    host.mends("tap0", "mtu", Severity::Info)?;
    // A veth takes packets in several buffers.
    host.netns.ip("link set up0 mtu 9000\n")?;
    says(&host.rows("up0", "mtu")?, Severity::Ok, &interface("up0"), &["several buffers natively"])
}

fn another_guard() -> Result<()> {
    let host = Host::new()?;
    // Taken off, it must stay off: an agent would put it on again.
    let mut theirs = Agent::start(&host.netns, &["up0"], "reattach = false\n")?;
    let found = host.examine("up0")?;
    let none = format!("no agent answers on {}", host.launch.socket_path().display());
    let rows_of = |id| rows(&found, id);
    says(&rows_of("other_guard"), Severity::Weak, &interface("up0"), &["dhcp_guard", &none, "--socket"])?;
    says(&rows_of("agent"), Severity::Weak, &Subject::Host, &[&none, "limits go on"])?;
    // With its socket, as the row says, it is known; and with its pins alone, too.
    let known = Host { netns: host.netns.clone(), launch: host.launch.clone().socket(theirs.socket()) };
    ensure!(is_ok(&known.rows("up0", "other_guard")?), "its socket was named");
    let pins = host.launch.clone().pins(theirs.launch().pin_dir().to_owned());
    let pinned = Host { netns: host.netns.clone(), launch: pins };
    ensure!(is_ok(&pinned.rows("up0", "other_guard")?), "its pins were named");

    // Somebody takes its program off, and starts another agent.
    take_off(&host.netns, "up0")?;
    says(&known.rows("up0", "attached")?, Severity::Blind, &interface("up0"), &["taken", "`dhcp-guard reload`"])?;
    // Until it has noticed, it says to other agents that it guards here.
    wait::until("the loss to be noticed", Duration::from_secs(10), || {
        Ok(theirs.json(&["status"])?["interfaces"][0]["mode"] == "detached")
    })?;
    let _ours = host.launch.clone().start()?;
    let found = host.examine("up0")?;
    let finding = only(&found, "duplicate_links", Severity::Weak)?;
    ensure!(finding.what.starts_with("2 programs of dhcp-guard"), "{finding:?}");
    ensure!(theirs.stop(libc::SIGTERM)?.success(), "{}", theirs.log());
    theirs.detach()?;
    ensure!(is_ok(&host.rows("up0", "duplicate_links")?), "the other one is off");
    Ok(())
}

fn past_the_guard() -> Result<()> {
    let host = Host::new()?;
    host.netns.ip("link add mv0 link up0 type macvtap\n")?;
    let found = host.examine("up0")?;
    let finding = only(&found, "bypass_devices", Severity::Weak)?;
    ensure!(finding.sentence().contains("mv0"), "{finding:?}");
    // An agent says so, too, and guards.
    let agent = host.launch.clone().start()?;
    let warnings = agent.json(&["status"])?["warnings"].to_string();
    ensure!(warnings.contains("interface up0: what mv0 send"), "{warnings}");
    drop(agent);
    host.launch.cli(&["detach"]).output()?;
    host.netns.ip("link delete mv0\n")?;
    ensure!(is_ok(&host.rows("up0", "bypass_devices")?), "it was deleted");

    host.netns.ip(
        "link add br0 type bridge\nlink set up0 master br0\ntuntap add dev tap0 mode tap\nlink set tap0 master br0\n",
    )?;
    says(&host.rows("up0", "unguarded_taps")?, Severity::Info, &Subject::Host, &["tap0", "-i tap0`"])?;
    host.netns.ip("link set tap0 nomaster\n")?;
    ensure!(is_ok(&host.rows("up0", "unguarded_taps")?), "the tap is on no bridge");

    // Nobody has OVS-DPDK here; the command line of a guest with such a network is all that is looked at.
    let mut guest = Command::new("sh");
    guest.args(["-c", "read line", "qemu", "-netdev", "vhost-user,id=n0,chardev=c0"]).stdin(Stdio::piped());
    process::die_with_parent(&mut guest);
    let mut guest = guest.spawn()?;
    let named = format!("sh (pid {})", guest.id());
    says(&host.rows("up0", "vhost_user")?, Severity::Weak, &Subject::Host, &[&named, "not covered"])?;
    drop(guest.stdin.take());
    guest.wait()?;
    ensure!(is_ok(&host.rows("up0", "vhost_user")?), "the guest has ended");
    Ok(())
}

fn files() -> Result<()> {
    let host = Host::new()?;
    host.config("inventory = 'machines.csv'\n")?;
    let folder = host.launch.folder();
    let missing = host.examine("up0")?;
    let finding = only(&missing, "inventory", Severity::Weak)?;
    ensure!(finding.what.contains("cannot read the inventory"), "{finding:?}");
    let inventory = folder.write("machines.csv", "server_id,interface\n,up0\n")?;
    let broken = host.examine("up0")?;
    let finding = only(&broken, "inventory", Severity::Weak)?;
    ensure!(finding.what.contains("line 2: server_id is empty"), "{finding:?}");
    ensure!(finding.subject == Subject::File(inventory.display().to_string()), "{finding:?}");
    folder.write("machines.csv", "server_id,interface\nem-1,up0\n")?;
    ensure!(is_ok(&host.rows("up0", "inventory")?), "it was mended");

    host.config("[[port]]\ninterface = 'up9'\n")?;
    let odd = host.examine("up0")?;
    let finding = only(&odd, "config", Severity::Weak)?;
    ensure!(finding.what.contains("interface up9 is not guarded"), "{finding:?}");
    host.config("")?;
    ensure!(is_ok(&host.rows("up0", "config")?), "it was mended");

    let state = folder.path("state");
    fs::create_dir(&state)?;
    fs::write(state.join("state.json"), "{}")?;
    let foreign = host.examine("up0")?;
    let finding = only(&foreign, "state_dir", Severity::Weak)?;
    ensure!(finding.what.contains("is not a state of dhcp-guard"), "{finding:?}");
    ensure!(fs::read_to_string(state.join("state.json"))? == "{}", "it was moved");
    fs::remove_dir_all(&state)?;
    fs::write(&state, "precious")?;
    let no_folder = host.examine("up0")?;
    ensure!(rows(&no_folder, "state_dir")[0].what.contains("it is not a folder"), "{no_folder:#?}");
    fs::remove_file(&state)?;
    ensure!(is_ok(&host.rows("up0", "state_dir")?), "it is out of the way");
    Ok(())
}
