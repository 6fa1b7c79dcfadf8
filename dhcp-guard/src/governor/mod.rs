//! The safety governor: the only code that can take anything away from anybody.
//!
//! A quarantine is the most dangerous thing that this tool does. So every one of them, whether the engine proposes it or a
//! person asks for it, passes through [`Governor::ask`], and nothing else makes an [`Order`], which is the only thing that
//! the data plane and the actuators obey. Pure: no clock, no I/O; a small state machine whose promises are checked with
//! random sequences of events (`invariants`).
//!
//! What it promises:
//! * nothing that is protected is ever sanctioned, whoever asks;
//! * automatic quarantine never covers more than its share of the ports, and of a port's clients, nor grows faster than
//!   so many in ten minutes; on hold, or while the trouble is systemic, it does not grow at all;
//! * automatic quarantine never takes a port from clients that keep to their limits;
//! * every quarantine has an end, set when it begins;
//! * a request that is empty, or names more than it says, changes nothing;
//! * whom a person lets out is left alone for as long as a first quarantine lasts;
//! * every change can be undone, exactly.
//!
//! * [`target`]: who can be sanctioned. [`rules`]: the caps. [`state`]: what there is, and what is saved of it.
//! * [`order`]: what is to be done. [`refusal`]: why not. [`memory`]: who was here before.

pub mod memory;
pub mod order;
pub mod refusal;
pub mod rules;
pub mod state;
pub mod target;

mod ask;
mod caps;
mod saved;
mod time;
mod undo;

#[cfg(test)]
mod invariants;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use self::{
    ask::{Request, World},
    memory::Memory,
    order::{Action, Order},
    refusal::Refusal,
    rules::Rules,
    saved::Saved,
    state::{Allowance, Author, Change, Entry, Hold, Key, Quarantine, Sanction, State},
    target::{ClientName, PortName, Subject, Target},
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Governor {
    rules: Rules,
    state: State,
    memory: Memory,
    /// When automatic quarantines began, the latest last, for the cap on how many in ten minutes.
    began: Vec<Timestamp>,
    /// What was changed, the latest last, for undoing.
    changes: Vec<Change>,
    /// From then on all changes are known; none: from the beginning.
    known_since: Option<Timestamp>,
    /// Whom a person has let out: until then the engine leaves them alone, or it would put them back at once.
    pardoned: BTreeMap<Target, Timestamp>,
}

/// What a request came to: what is to be done, and what was changed by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// To be carried out, in this order.
    pub orders: Vec<Order>,
    /// For the audit. Empty: all was so already.
    pub changes: Vec<Change>,
}

impl Governor {
    /// A governor of a host where nothing has happened yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        // From 1, because people count so.
        let state = State { next_id: 1, ..State::default() };
        Self {
            rules,
            state,
            memory: Memory::default(),
            began: Vec::new(),
            changes: Vec::new(),
            known_since: None,
            pardoned: BTreeMap::new(),
        }
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Goes on by other rules. What is in force stays as it is; the new ones are for what comes.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Who was in quarantine before.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}
