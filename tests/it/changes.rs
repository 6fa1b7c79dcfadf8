//! What one frame did to the program's counters.

use anyhow::{Result, bail};
use dhcp_guard::dataplane::Snapshot;
use dhcp_guard_common::verdict::{MessageType, Note, Reason};

/// How a DHCP packet was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Of its port.
    pub(crate) slot: usize,
    pub(crate) reason: Reason,
    pub(crate) message: MessageType,
    pub(crate) notes: Vec<Note>,
}

/// What was counted between two snapshots, which should be one packet; `None` for no DHCP.
pub(crate) fn between(before: &Snapshot, after: &Snapshot) -> Result<Option<Counted>> {
    let mut found = Vec::new();
    for (slot, (new, old)) in after.ports.iter().zip(&before.ports).enumerate() {
        let reasons = added(&new.reasons, &old.reasons, Reason::ALL);
        let messages = added(&new.messages, &old.messages, MessageType::ALL);
        let notes = added(&new.notes, &old.notes, Note::ALL);
        match (&reasons[..], &messages[..]) {
            ([], []) if notes.is_empty() => {}
            ([reason], [message]) => found.push(Counted { slot, reason: *reason, message: *message, notes }),
            _ => bail!("slot {slot} counted {reasons:?}, {messages:?}, {notes:?}"),
        }
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => bail!("counted on several ports: {found:?}"),
    }
}

/// Each member of a closed list as often as its counter went up.
fn added<T: Copy>(new: &[u64], old: &[u64], all: &[T]) -> Vec<T> {
    let counters = new.iter().zip(old).zip(all);
    counters.flat_map(|((new, old), member)| (*old..*new).map(move |_| *member)).collect()
}
