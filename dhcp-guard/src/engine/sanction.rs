//! Who has deserved a quarantine: for how long somebody was far over their limit, and who on a port is to blame.
//!
//! Policing goes on whatever is decided here; a quarantine only adds that nothing more is tried. So this is slow on
//! purpose, seconds and not packets, and it blames a port rather than the wrong client on it: a source MAC can be forged,
//! the port cannot. That a quarantine is deserved is a proposal; whether it comes is the
//! [`governor`](crate::governor)'s to say.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use dhcp_guard_common::layout::ClientKey;

use super::{Subject, Window};

/// Windows that the evidence has.
pub const RECENT: usize = 30;

/// When a quarantine is deserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// As a multiple of the limit.
    pub factor: u64,
    /// Windows running at that rate, or with that many new MACs.
    pub windows: u32,
    /// New MACs in a window.
    pub new_macs: u64,
    /// Time over the limit, however slightly, after which somebody should look.
    pub candidate_after: Duration,
    /// Most clients that are blamed instead of their port.
    pub few: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { factor: 5, windows: 10, new_macs: 128, candidate_after: Duration::from_secs(300), few: 3 }
    }
}

/// What one window says about a client or port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The window.
    pub window: Window,
    /// Packets a second it may send: of a client the larger one of its two protocols'.
    pub limit_pps: u64,
    /// A port: strangers that sent something; none: more than can be told. A client: `Some(0)`.
    pub distinct: Option<u64>,
    /// A client in the known table.
    pub known: bool,
}

/// Why a quarantine is deserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It sent so much, in each of the last windows.
    Rate {
        /// Packets a second in the latest one.
        pps: u64,
        /// What it may send.
        limit_pps: u64,
    },
    /// So many new MACs, in each of the last windows.
    NewMacs {
        /// In the latest one; none: more than can be told.
        macs: Option<u64>,
    },
}

/// Somebody who has deserved a quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Who: a client, or a whole port.
    pub subject: Subject,
    /// Why.
    pub cause: Cause,
}

/// The history of one client or port.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The latest windows, the latest last.
    pub recent: VecDeque<Sample>,
    /// Windows running at the rate that deserves a quarantine.
    pub hot: u32,
    /// Windows running with that many new MACs.
    pub many_macs: u32,
    /// Since when it is over its limit, with pauses of less than ten seconds.
    pub over_since: Option<Duration>,
    /// The latest window with excess.
    last_excess: Duration,
    /// Since when it keeps to its limit; in quarantine, what it would send counts.
    pub quiet_since: Option<Duration>,
    /// It was told that this one burns slowly.
    told: bool,
}

/// A pause that does not end a slow burn: who is over its limit every other second is.
const PAUSE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub struct Sanctions {
    rules: Rules,
    records: HashMap<Subject, Record>,
}

/// What a step came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deserved {
    /// In the order of the subjects.
    pub proposals: Vec<Proposal>,
    /// Who has been over its limit for so long that somebody should look; told once.
    pub candidates: Vec<Subject>,
}

impl Sanctions {
    /// With these rules, and no history.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, records: HashMap::new() }
    }

    /// The history of somebody.
    #[must_use]
    pub fn record(&self, subject: Subject) -> Option<&Record> {
        self.records.get(&subject)
    }

    /// Whether it has been over its limit for long.
    #[must_use]
    pub fn is_candidate(&self, subject: Subject) -> bool {
        self.records.get(&subject).is_some_and(|record| record.told)
    }

    /// Takes the samples of one window, which ended at `now`. Who has no sample any more is forgotten.
    pub fn step(&mut self, now: Duration, samples: &HashMap<Subject, Sample>) -> Deserved {
        self.records.retain(|subject, _| samples.contains_key(subject));
        let mut deserved = Deserved::default();
        for (subject, sample) in samples {
            let record = self.records.entry(*subject).or_default();
            if record.take(&self.rules, now, *sample) {
                deserved.candidates.push(*subject);
            }
        }
        let mut ports: Vec<u32> = samples.keys().map(|subject| slot(*subject)).collect();
        ports.sort_unstable();
        ports.dedup();
        deserved.proposals = ports.into_iter().flat_map(|port| self.blame(port)).collect();
        deserved.candidates.sort_unstable();
        deserved
    }

    /// Who on a port has deserved it: the clients, if they are few, are most of the excess, and others on the port would
    /// suffer for them; else the port.
    fn blame(&self, slot: u32) -> Vec<Proposal> {
        let clients = self.records.iter().filter_map(|(subject, record)| match subject {
            Subject::Client(key) if key.slot() == slot => Some((*key, record)),
            _ => None,
        });
        let mut hot: Vec<(ClientKey, &Record)> =
            clients.clone().filter(|(_, record)| record.hot >= self.rules.windows).collect();
        hot.sort_by_key(|(key, _)| *key);
        let port = self.records.get(&Subject::Port(slot)).and_then(|record| record.cause(&self.rules));
        if hot.is_empty() && port.is_none() {
            return Vec::new();
        }
        let others_are_known =
            clients.clone().any(|(key, record)| record.is_known() && !hot.iter().any(|(one, _)| *one == key));
        // Behind a relay, a client is whatever a message says it is.
        let nameable = hot.iter().all(|(key, _)| !key.is_relayed());
        let few = !hot.is_empty() && hot.len() <= self.rules.few && nameable;
        if few && others_are_known && self.is_most_of_the_excess(slot, &hot) {
            let proposal = |(key, record): &(ClientKey, &Record)| {
                Some(Proposal { subject: Subject::Client(*key), cause: record.cause(&self.rules)? })
            };
            return hot.iter().filter_map(proposal).collect();
        }
        let worst = hot.iter().filter_map(|(_, record)| record.cause(&self.rules)).max_by_key(|cause| match cause {
            Cause::Rate { pps, .. } => *pps,
            Cause::NewMacs { macs } => macs.unwrap_or(u64::MAX),
        });
        let cause = port.or(worst);
        cause.map(|cause| Proposal { subject: Subject::Port(slot), cause }).into_iter().collect()
    }

    fn is_most_of_the_excess(&self, slot: u32, hot: &[(ClientKey, &Record)]) -> bool {
        let theirs: u64 = hot.iter().map(|(_, record)| record.latest().window.excess).sum();
        let of_port = self.records.get(&Subject::Port(slot)).map_or(0, |record| record.latest().window.excess);
        theirs * 10 >= of_port * 9
    }
}

impl Record {
    /// True: it has been over its limit for so long that somebody should look, and nobody was told yet.
    fn take(&mut self, rules: &Rules, now: Duration, sample: Sample) -> bool {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(sample);
        let limit = sample.limit_pps.max(1);
        let is_hot = sample.window.rate_pps() >= rules.factor * limit;
        self.hot = if is_hot { self.hot + 1 } else { 0 };
        let many = sample.distinct.is_none_or(|macs| macs > rules.new_macs);
        self.many_macs = if many { self.many_macs + 1 } else { 0 };
        let is_quiet = sample.window.rate_pps() <= limit && !many;
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or(now));
        if sample.window.own_excess > 0 {
            self.last_excess = now;
            self.over_since.get_or_insert(now);
        } else if now.saturating_sub(self.last_excess) >= PAUSE {
            (self.over_since, self.told) = (None, false);
        }
        let burns = self.over_since.is_some_and(|since| now.saturating_sub(since) >= rules.candidate_after);
        let news = burns && !self.told;
        self.told |= burns;
        news
    }

    fn cause(&self, rules: &Rules) -> Option<Cause> {
        let latest = self.latest();
        if self.hot >= rules.windows {
            return Some(Cause::Rate { pps: latest.window.rate_pps(), limit_pps: latest.limit_pps });
        }
        (self.many_macs >= rules.windows).then_some(Cause::NewMacs { macs: latest.distinct })
    }

    /// The latest sample.
    #[must_use]
    pub fn latest(&self) -> Sample {
        self.recent.back().copied().unwrap_or_default()
    }

    fn is_known(&self) -> bool {
        self.latest().known
    }

    /// How long it has kept to its limit.
    #[must_use]
    pub fn quiet_for(&self, now: Duration) -> Duration {
        self.quiet_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

fn slot(subject: Subject) -> u32 {
    match subject {
        Subject::Client(key) => key.slot(),
        Subject::Port(slot) => slot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOODER: Subject = Subject::Client(ClientKey::from_mac(1, [2, 0, 0, 0, 0, 9]));
    const KNOWN: Subject = Subject::Client(ClientKey::from_mac(1, [2, 0, 0, 0, 0, 1]));
    const PORT: Subject = Subject::Port(1);

    fn window(packets: u64, excess: u64) -> Window {
        Window { packets, excess, own_excess: excess, length: Duration::from_secs(1) }
    }

    fn client(packets: u64, known: bool) -> Sample {
        let window = window(packets, packets.saturating_sub(2));
        Sample { window, limit_pps: 2, distinct: Some(0), known }
    }

    fn port(packets: u64, distinct: Option<u64>) -> Sample {
        Sample { window: window(packets, packets.saturating_sub(50)), limit_pps: 50, distinct, known: false }
    }

    /// Runs the same samples for so many seconds; the second of the first proposal, and the latest step's result.
    fn run(seconds: u64, samples: &[(Subject, Sample)]) -> (Option<u64>, Deserved) {
        let mut sanctions = Sanctions::new(Rules::default());
        let samples: HashMap<_, _> = samples.iter().copied().collect();
        let (mut first, mut latest) = (None, Deserved::default());
        for second in 1..=seconds {
            latest = sanctions.step(Duration::from_secs(second), &samples);
            if !latest.proposals.is_empty() {
                first.get_or_insert(second);
            }
        }
        (first, latest)
    }

    fn subjects(deserved: &Deserved) -> Vec<Subject> {
        deserved.proposals.iter().map(|proposal| proposal.subject).collect()
    }

    #[test]
    fn a_flooder_among_known_clients_is_blamed_itself_after_ten_seconds() {
        let (first, latest) =
            run(12, &[(FLOODER, client(4000, false)), (KNOWN, client(1, true)), (PORT, port(4001, Some(2)))]);
        assert_eq!((first, subjects(&latest)), (Some(10), vec![FLOODER]));
        assert_eq!(latest.proposals[0].cause, Cause::Rate { pps: 4000, limit_pps: 2 });
    }

    #[test]
    fn where_nobody_else_is_known_the_port_is_blamed() {
        let (_, latest) = run(10, &[(FLOODER, client(4000, false)), (PORT, port(4000, Some(1)))]);
        assert_eq!(subjects(&latest), [PORT]);
    }

    #[test]
    fn random_macs_are_the_port_s() {
        let (first, latest) = run(10, &[(KNOWN, client(1, true)), (PORT, port(200, None))]);
        assert_eq!((first, subjects(&latest)), (Some(10), vec![PORT]));
        assert_eq!(latest.proposals[0].cause, Cause::NewMacs { macs: None });
        assert_eq!(run(30, &[(PORT, port(100, Some(128)))]).0, None, "128 are not more than 128");
    }

    #[test]
    fn many_loud_clients_are_the_port_s() {
        let loud = |n: u8| (Subject::Client(ClientKey::from_mac(1, [2, 0, 0, 0, 1, n])), client(100, false));
        let mut samples: Vec<_> = (0..4).map(loud).collect();
        samples.extend([(KNOWN, client(1, true)), (PORT, port(401, Some(5)))]);
        assert_eq!(subjects(&run(10, &samples).1), [PORT]);
    }

    #[test]
    fn whoever_is_behind_a_relay_is_not_blamed_by_name() {
        let relayed = Subject::Client(ClientKey((1 << 63) | 5).on(1));
        let (_, latest) =
            run(10, &[(relayed, client(4000, false)), (KNOWN, client(1, true)), (PORT, port(4001, Some(2)))]);
        assert_eq!(subjects(&latest), [PORT]);
    }

    #[test]
    fn less_than_five_times_the_limit_is_a_candidate_after_five_minutes_and_told_once() {
        let mut sanctions = Sanctions::new(Rules::default());
        let slow = HashMap::from([(FLOODER, client(9, false)), (KNOWN, client(1, true))]);
        let none = HashMap::from([(FLOODER, client(0, false)), (KNOWN, client(1, true))]);
        let mut told = Vec::new();
        for second in 1..=700 {
            // Every third second it pauses.
            let deserved = sanctions.step(Duration::from_secs(second), if second % 3 == 0 { &none } else { &slow });
            assert_eq!(deserved.proposals, []);
            told.extend(deserved.candidates.iter().map(|subject| (second, *subject)));
        }
        assert_eq!(told, [(301, FLOODER)]);
        assert!(sanctions.is_candidate(FLOODER) && !sanctions.is_candidate(KNOWN));
        for second in 701..=712 {
            sanctions.step(Duration::from_secs(second), &none);
        }
        assert!(!sanctions.is_candidate(FLOODER), "ten seconds of rest end it");
    }

    #[test]
    fn a_second_of_rest_starts_the_count_again() {
        let mut sanctions = Sanctions::new(Rules::default());
        let hot = HashMap::from([(FLOODER, client(4000, false)), (PORT, port(4000, Some(1)))]);
        let rest = HashMap::from([(FLOODER, client(1, false)), (PORT, port(1, Some(1)))]);
        for second in 1..40 {
            let deserved = sanctions.step(Duration::from_secs(second), if second % 10 == 0 { &rest } else { &hot });
            assert_eq!(deserved.proposals, [], "in second {second}");
        }
    }

    #[test]
    fn quiet_is_to_keep_to_the_limit() {
        let mut sanctions = Sanctions::new(Rules::default());
        for second in 1..=100 {
            let packets = if second < 40 { 4000 } else { 2 };
            sanctions.step(Duration::from_secs(second), &HashMap::from([(FLOODER, client(packets, false))]));
        }
        assert_eq!(sanctions.record(FLOODER).unwrap().quiet_for(Duration::from_secs(100)), Duration::from_secs(60));
    }
}
