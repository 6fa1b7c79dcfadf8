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
    /// All counts since it has an entry, or since the engine knows it.
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
    /// When the latest observation was; none: there was none yet.
    now: Option<Duration>,
    tracked: HashMap<Subject, Tracked>,
}

impl Engine {
    /// An engine that has seen nothing.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, now: None, tracked: HashMap::new() }
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
    /// The very first observation is where counting begins, and says nothing about anybody: the counters may be older than
    /// the agent, and what they hold may be of a minute or a month. Whoever appears later counts from zero: it has got its
    /// entry since the observation before.
    pub fn step(&mut self, observation: &Observation) -> Vec<Report> {
        let now = observation.now;
        let Some(before) = self.now.replace(now) else {
            self.begin(observation);
            return Vec::new();
        };
        let elapsed = now.saturating_sub(before);
        let mut reports = Vec::new();
        for (subject, totals) in &observation.totals {
            let tracked = self.tracked.entry(*subject).or_insert_with(Tracked::new);
            tracked.seen = now;
            tracked.window = tracked.reading.advance(*totals, elapsed);
            tracked.totals.accumulate(tracked.window, totals);
            if let Some(change) = tracked.standing.observe(&self.rules, now, tracked.window) {
                reports.push(Report { subject: *subject, change });
            }
        }
        self.step_the_absent(now, &mut reports);
        reports.sort_by_key(|report| report.subject);
        reports
    }

    /// Takes what the counters hold before anything has been seen of anybody.
    fn begin(&mut self, observation: &Observation) {
        let seen = observation.now;
        let begun = |totals: Totals| Tracked { totals, reading: totals, seen, ..Tracked::new() };
        self.tracked = observation.totals.iter().map(|(subject, totals)| (*subject, begun(*totals))).collect();
    }

    /// Whoever lost its entry is quiet. It is remembered while its standing says more than "normal".
    fn step_the_absent(&mut self, now: Duration, reports: &mut Vec<Report>) {
        let rules = self.rules;
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

    /// Whether there was an observation, so that the next one says what a window brought.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.now.is_some()
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
