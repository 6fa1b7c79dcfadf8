//! The program in the kernel against the second implementation of the parser, on frames that nobody wrote an expectation
//! for: all shapes, and shapes with mistakes in them.

use anyhow::{Result, ensure};
use dhcp_guard_common::{
    parse::Towards,
    verdict::{Note, Reason},
};
use fuzz::{
    mutate::{Dice, mutated},
    reference::{self, Packet, Sender},
    shapes,
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{self, Fate, GuardRun},
    harness::{Need, trial},
    program,
};

use crate::changes::{self, Counted};

/// Frames with mistakes in them.
const MUTATED: usize = 5_000;
/// VLAN stacks with a port of their own; the first one is the interface's default port.
const STACKS: [(u16, u16); 4] = [(0, 0), (100, 0), (100, 20), (20, 0)];

pub(crate) fn trials() -> Vec<Trial> {
    let name = "reference: the program in the kernel sees what the second implementation sees";
    vec![trial(name, &[Need::Root, Need::BpfObject], in_the_kernel)]
}

fn in_the_kernel() -> Result<()> {
    let ports = STACKS.iter().map(|(outer, inner)| guard_run::port(*outer, *inner)).collect();
    let mut guard = GuardRun::new(&guard_run::spec(ports))?;
    let mut before = guard.snapshot()?;
    let mut wrong = Vec::new();
    for frame in frames() {
        let fate = guard.send(&frame)?;
        let after = guard.snapshot()?;
        let seen = changes::between(&before, &after)?;
        let expected = reference::read(&frame).as_ref().map(expected);
        let is_dropped = expected.as_ref().is_some_and(|counted| counted.reason.is_drop());
        if seen != expected || (fate == Fate::Dropped) != is_dropped {
            wrong.push(format!("expected {expected:?}, got {seen:?}, {fate:?}: {frame:02x?}"));
        }
        before = after;
    }
    ensure!(wrong.is_empty(), "{} frames, the first: {}", wrong.len(), wrong[0]);
    Ok(())
}

fn frames() -> Vec<Vec<u8>> {
    let shapes: Vec<Vec<u8>> = shapes::frames().into_iter().map(|(_, frame)| frame).collect();
    let mut dice = Dice::new(0x6b65_726e);
    let made = (0..MUTATED).map(|_| {
        let [frame, other] = [dice.one_of(&shapes), dice.one_of(&shapes)];
        mutated(frame, other, &mut dice)
    });
    let mut frames: Vec<Vec<u8>> = made.collect();
    frames.extend(shapes);
    frames.retain(|frame| program::can_run(frame));
    frames
}

/// How a packet is counted on ports without a limit that it could exceed.
fn expected(packet: &Packet) -> Counted {
    let port = STACKS.iter().position(|stack| *stack == packet.vlans);
    let is_nobody = packet.source[0] % 2 == 1 || packet.source == [0; 6];
    let reason = match packet.towards {
        _ if is_nobody => Reason::DropMalformed,
        Towards::Server => Reason::PassStranger,
        Towards::Client => Reason::PassServer,
    };
    let sender = match packet.sender {
        Sender::Direct { chaddr_differs: false, .. } => None,
        Sender::Direct { chaddr_differs: true, .. } => Some(Note::ChaddrMismatch),
        Sender::RelayV4 { .. } | Sender::RelayV6 { .. } => Some(Note::Relayed),
    };
    let unknown = port.is_none().then_some(Note::UnknownVlan);
    let notes = Note::ALL.iter().filter(|note| [sender, unknown].contains(&Some(**note))).copied().collect();
    // Slot 0 is for packets without any port.
    Counted { slot: 1 + port.unwrap_or(0), reason, message: packet.message, notes }
}
