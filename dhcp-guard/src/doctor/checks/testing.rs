//! For the checks' tests: a host on which all is well, and rows of it.

use std::collections::BTreeSet;

use crate::{
    dataplane::hook,
    doctor::facts::{Agent, Clock, Facts, Interface, Link, Pins, Program, StateDir, Wanted, XdpFeatures},
    model::{AttachMode, Finding, Severity, Subject},
};

/// A host with one card, `eth0`, and an agent that guards it.
pub(super) fn healthy() -> Facts {
    let link = Link {
        ifindex: 7,
        up: true,
        mtu: 1500,
        hook: hook::Facts { has_tcx: true, ..hook::Facts::default() },
        xdp_features: Some(XdpFeatures { native: true, multi_buffer: true }),
        xdp: Some(on_xdp("dhcp_guard")),
        tcx_in: Some(vec![]),
        tcx_out: Some(vec![program(41, "dhcp_replies")]),
        clsact_in: Some(vec![]),
        clsact_out: Some(vec![]),
        ..Link::default()
    };
    let mut facts = Facts {
        interfaces: vec![Interface { name: "eth0".into(), link: Some(link) }],
        wanted: Wanted {
            file: Some("/etc/dhcp-guard/dhcp-guard.toml".into()),
            trusted: true,
            inventory: Some(("/etc/dhcp-guard/machines.csv".into(), vec![])),
            ..Wanted::default()
        },
        pins: Some(Pins { dir: "/sys/fs/bpf/dhcp-guard".into(), on_bpffs: true, ..Pins::default() }),
        clock: Some(Clock { ticks_per_s: 250, measured: Some(251) }),
        agent: Some(Agent::Runs {
            pid: 4711,
            version: env!("CARGO_PKG_VERSION").into(),
            guards: vec![("eth0".into(), 7, AttachMode::Native)],
        }),
        state_dir: Some(StateDir { dir: "/var/lib/dhcp-guard".into(), ..StateDir::default() }),
        vhost_user: Some(vec![]),
        ..Facts::default()
    };
    facts.kernel.btf = Some(true);
    facts.kernel.jit = Some(true);
    facts.kernel.program = Some(Ok(()));
    facts
}

pub(super) fn program(id: u32, name: &str) -> Program {
    Program { id, name: name.into() }
}

pub(super) fn on_xdp(name: &str) -> crate::doctor::facts::OnXdp {
    crate::doctor::facts::OnXdp { program: program(40, name), native: true }
}

/// What a change makes of the healthy host's interface.
pub(super) fn with_link(change: impl FnOnce(&mut Link)) -> Facts {
    with(|facts| change(facts.interfaces[0].link.as_mut().unwrap()))
}

/// What a change makes of the healthy host.
pub(super) fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = healthy();
    change(&mut facts);
    facts
}

/// The one row of a check, on the healthy host and on a changed one: there it must be `severity`, be about `subject`, and
/// say all of `parts`; on the healthy one it must be ok, or not be there.
pub(super) fn check(id: &str, changed: &Facts, severity: Severity, subject: &str, parts: &[&str]) {
    for healthy in rows(id, &healthy()) {
        assert_eq!((healthy.severity, &healthy.remedy), (Severity::Ok, &None), "{healthy:?}");
    }
    let rows = rows(id, changed);
    let [row] = rows.as_slice() else { panic!("not one row: {rows:?}") };
    let name = match &row.subject {
        Subject::Host => "host",
        Subject::Interface(name) | Subject::File(name) => name,
    };
    assert_eq!((row.severity, name), (severity, subject), "{row:?}");
    let said = format!("{}: {}", row.what, row.remedy.as_deref().unwrap_or_default());
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    // Only where something can be done is something to be done.
    assert!(severity >= Severity::Info || row.remedy.as_ref().is_some_and(|it| !it.is_empty()), "{row:?}");
}

pub(super) fn rows(id: &str, facts: &Facts) -> Vec<Finding> {
    super::all(facts).into_iter().filter(|finding| finding.id == id).collect()
}

#[test]
fn every_check_is_documented_and_no_other() {
    let documented = include_str!("../../../../docs/doctor.md").lines();
    let documented: BTreeSet<&str> =
        documented.filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")).map(|(id, _)| id).collect();
    let severities = BTreeSet::from(["blind", "weak", "info", "ok"]);
    let checks = super::all(&healthy());
    let checks: BTreeSet<&str> = checks.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(documented.difference(&severities).copied().collect::<BTreeSet<_>>(), checks);
}

#[test]
fn on_a_healthy_host_all_is_ok() {
    for finding in super::all(&healthy()) {
        assert_eq!((finding.severity, &finding.remedy), (Severity::Ok, &None), "{finding:?}");
    }
}
