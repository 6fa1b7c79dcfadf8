//! Programs on the interfaces, other people's and our own, and the agent they belong to.

use super::Row;
use crate::{
    dataplane::{hook, load, replies},
    doctor::facts::{Agent, Facts, Interface, Link, Program},
    human::duration,
    model::{AttachMode, Finding},
};

/// Ours, on the way in.
pub(super) fn is_guard(program: &Program) -> bool {
    // The kernel keeps 15 bytes of a name: one for another hook may have a suffix.
    program.name.starts_with(load::PROGRAM)
}

/// Ours, on the way out.
fn is_watch(program: &Program) -> bool {
    program.name == replies::PROGRAM
}

/// All of ours on the way in.
fn guards(link: &Link) -> Vec<&Program> {
    let xdp = link.xdp.iter().map(|xdp| &xdp.program);
    xdp.chain(way_in(link)).filter(|program| is_guard(program)).collect()
}

/// All that see frames come in where the network stack begins, in their order.
fn way_in(link: &Link) -> impl Iterator<Item = &Program> {
    link.tcx_in.iter().chain(&link.clsact_in).flatten()
}

/// And leave.
fn way_out(link: &Link) -> impl Iterator<Item = &Program> {
    link.tcx_out.iter().chain(&link.clsact_out).flatten()
}

/// Whether the kernel has no TCX, as far as it says so.
fn lacks_tcx(facts: &Facts) -> bool {
    facts.kernel.features.iter().any(|feature| feature.since == (6, 6) && feature.present == Some(false))
}

/// Whether the kernel has told us all programs of an interface, and their names.
fn is_told(facts: &Facts, link: &Link) -> bool {
    let unnamed = link.xdp.as_ref().is_some_and(|xdp| xdp.program.name.is_empty());
    !unnamed && (link.tcx_in.is_some() || lacks_tcx(facts)) && link.clsact_in.is_some()
}

/// The same of the programs that see frames leave.
fn is_told_of_way_out(facts: &Facts, link: &Link) -> bool {
    (link.tcx_out.is_some() || lacks_tcx(facts)) && link.clsact_out.is_some()
}

/// How the agent that answers says that it guards this very interface; none: it does not.
fn mode_by_agent(facts: &Facts, interface: &Interface, link: &Link) -> Option<AttachMode> {
    let Some(Agent::Runs { guards, .. }) = &facts.agent else { return None };
    let this = guards.iter().find(|(name, ifindex, _)| *name == interface.name && *ifindex == link.ifindex);
    this.map(|(.., mode)| *mode)
}

/// Whether the agent that answers guards this very interface.
fn has_agent(facts: &Facts, interface: &Interface, link: &Link) -> bool {
    mode_by_agent(facts, interface, link).is_some()
}

/// How the guard is on an interface, whoever's it is: as the kernel tells, or, to whom it does not say the names, the agent.
pub(super) fn mode_of_guard(facts: &Facts, interface: &Interface, link: &Link) -> Option<AttachMode> {
    if let Some(xdp) = link.xdp.as_ref().filter(|xdp| is_guard(&xdp.program)) {
        return Some(if xdp.native { AttachMode::Native } else { AttachMode::Generic });
    }
    if link.tcx_in.iter().flatten().any(is_guard) {
        return Some(AttachMode::Tcx);
    }
    if link.clsact_in.iter().flatten().any(is_guard) {
        return Some(AttachMode::Clsact);
    }
    let by_agent = mode_by_agent(facts, interface, link).filter(|mode| *mode != AttachMode::Detached);
    by_agent.filter(|_| !is_told(facts, link))
}

pub(super) fn other_xdp_program(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    let row = Row::of("other_xdp_program", interface);
    let Some(xdp) = &link.xdp else { return Some(row.ok("no other XDP program is on it")) };
    let Program { id, name: program } = &xdp.program;
    if is_guard(&xdp.program) {
        return Some(row.ok("no other XDP program is on it"));
    }
    let remedy = format!(
        "take it off with the tool that put it there (`bpftool prog show id {id}` may name it), or guard another interface"
    );
    if program.is_empty() {
        return (!has_agent(facts, interface, link)).then(|| {
            let what = format!("an XDP program (id {id}) is on it, whose name the kernel does not say to this user");
            row.info(what, "ask as root: `sudo dhcp-guard doctor`")
        });
    }
    let what = format!("it runs the XDP program {program} (id {id})");
    Some(if hook::ways(facts.wanted.hook, link.hook).iter().all(|way| !way.is_xdp()) {
        row.info(format!("{what}, which sees every frame before the guard does"), remedy)
    } else {
        row.blind(format!("{what}, which dhcp-guard will not displace"), remedy)
    })
}

pub(super) fn duplicate_links(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    if !is_told(facts, link) {
        return None;
    }
    let row = Row::of("duplicate_links", interface);
    let watches: Vec<&Program> = way_out(link).filter(|program| is_watch(program)).collect();
    let ids = |programs: &[&Program]| programs.iter().map(|it| it.id.to_string()).collect::<Vec<_>>().join(", ");
    let remedy = "stop the agents that are not needed; `bpftool link show` names the processes and pins that hold the others, `tc \
         filter show` what is a filter";
    let what = match (guards(link).as_slice(), watches.as_slice()) {
        (guards @ [_, _, ..], _) => {
            format!("{} guards are on it (ids {}): each packet is charged by each of them", guards.len(), ids(guards))
        }
        (_, watches @ [_, _, ..]) => {
            format!("{} programs of dhcp-guard count its servers' replies (ids {})", watches.len(), ids(watches))
        }
        _ => return Some(row.ok("it is guarded once at most")),
    };
    Some(row.weak(what, remedy))
}

/// A guard that neither the agent on our socket nor our pins know of.
pub(super) fn other_guard(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    let (row, agent, pins) = (Row::of("other_guard", interface), facts.agent.as_ref()?, facts.pins.as_ref()?);
    if !is_told(facts, link) {
        return None;
    }
    let guards = guards(link);
    let foreign = guards.iter().find(|program| !pins.programs.contains(&program.id));
    let Some(foreign) = foreign.filter(|_| !has_agent(facts, interface, link)) else {
        return Some(row.ok("no guard of another agent is on it"));
    };
    let who = match agent {
        Agent::Runs { pid, .. } => format!("which the agent (pid {pid}) does not know of"),
        Agent::None(socket) => format!("and no agent answers on {}", socket.display()),
        Agent::Unclear(_) => "of an agent that cannot be asked".to_owned(),
    };
    Some(row.weak(
        format!(
            "a guard (program {}, id {}) is on it, {who}, nor is it pinned in {}",
            foreign.name,
            foreign.id,
            pins.dir.display()
        ),
        how_to_know(interface, link, foreign),
    ))
}

/// A filter of tc may be nobody's any more: no link holds it.
fn how_to_know(interface: &Interface, link: &Link, guard: &Program) -> String {
    let name = "name its agent's socket with --socket and its pins with --pin-dir (`ss -xlp | grep dhcp-guard` shows the \
                sockets), or stop that agent";
    if !link.clsact_in.iter().flatten().any(|filter| filter.id == guard.id) {
        return name.to_owned();
    }
    let interface = &interface.name;
    format!(
        "{name}; if its agent and its pins are gone, take it off with `tc filter del dev {interface} ingress`, and the \
         priority and handle that `tc filter show dev {interface} ingress` says of {}",
        guard.name
    )
}

pub(super) fn attached(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    const PUT_BACK: &str = "`dhcp-guard reload` puts it back as soon as nothing is in its place";
    let row = Row::of("attached", interface);
    let mode = mode_by_agent(facts, interface, link);
    // Without an agent only if one has left a guard on this host.
    let is_left = matches!(facts.agent, Some(Agent::None(_)))
        && facts.pins.as_ref().is_some_and(|pins| pins.heartbeat_age_s.is_some() || !pins.programs.is_empty());
    if mode.is_none() && !is_left {
        return None;
    }
    if !guards(link).is_empty() {
        return Some(row.ok(if is_left { "a guard is on it" } else { "the agent's program is on it" }));
    }
    // A program that the kernel does not tell us of may be ours.
    is_told(facts, link).then(|| match mode {
        Some(AttachMode::Detached) => row.blind(
            "it is not guarded, as the agent knows: somebody has taken the guard off, or it could not be put there",
            PUT_BACK,
        ),
        Some(_) => row.blind(
            "the agent's program is not there: somebody has taken it off, and the agent has not noticed yet, which takes it \
             two seconds",
            PUT_BACK,
        ),
        None => row.blind(
            "it is not guarded, and no agent runs that would put the guard there: somebody has taken off what the last agent \
             left, or the interface is new",
            "start the agent: `systemctl start dhcp-guard`",
        ),
    })
}

/// A program, or a filter of tc that runs none.
fn named(Program { id, name }: &Program) -> String {
    if *id == 0 { format!("a filter of tc ({name})") } else { format!("{name} (id {id})") }
}

/// Programs of others that decide before ours.
pub(super) fn in_front(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    if !is_told(facts, link) {
        return None;
    }
    let row = Row::of("tcx_in_front", interface);
    let before = |programs: Vec<&Program>, ours: fn(&Program) -> bool| {
        let place = programs.iter().position(|program| ours(program)).unwrap_or(0);
        programs[..place].iter().map(|program| named(program)).collect::<Vec<_>>()
    };
    let others = [before(way_in(link).collect(), is_guard), before(way_out(link).collect(), is_watch)].concat();
    Some(if others.is_empty() {
        row.ok("no TCX program and no filter of tc decides before those of dhcp-guard")
    } else {
        row.info(
            format!("{} comes before dhcp-guard: what it decides about, dhcp-guard does not see", others.join(", ")),
            "move it behind with the tool that put it there (`bpftool net show` and `tc filter show` name both); what \
             dhcp-guard attaches anew goes in front, as after `dhcp-guard detach`",
        )
    })
}

/// Whether servers answer is seen where their replies come in by a trusted port, or leave by a guarded interface.
pub(super) fn replies(facts: &Facts) -> Vec<Finding> {
    let row = Row::host("replies");
    let links = || facts.interfaces.iter().filter_map(|it| Some((it, it.link.as_ref()?)));
    if facts.wanted.trusted {
        return vec![row.ok("servers' replies are seen where they come in by a trusted port")];
    }
    let blind = |(interface, link): &(&Interface, &Link)| {
        has_agent(facts, interface, link) && is_told_of_way_out(facts, link) && !way_out(link).any(is_watch)
    };
    let unseen: Vec<&str> = links().filter(blind).map(|(interface, _)| interface.name.as_str()).collect();
    if !unseen.is_empty() {
        return vec![row.weak(
            format!("servers' replies that leave through {} are not seen", super::some_of(unseen.into_iter())),
            "start the agent again: `systemctl restart dhcp-guard`; its log says what the kernel refuses",
        )];
    }
    let told = links().any(|(_, link)| is_told_of_way_out(facts, link));
    told.then(|| row.ok("servers' replies are seen as they leave through guarded interfaces")).into_iter().collect()
}

/// No interface is known to be without a guard.
fn is_left_everywhere(facts: &Facts) -> bool {
    let links = facts.interfaces.iter().filter_map(|it| it.link.as_ref());
    links.filter(|link| is_told(facts, link)).all(|link| !guards(link).is_empty())
}

pub(super) fn agent(facts: &Facts) -> Vec<Finding> {
    let row = Row::host("agent");
    let start = "start it: `systemctl start dhcp-guard`, or `dhcp-guard run -i IF`";
    let finding = match &facts.agent {
        None => return Vec::new(),
        Some(Agent::Unclear(sentence)) => {
            row.weak(sentence.clone(), "see its log: `journalctl -u dhcp-guard`, then `systemctl restart dhcp-guard`")
        }
        Some(Agent::None(socket)) => {
            let left = facts.interfaces.iter().filter_map(|it| it.link.as_ref()).any(|link| !guards(link).is_empty());
            let none = format!("no agent answers on {}", socket.display());
            if left {
                let age = facts.pins.as_ref().and_then(|pins| pins.heartbeat_age_s);
                let since =
                    age.map(|age| format!(" (the last one was here {} ago)", duration(age))).unwrap_or_default();
                let limits =
                    if is_left_everywhere(facts) { "limits go on" } else { "limits go on where a guard is left" };
                row.weak(format!("{none}{since}: {limits}, but nobody is reported or put into quarantine"), start)
            } else {
                row.info(none, start)
            }
        }
        Some(Agent::Runs { pid, version, .. }) => {
            let unguarded = facts
                .interfaces
                .iter()
                .filter(|interface| interface.link.as_ref().is_some_and(|link| !has_agent(facts, interface, link)));
            let unguarded: Vec<&str> = unguarded.map(|interface| interface.name.as_str()).collect();
            if unguarded.is_empty() {
                row.ok(format!("agent {version} (pid {pid}) guards all that is to be guarded"))
            } else {
                row.weak(
                    format!("the agent (pid {pid}) does not guard {}", super::some_of(unguarded.into_iter())),
                    "start it again with the present configuration: `systemctl restart dhcp-guard`",
                )
            }
        }
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, healthy, on_xdp, program, rows, with, with_link};
    use super::*;
    use crate::{
        dataplane::features::Feature,
        dataplane::hook::Hook,
        model::Severity::{Blind, Info, Ok, Weak},
    };

    fn without_agent(facts: Facts) -> Facts {
        Facts { agent: Some(Agent::None("/s".into())), ..facts }
    }

    #[test]
    fn another_program() {
        let other = with_link(|link| link.xdp = Some(on_xdp("lb")));
        let parts = ["it runs the XDP program lb (id 40)", "will not displace", "`bpftool prog show id 40`"];
        check("other_xdp_program", &other, Blind, "eth0", &parts);
        let mut behind = other.clone();
        behind.wanted.hook = Hook::Tcx;
        check("other_xdp_program", &behind, Info, "eth0", &["lb (id 40)", "before the guard"]);
        let unnamed = with_link(|link| link.xdp = Some(on_xdp("")));
        assert_eq!(rows("other_xdp_program", &unnamed), [], "the agent knows whose it is");
        check("other_xdp_program", &without_agent(unnamed), Info, "eth0", &["(id 40)", "sudo"]);
    }

    #[test]
    fn more_than_one_of_ours() {
        let twice = with_link(|link| link.tcx_in = Some(vec![program(43, "dhcp_guard_tcx")]));
        check("duplicate_links", &twice, Weak, "eth0", &["2 guards", "ids 40, 43", "`bpftool link show`"]);
        let watch = |id| program(id, "dhcp_replies");
        let watched_twice = with_link(|link| link.tcx_out = Some(vec![watch(41), program(42, "x"), watch(43)]));
        check("duplicate_links", &watched_twice, Weak, "eth0", &["2 programs", "ids 41, 43"]);
    }

    #[test]
    fn a_guard_that_nobody_knows() {
        let nobody = without_agent(healthy());
        check("other_guard", &nobody, Weak, "eth0", &["dhcp_guard, id 40", "no agent answers on /s", "--socket"]);
        let mut pinned = nobody;
        pinned.pins.as_mut().unwrap().programs = vec![40];
        assert_eq!(rows("other_guard", &pinned)[0].severity, Ok);
    }

    #[test]
    fn a_guard_that_was_taken_off() {
        let off = with_link(|link| link.xdp = None);
        check("attached", &off, Blind, "eth0", &["not noticed yet", "taken it off", "`dhcp-guard reload`"]);
        let mut known = off;
        let Some(Agent::Runs { guards, .. }) = &mut known.agent else { panic!("no agent") };
        guards[0].2 = AttachMode::Detached;
        check("attached", &known, Blind, "eth0", &["as the agent knows", "`dhcp-guard reload`"]);
        assert_eq!(rows("attached", &with_link(|link| link.xdp = Some(on_xdp("")))), [], "may be ours");
        assert_eq!(rows("attached", &without_agent(healthy())), []);
    }

    #[test]
    fn a_guard_that_was_taken_off_while_no_agent_runs() {
        let left = |change: fn(&mut Facts)| {
            let mut facts = without_agent(with(change));
            facts.pins.as_mut().unwrap().heartbeat_age_s = Some(125);
            facts
        };
        assert_eq!(rows("attached", &left(|_| ()))[0].severity, Ok);
        let off = left(|facts| facts.interfaces[0].link.as_mut().unwrap().xdp = None);
        check("attached", &off, Blind, "eth0", &["no agent runs", "`systemctl start dhcp-guard`"]);
        // One that is left does not speak for the other.
        let other = left(|facts| {
            let mut other = facts.interfaces[0].clone();
            (other.name, other.link.as_mut().unwrap().xdp) = ("eth1".into(), None);
            facts.interfaces.push(other);
        });
        let ids: Vec<_> = rows("attached", &other).iter().map(|row| row.severity).collect();
        assert_eq!(ids, [Ok, Blind]);
        check("agent", &other, Weak, "host", &["limits go on where a guard is left"]);
        // Before anything was guarded, nothing was taken off.
        assert_eq!(rows("attached", &without_agent(with_link(|link| link.xdp = None))), []);
    }

    #[test]
    fn a_filter_that_is_nobody_s() {
        let filter = without_agent(with_link(|link| {
            (link.xdp, link.clsact_in) = (None, Some(vec![program(43, "dhcp_guard_tcx")]));
        }));
        let parts = ["dhcp_guard_tcx, id 43", "--socket", "`tc filter del dev eth0 ingress`"];
        check("other_guard", &filter, Weak, "eth0", &parts);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_not_said_to_be_well() {
        let silent = with(|facts| {
            facts.wanted.trusted = false;
            let link = facts.interfaces[0].link.as_mut().unwrap();
            (link.tcx_in, link.tcx_out) = (None, None);
            (link.clsact_in, link.clsact_out) = (None, None);
        });
        for id in ["duplicate_links", "other_guard", "tcx_in_front", "replies"] {
            assert_eq!(rows(id, &silent), [], "{id}");
        }
    }

    #[test]
    fn programs_in_front() {
        let first = with_link(|link| link.tcx_out.as_mut().unwrap().insert(0, program(9, "cil")));
        check("tcx_in_front", &first, Info, "eth0", &["cil (id 9)"]);
        let behind = with_link(|link| link.tcx_out.as_mut().unwrap().push(program(9, "cil")));
        assert_eq!(rows("tcx_in_front", &behind)[0].severity, Ok);
    }

    #[test]
    fn replies_that_nobody_sees() {
        let untrusted = |change: fn(&mut Facts)| {
            with(|facts| {
                facts.wanted.trusted = false;
                change(facts);
            })
        };
        assert_eq!(rows("replies", &untrusted(|_| ()))[0].severity, Ok);
        let gone = |facts: &mut Facts| facts.interfaces[0].link.as_mut().unwrap().tcx_out = Some(vec![]);
        check("replies", &untrusted(gone), Weak, "host", &["leave through eth0", "systemctl restart"]);
        let trusted = with(gone);
        assert_eq!(rows("replies", &trusted)[0].severity, Ok);
    }

    #[test]
    fn filters_of_tc_where_the_kernel_has_no_tcx() {
        let on_filters = |change: fn(&mut Link)| {
            with(|facts| {
                facts.wanted.trusted = false;
                facts.kernel.features =
                    vec![Feature { name: "TCX", since: (6, 6), needed: false, present: Some(false) }];
                let link = facts.interfaces[0].link.as_mut().unwrap();
                (link.xdp, link.tcx_in, link.tcx_out) = (None, None, None);
                link.clsact_in = Some(vec![program(43, "dhcp_guard_tcx")]);
                link.clsact_out = Some(vec![program(41, "dhcp_replies")]);
                change(link);
            })
        };
        for id in ["attached", "duplicate_links", "other_guard", "tcx_in_front", "replies"] {
            assert_eq!(rows(id, &on_filters(|_| ()))[0].severity, Ok, "{id}");
        }
        let off = on_filters(|link| link.clsact_in = Some(vec![]));
        check("attached", &off, Blind, "eth0", &["taken it off"]);
        let silent = on_filters(|link| link.clsact_out = Some(vec![]));
        check("replies", &silent, Weak, "host", &["leave through eth0", "systemctl restart"]);
        let behind = on_filters(|link| link.clsact_in.as_mut().unwrap().insert(0, program(0, "flower")));
        check("tcx_in_front", &behind, Info, "eth0", &["a filter of tc (flower)"]);
        let twice = on_filters(|link| link.xdp = Some(on_xdp("dhcp_guard")));
        check("duplicate_links", &twice, Weak, "eth0", &["2 guards", "ids 40, 43"]);
        assert_eq!(rows("attached", &on_filters(|link| link.clsact_in = None)), [], "may be there");
    }

    #[test]
    fn the_agent() {
        let mut left = without_agent(healthy());
        check("agent", &left, Weak, "host", &["no agent answers on /s: limits go on", "systemctl start"]);
        left.pins.as_mut().unwrap().heartbeat_age_s = Some(125);
        check("agent", &left, Weak, "host", &["(the last one was here 2 min ago): limits go on"]);
        let nothing_on = without_agent(with_link(|link| link.xdp = None));
        check("agent", &nothing_on, Info, "host", &["no agent answers on /s", "`dhcp-guard run -i IF`"]);
        let unclear = with(|facts| facts.agent = Some(Agent::Unclear("it hangs".into())));
        check("agent", &unclear, Weak, "host", &["it hangs", "journalctl"]);
        // Also one that was made again under the same name.
        check("agent", &with_link(|link| link.ifindex = 8), Weak, "host", &["does not guard eth0", "restart"]);
    }
}
