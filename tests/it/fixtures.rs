//! Every frame shape with its expected verdict, on the host and in the kernel.

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::PortSpec;
use dhcp_guard_common::{
    layout::mac_of_word,
    message, parse,
    verdict::{MessageType, Note, Reason},
};
use libtest_mimic::Trial;
use tests::{
    fixtures::{self, Expected, Facts, Fixture, SENDER, Who},
    guard_run::{self, Fate, GuardRun},
    harness::{Need, trial, trial_once},
    program,
};

use crate::changes::{self, Counted};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_once("fixtures: the parser on the host", &[], on_the_host),
        trial(
            "fixtures: what is DHCP is dropped over a limit, and nothing else",
            &[Need::Root, Need::BpfObject],
            over_limit,
        ),
        trial("fixtures: the program in the kernel", &[Need::Root, Need::BpfObject], in_the_kernel),
    ]
}

fn on_the_host() -> Result<()> {
    let wrong: Vec<String> = fixtures::all()
        .iter()
        .filter_map(|fixture| {
            let seen = parsed(fixture);
            (seen != fixture.expected).then(|| complaint(fixture, seen))
        })
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The kernel takes no frame without a link-layer header; the parser must live with one all the same.
    for len in 0..14 {
        let frame = &[0u8; 14][..len];
        ensure!(parse::walk(&frame).is_none(), "{len} bytes are no DHCP");
    }
    Ok(())
}

fn parsed(fixture: &Fixture) -> Expected {
    let frame = fixture.bytes.as_slice();
    match parse::walk(&frame) {
        None => Expected::NotDhcp,
        Some(dhcp) => {
            let source = mac_of_word(dhcp.source);
            let message = message::message_type(&frame, &dhcp);
            let sender = message::sender(&frame, &dhcp);
            let who = match (sender.relay, sender.chaddr_differs) {
                _ if source != SENDER.0 => Who::Nobody,
                (0, false) => Who::Sender,
                (0, true) => Who::OtherAddress,
                (_, _) => Who::Relayed,
            };
            let parse::Dhcp { family, towards, vlans, .. } = dhcp;
            Expected::Dhcp(Facts { family, towards, vlans, message, who })
        }
    }
}

fn complaint(fixture: &Fixture, seen: Expected) -> String {
    format!("{}: expected {:?}, got {seen:?}", fixture.name, fixture.expected)
}

/// Each VLAN stack of the fixtures is a port, so that the counters tell which one the program saw.
fn in_the_kernel() -> Result<()> {
    let fixtures = fixtures::all();
    let mut stacks = vec![(0, 0)];
    for fixture in &fixtures {
        if let Expected::Dhcp(Facts { vlans, .. }) = fixture.expected {
            stacks.push((vlans.outer, vlans.inner));
        }
    }
    stacks.sort_unstable();
    stacks.dedup();
    let spec = guard_run::spec(stacks.iter().map(|(outer, inner)| guard_run::port(*outer, *inner)).collect());
    let mut guard = GuardRun::new(&spec)?;
    let mut wrong = Vec::new();
    let mut before = guard.snapshot()?;
    for fixture in fixtures.iter().filter(|fixture| program::can_run(&fixture.bytes)) {
        let fate = guard.send(&fixture.bytes)?;
        let after = guard.snapshot()?;
        let counted = changes::between(&before, &after)?;
        let seen = counted.as_ref().map_or(Some(Expected::NotDhcp), |c| facts(&stacks, c).map(Expected::Dhcp));
        let is_nobody = matches!(seen, Some(Expected::Dhcp(Facts { who: Who::Nobody, .. })));
        if seen != Some(countable(fixture.expected)) || (fate == Fate::Dropped) != is_nobody {
            wrong.push(format!("{}: expected {:?}, got {counted:?}, {fate:?}", fixture.name, fixture.expected));
        }
        before = after;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The client of all fixtures has spent its limit: to a server means dropped, everything else passes.
fn over_limit() -> Result<()> {
    let spent = PortSpec { client_v4: (1, 1), client_v6: (1, 1), ..guard_run::port(0, 0) };
    let mut guard = GuardRun::new(&guard_run::spec(vec![spent]))?;
    for fixture in fixtures::all().iter().filter(|fixture| program::can_run(&fixture.bytes)) {
        let to_server = matches!(fixture.expected, Expected::Dhcp(Facts { towards: parse::Towards::Server, .. }));
        let fates = [guard.send(&fixture.bytes)?, guard.send(&fixture.bytes)?, guard.send(&fixture.bytes)?];
        // One a second may pass, whenever its second is over: two of three do not.
        let passed = fates.iter().filter(|fate| **fate == Fate::Passed).count();
        let as_expected = if to_server { passed <= 1 } else { passed == fates.len() };
        ensure!(as_expected, "{}: {fates:?}", fixture.name);
    }
    Ok(())
}

/// What the counters can say of it: the types of the two families differ, but for "none".
fn countable(expected: Expected) -> Expected {
    match expected {
        Expected::Dhcp(facts) if facts.message == MessageType::None => {
            Expected::Dhcp(Facts { family: parse::Family::V4, ..facts })
        }
        _ => expected,
    }
}

/// What the counters say about a packet; `None` if they say what no fixture should make them say.
fn facts(stacks: &[(u16, u16)], counted: &Counted) -> Option<Facts> {
    let (outer, inner) = *stacks.get(counted.slot.checked_sub(1)?)?;
    let Counted { reason, message, .. } = *counted;
    let towards = match reason {
        Reason::PassStranger | Reason::DropMalformed => parse::Towards::Server,
        Reason::PassServer => parse::Towards::Client,
        _ => return None,
    };
    let who = match counted.notes[..] {
        [] if reason == Reason::DropMalformed => Who::Nobody,
        [] => Who::Sender,
        [Note::ChaddrMismatch] => Who::OtherAddress,
        [Note::Relayed] => Who::Relayed,
        _ => return None,
    };
    let family = if message.name().starts_with("v6_") { parse::Family::V6 } else { parse::Family::V4 };
    Some(Facts { family, towards, vlans: parse::Vlans { outer, inner }, message, who })
}
