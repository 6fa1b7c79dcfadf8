//! The Debian package's life, in a clean Debian with a systemd of its own: installed, started, upgraded, removed, purged.

use std::{collections::BTreeSet, env, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tests::{
    clean_root::CleanRoot,
    harness::{Need, PACKAGES, trial},
    wait,
};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::BpfObject,
    Need::Package,
    Need::Tool("mmdebstrap"),
    Need::Tool("nsenter"),
    Need::Tool("tar"),
    Need::Tool("unshare"),
];
const UNIT: &str = "dhcp-guard.service";
const CONFIG: &str = "/etc/dhcp-guard/dhcp-guard.toml";
/// What an administrator writes.
const CONFIGURED: &str = "interfaces = [\"up0\"]\nhook = \"xdp\"\n";
/// Capabilities of the unit, as the kernel shows them: CAP_NET_ADMIN (12), CAP_PERFMON (38), CAP_BPF (39).
const KEPT: u64 = 1 << 12 | 1 << 38 | 1 << 39;
/// The agent gives a sign of life, and reads its counters, once a second.
const SOON: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("package: installed, started, upgraded, removed and purged, it leaves nothing", NEEDS, life),
        trial("package: the unit is right, and its exposure low", NEEDS, unit),
    ]
}

fn packages() -> Result<[PathBuf; 2]> {
    let path = |name| env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set"));
    Ok([path(PACKAGES[0])?, path(PACKAGES[1])?])
}

/// A clean root with both packages in /.
fn machine() -> Result<CleanRoot> {
    let [first, next] = packages()?;
    let machine = CleanRoot::boot()?;
    machine.copy(&first, "/first.deb")?;
    machine.copy(&next, "/next.deb")?;
    Ok(machine)
}

fn unit() -> Result<()> {
    let machine = machine()?;
    machine.run(&["dpkg", "-i", "/first.deb"])?;
    let verified = machine.output(&["systemd-analyze", "verify", "--man=no", UNIT])?;
    ensure!(verified.status.success(), "systemd-analyze verify: {}", String::from_utf8_lossy(&verified.stderr));
    let complaints = [verified.stdout, verified.stderr].concat();
    // It also speaks of units that are Debian's.
    let complaints: Vec<_> =
        std::str::from_utf8(&complaints)?.lines().filter(|line| line.contains("dhcp-guard")).collect();
    ensure!(complaints.is_empty(), "systemd-analyze verify: {complaints:?}");
    let security = machine.run(&["systemd-analyze", "security", "--threshold=20", "--no-pager", UNIT])?;
    let score = security.lines().find(|line| line.contains("exposure level")).context("no score")?;
    println!("systemd-analyze security: {}", score.trim_start_matches(['→', ' ']));
    Ok(())
}

fn life() -> Result<()> {
    let machine = machine()?;
    let before = files(&machine)?;
    let lists = || -> Result<String> {
        let list = |name: &str| fs::read_to_string(machine.path(name));
        Ok(list("/etc/passwd")? + &list("/etc/group")?)
    };
    let users = lists()?;

    machine.run(&["dpkg", "-i", "/first.deb"])?;
    installed(&machine)?;
    let pid = started(&machine)?;
    let pid = reloaded(&machine, pid)?;
    upgraded(&machine, pid)?;
    upgraded_to_one_that_does_not_start(&machine)?;
    removed(&machine)?;

    machine.run(&["dpkg", "--purge", "dhcp-guard"])?;
    let after = files(&machine)?;
    ensure!(after == before, "left: {:?}; gone: {:?}", &after - &before, &before - &after);
    ensure!(lists()? == users, "user or group are left: {}", lists()?);
    let mode = machine.run(&["stat", "-c", "%a %U:%G", "/sys/fs/bpf"])?;
    ensure!(mode == "700 root:root\n", "/sys/fs/bpf is left as {mode}");
    Ok(())
}

/// After the installation: everything is there, nothing runs.
fn installed(machine: &CleanRoot) -> Result<()> {
    let state = machine.output(&["systemctl", "is-enabled", UNIT])?.stdout;
    ensure!(state == b"disabled\n", "the unit is {:?} by itself", String::from_utf8_lossy(&state));
    ensure!(!active(machine)?, "it was started without an interface to guard");
    for file in [
        "/usr/share/man/man8/dhcp-guard-quarantine-add.8.gz",
        "/usr/share/man/man5/dhcp-guard.toml.5.gz",
        "/usr/share/bash-completion/completions/dhcp-guard",
        "/usr/share/doc/dhcp-guard/examples/inventory.example.csv",
    ] {
        ensure!(machine.path(file).is_file(), "there is no {file}");
    }
    machine.run(&["dhcp-guard", "config", "check"]).map(drop)
}

/// Enabled and started, it guards, as a user who may do nothing else. Its process.
fn started(machine: &CleanRoot) -> Result<u32> {
    machine.run(&["ip", "link", "add", "up0", "type", "veth", "peer", "name", "peer0"])?;
    machine.run(&["ip", "link", "set", "up0", "up"])?;
    machine.run(&["ip", "link", "set", "peer0", "up"])?;
    fs::write(machine.path(CONFIG), CONFIGURED)?;
    machine.run(&["systemctl", "enable", "--now", UNIT]).with_context(|| journal(machine))?;

    // Type=notify: it is started when it says so, and then it guards.
    ensure!(xdp(machine)?, "started, and no program on the interface: {}", journal(machine));
    let status = status(machine)?;
    ensure!(status["interfaces"][0]["mode"] == "native", "{status}");
    let said = property(machine, "StatusText")?;
    ensure!(said == "guarding up0 (native) in enforce mode", "systemctl status says {said:?}");
    least_rights(machine, main_process(machine)?)?;
    let alive = property(machine, "WatchdogTimestampMonotonic")?;
    wait::until("signs of life", SOON, || Ok(property(machine, "WatchdogTimestampMonotonic")? != alive))?;
    stopped_and_detached(machine, &status["warnings"])?;
    let pid = main_process(machine)?;
    // For the upgrade to keep.
    machine.run(&["dhcp-guard", "allow", "add", "up0", "--reason", "kept"])?;
    Ok(pid)
}

/// Stopping it takes no protection away, also after the guard was taken off by hand once.
fn stopped_and_detached(machine: &CleanRoot, warnings: &Value) -> Result<()> {
    for detach in [false, true, false] {
        machine.run(&["systemctl", "stop", UNIT])?;
        ensure!(xdp(machine)?, "stopped, and not guarded any more: {}", journal(machine));
        if detach {
            machine.run(&["dhcp-guard", "detach"])?;
            ensure!(!xdp(machine)?, "detached, and still guarded");
        }
        machine.run(&["systemctl", "start", UNIT]).with_context(|| journal(machine))?;
        let now = status(machine)?;
        ensure!(now["warnings"] == *warnings, "after a restart: {}, before: {warnings}", now["warnings"]);
    }
    Ok(())
}

/// Every thread is the user's, with the capabilities that running needs, and no program that it starts gets any.
fn least_rights(machine: &CleanRoot, pid: u32) -> Result<()> {
    let outside = machine.process(pid)?;
    let uid = machine.run(&["id", "-u", "dhcp-guard"])?;
    for thread in fs::read_dir(format!("/proc/{outside}/task")).context("the agent has no threads")? {
        let path = thread?.path();
        let status = fs::read_to_string(path.join("status"))?;
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
        let set =
            |key: &str| u64::from_str_radix(line(key), 16).with_context(|| format!("{key} of {}", path.display()));
        let name = line("Name:");
        ensure!(line("Uid:").split_whitespace().all(|id| id == uid.trim()), "{name} is uid {}", line("Uid:"));
        ensure!(set("CapBnd:")? == KEPT, "the bounding set of {name} is {}", line("CapBnd:"));
        ensure!(set("CapPrm:")? & !KEPT == 0, "{name} may {}", line("CapPrm:"));
        ensure!(set("CapAmb:")? == 0 && set("CapInh:")? == 0, "{name} leaves capabilities to what it starts");
        ensure!(line("NoNewPrivs:") == "1" && line("Seccomp:") == "2", "{name} is not confined");
    }
    Ok(())
}

/// Reloading does not end it; hanging does. Its process then.
fn reloaded(machine: &CleanRoot, pid: u32) -> Result<u32> {
    machine.run(&["systemctl", "reload", UNIT])?;
    status(machine)?;
    ensure!(main_process(machine)? == pid, "reloading has restarted it: {}", journal(machine));
    let folder = "/run/systemd/system/dhcp-guard.service.d";
    let settings = "[Service]\nWatchdogSec=3s\nTimeoutAbortSec=1s\nRestartSec=100ms\n";
    let script = format!("mkdir -p {folder} && printf '%s' '{settings}' >{folder}/test.conf");
    machine.run(&["sh", "-c", &script])?;
    machine.run(&["systemctl", "daemon-reload"])?;
    machine.run(&["systemctl", "restart", UNIT])?;
    let pid = main_process(machine)?;
    machine.run(&["systemctl", "kill", "--signal=STOP", "--kill-who=main", UNIT])?;
    wait::until("the restart of an agent that hangs", 3 * SOON, || {
        let now = main_process(machine)?;
        Ok(now != 0 && now != pid && active(machine)?)
    })?;
    machine.run(&["rm", "-r", folder])?;
    machine.run(&["systemctl", "daemon-reload"])?;
    main_process(machine)
}

/// The new package's agent runs, with what the old one knew.
fn upgraded(machine: &CleanRoot, pid: u32) -> Result<()> {
    let links = links(machine)?;
    machine.run(&["dpkg", "-i", "/next.deb"])?;
    let version = machine.run(&["dpkg-query", "-W", "-f", "${Version}", "dhcp-guard"])?;
    ensure!(version.ends_with("+next"), "the version is {version}");
    ensure!(fs::read_to_string(machine.path(CONFIG))? == CONFIGURED, "the configuration is not the administrator's");
    wait::until("the new agent", SOON, || active(machine))?;
    ensure!(main_process(machine)? != pid, "the old agent still runs");
    ensure!(xdp(machine)?, "nothing guards after the upgrade: {}", journal(machine));
    ensure!(self::links(machine)? == links, "the guard was taken off and put on again: {}", journal(machine));
    let allowed = machine.run(&["dhcp-guard", "allow", "list", "--json"])?;
    ensure!(allowed.contains("\"kept\""), "the allowlist is lost: {allowed}");
    Ok(())
}

/// The package is installed all the same, what was guarded stays guarded, and the upgrade that mends it starts the agent.
fn upgraded_to_one_that_does_not_start(machine: &CleanRoot) -> Result<()> {
    let links = links(machine)?;
    fs::write(machine.path(CONFIG), "interfaces = [\"nosuch0\"]\n")?;
    let said = machine.output(&["dpkg", "-i", "/next.deb"])?;
    let errors = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success() && errors.contains("what was guarded stays guarded"), "dpkg: {errors}");
    ensure!(!active(machine)? && self::links(machine)? == links, "it runs, or has let go: {}", journal(machine));
    fs::write(machine.path(CONFIG), CONFIGURED)?;
    machine.run(&["dpkg", "-i", "/next.deb"])?;
    ensure!(active(machine)? && self::links(machine)? == links, "{}", journal(machine));
    Ok(())
}

/// Stopped, and off the interfaces; the configuration stays.
fn removed(machine: &CleanRoot) -> Result<()> {
    machine.run(&["dpkg", "--remove", "dhcp-guard"])?;
    ensure!(!active(machine)?, "the agent still runs");
    ensure!(!xdp(machine)?, "the program is still on the interface");
    ensure!(machine.path(CONFIG).is_file(), "the configuration is gone");
    ensure!(!machine.path("/usr/bin/dhcp-guard").exists(), "the binary is left");
    // The kernel has files of its own there.
    let pins = machine.run(&["ls", "/sys/fs/bpf"])?;
    ensure!(!pins.contains("dhcp-guard"), "left on the BPF file system: {pins}");
    Ok(())
}

fn active(machine: &CleanRoot) -> Result<bool> {
    Ok(machine.output(&["systemctl", "is-active", UNIT])?.stdout == b"active\n")
}

fn main_process(machine: &CleanRoot) -> Result<u32> {
    property(machine, "MainPID")?.parse().context("MainPID is no number")
}

fn property(machine: &CleanRoot, name: &str) -> Result<String> {
    Ok(machine.run(&["systemctl", "show", "--value", "-p", name, UNIT])?.trim().to_owned())
}

fn status(machine: &CleanRoot) -> Result<Value> {
    Ok(serde_json::from_str(&machine.run(&["dhcp-guard", "status", "--json"])?)?)
}

/// What holds the programs on the interfaces: a file of another number holds another link.
fn links(machine: &CleanRoot) -> Result<String> {
    let links = machine.run(&["sh", "-c", "stat -c '%n %i' /sys/fs/bpf/dhcp-guard/links/*"])?;
    ensure!(links.contains("xdp-"), "nothing is pinned: {links}");
    Ok(links)
}

fn xdp(machine: &CleanRoot) -> Result<bool> {
    Ok(machine.run(&["ip", "link", "show", "up0"])?.contains("prog/xdp"))
}

/// What the agent logged.
fn journal(machine: &CleanRoot) -> String {
    let log = machine.run(&["journalctl", "--no-pager", "-n", "40", "-u", UNIT]);
    log.unwrap_or_else(|error| format!("{error:#}"))
}

/// All files but those that every use of a machine changes: logs, dpkg's own records, copies of old user lists.
fn files(machine: &CleanRoot) -> Result<BTreeSet<String>> {
    const CHANGING: &[&str] = &["/var/log/", "/var/lib/dpkg/", "/var/cache/", "/var/lib/systemd/"];
    const COPIES: &[&str] = &["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock"];
    // Through a file: it is more than a pipe holds.
    machine.run(&["sh", "-c", "find / -xdev >/var/log/files"])?;
    let found = fs::read_to_string(machine.path("/var/log/files"))?;
    let lasting = |path: &&str| !CHANGING.iter().any(|folder| path.starts_with(folder)) && !COPIES.contains(path);
    Ok(found.lines().filter(lasting).map(str::to_owned).collect())
}
