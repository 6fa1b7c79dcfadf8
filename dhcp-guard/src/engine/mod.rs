//! The decision engine: who is over their limit, and for how long.
//!
//! Pure: no clock, no I/O, no async. [`Engine::step`] takes one observation of all counters and answers what changed;
//! the agent, scenario tests and property tests drive the same code with whatever clock they like.
//!
//! * [`window`]: what happened to one client or port since the last observation.
//! * [`standing`]: the state machine of one client or port.
//! * [`learning`]: which strangers become known clients.
//! * [`sanction`]: who has deserved a quarantine. [`systemic`]: when nobody has.

pub mod learning;
pub mod sanction;
pub mod standing;
pub mod systemic;
pub mod window;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use dhcp_guard_common::layout::ClientKey;

pub use standing::{Change, Rules, Standing};
pub use window::{Totals, Window};

/// Who is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A client, by its port's slot and its MAC.
    Client(ClientKey),
    /// A port, by its slot.
    Port(u32),
}

impl Subject {
    /// The slot of the port that it is, or is on.
    #[must_use]
    pub fn slot(self) -> u32 {
        match self {
            Self::Client(key) => key.slot(),
            Self::Port(slot) => slot,
        }
    }
}

/// All counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Time since an arbitrary start. Must not go back.
    pub now: Duration,
    /// Everyone who has counters.
    pub totals: Vec<(Subject, Totals)>,
}

/// Something worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// About whom.
    pub subject: Subject,
    /// What changed.
    pub change: Change,
}

/// One client or port as the engine knows it.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// All counts since the engine knows it.
    pub totals: Totals,
    /// The latest reading of its entry.
    reading: Totals,
    /// What the last window brought.
    pub window: Window,
    /// Where it stands.
    pub standing: Standing,
    /// When it was last seen in an observation.
    seen: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    now: Duration,
    tracked: HashMap<Subject, Tracked>,
}

impl Engine {
    /// An engine that has seen nothing.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, now: Duration::ZERO, tracked: HashMap::new() }
    }

    /// Goes on by other rules. What was seen stays.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Lets go of the ports in these slots, and of everybody on them: the slots will be others'.
    pub fn forget(&mut self, slots: &HashSet<u32>) {
        self.tracked.retain(|subject, _| !slots.contains(&subject.slot()));
    }

    /// Takes an observation and says what changed, ordered by subject.
    ///
    /// The first observation of a subject counts from zero: what its counters hold happened since the program was
    /// loaded, or since the subject got an entry.
    pub fn step(&mut self, observation: &Observation) -> Vec<Report> {
        let elapsed = observation.now.saturating_sub(self.now);
        self.now = observation.now;
        let mut reports = Vec::new();
        for (subject, totals) in &observation.totals {
            let tracked = self.tracked.entry(*subject).or_insert_with(Tracked::new);
            tracked.seen = self.now;
            tracked.window = tracked.reading.advance(*totals, elapsed);
            tracked.totals.accumulate(tracked.window, totals);
            if let Some(change) = tracked.standing.observe(&self.rules, self.now, tracked.window) {
                reports.push(Report { subject: *subject, change });
            }
        }
        self.step_the_absent(&mut reports);
        reports.sort_by_key(|report| report.subject);
        reports
    }

    /// Whoever lost its entry is quiet. It is remembered while its standing says more than "normal".
    fn step_the_absent(&mut self, reports: &mut Vec<Report>) {
        let (rules, now) = (self.rules, self.now);
        self.tracked.retain(|subject, tracked| {
            if tracked.seen == now {
                return true;
            }
            tracked.window = Window::default();
            if let Some(change) = tracked.standing.observe(&rules, now, tracked.window) {
                reports.push(Report { subject: *subject, change });
            }
            tracked.standing != Standing::Normal
        });
    }

    /// One of those the engine knows.
    #[must_use]
    pub fn get(&self, subject: Subject) -> Option<&Tracked> {
        self.tracked.get(&subject)
    }

    /// Everyone the engine knows, in no order.
    pub fn tracked(&self) -> impl Iterator<Item = (&Subject, &Tracked)> {
        self.tracked.iter()
    }
}

impl Tracked {
    fn new() -> Self {
        let none = Totals::default();
        Self {
            totals: none,
            reading: none,
            window: Window::default(),
            standing: Standing::Normal,
            seen: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
