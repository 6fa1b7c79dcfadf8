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
    harness::{Need, trial},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("fixtures: the parser on the host", &[], on_the_host),
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
    for fixture in &fixtures {
        let fate = guard.send(&fixture.bytes)?;
        let after = guard.snapshot()?;
        let seen = difference(&stacks, &before, &after);
        let is_nobody = matches!(seen, Some(Expected::Dhcp(Facts { who: Who::Nobody, .. })));
        if seen != Some(counted(fixture.expected)) || (fate == Fate::Dropped) != is_nobody {
            wrong.push(format!("{}: expected {:?}, got {seen:?}, {fate:?}", fixture.name, fixture.expected));
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
    for fixture in fixtures::all() {
        let to_server = matches!(fixture.expected, Expected::Dhcp(Facts { towards: parse::Towards::Server, .. }));
        // One a second may pass: whoever gets it has spent it.
        let fates = [guard.send(&fixture.bytes)?, guard.send(&fixture.bytes)?];
        let expected = if to_server { Fate::Dropped } else { Fate::Passed };
        ensure!(fates[1] == expected, "{}: {fates:?}", fixture.name);
    }
    Ok(())
}

/// What the counters can say of it: the types of the two families differ, but for "none".
fn counted(expected: Expected) -> Expected {
    match expected {
        Expected::Dhcp(facts) if facts.message == MessageType::None => {
            Expected::Dhcp(Facts { family: parse::Family::V4, ..facts })
        }
        _ => expected,
    }
}

/// What one frame did to the counters; None if it did not do exactly one thing.
fn difference(
    stacks: &[(u16, u16)],
    before: &dhcp_guard::dataplane::Snapshot,
    after: &dhcp_guard::dataplane::Snapshot,
) -> Option<Expected> {
    let changed = |new: &[u64], old: &[u64]| -> Vec<usize> {
        let places = new.iter().zip(old).enumerate();
        places.flat_map(|(place, (new, old))| (*old..*new).map(move |_| place)).collect()
    };
    let mut changes = Vec::new();
    for (slot, (new, old)) in after.ports.iter().zip(&before.ports).enumerate() {
        let messages = changed(&new.messages, &old.messages);
        let reasons = changed(&new.reasons, &old.reasons);
        let notes = changed(&new.notes, &old.notes);
        changes.extend(reasons.iter().zip(&messages).map(|(reason, message)| (slot, *reason, *message, notes.clone())));
    }
    match changes.as_slice() {
        [] => Some(Expected::NotDhcp),
        [(slot, reason, message, notes)] => {
            let (outer, inner) = *stacks.get(slot.checked_sub(1)?)?;
            let message = *MessageType::ALL.get(*message)?;
            Some(Expected::Dhcp(facts(*Reason::ALL.get(*reason)?, message, notes, parse::Vlans { outer, inner })?))
        }
        _ => None,
    }
}

/// What the counters say about a packet.
fn facts(reason: Reason, message: MessageType, notes: &[usize], vlans: parse::Vlans) -> Option<Facts> {
    let towards = match reason {
        Reason::PassStranger | Reason::DropMalformed => parse::Towards::Server,
        Reason::PassServer => parse::Towards::Client,
        _ => return None,
    };
    let notes: Vec<Note> = notes.iter().map(|note| Note::ALL[*note]).collect();
    let who = match notes[..] {
        [] if reason == Reason::DropMalformed => Who::Nobody,
        [] => Who::Sender,
        [Note::ChaddrMismatch] => Who::OtherAddress,
        [Note::Relayed] => Who::Relayed,
        _ => return None,
    };
    let family = if message.name().starts_with("v6_") { parse::Family::V6 } else { parse::Family::V4 };
    Some(Facts { family, towards, vlans, message, who })
}
