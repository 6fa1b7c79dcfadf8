//! Who has deserved a quarantine: for how long somebody was far over their limit, and who on a port is to blame.
//!
//! Policing goes on whatever is decided here; a quarantine only adds that nothing more is tried. So this is slow on
//! purpose, seconds and not packets, and it blames a port rather than the wrong client on it: a source MAC can be forged,
//! the port cannot. That a quarantine is deserved is a proposal; whether it comes is the
//! [`governor`](crate::governor)'s to say.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque, hash_map::Entry},
    time::Duration,
};

use dhcp_guard_common::layout::ClientKey;

use super::{Subject, Window};

/// Windows that the evidence has.
pub const RECENT: usize = 16;

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
}

impl Default for Rules {
    fn default() -> Self {
        Self { factor: 5, windows: 10, new_macs: 128, candidate_after: Duration::from_secs(300) }
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
    /// A port: it is one machine's alone, so that whoever is behind it is that machine.
    pub own: bool,
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

/// The history of one client or port that is, or lately was, over its limit, or that somebody watches. Those who keep to
/// their limit have none: they are nearly all, and a host may have many.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Packets, and packets over its own limit, in each of the latest [`RECENT`] windows, the latest last.
    pub recent: VecDeque<(u32, u32)>,
    /// The latest window.
    pub latest: Sample,
    /// Windows running with excess of its own.
    pub over: u32,
    /// Windows running at the rate that deserves a quarantine.
    pub hot: u32,
    /// Windows running with that many new MACs.
    pub many_macs: u32,
    /// Since when it is over its limit, with pauses of less than ten seconds.
    pub over_since: Option<Duration>,
    /// Since when it sends more than it may; in quarantine, what it would send counts. Also with such pauses.
    pub loud_since: Option<Duration>,
    /// Since when it keeps to its limit.
    pub quiet_since: Option<Duration>,
    /// The latest window with excess.
    last_excess: Duration,
    /// The latest window in which it sent more than it may.
    last_loud: Duration,
    /// The latest window that it had.
    seen: Duration,
    /// It was told that this one burns slowly.
    told: bool,
}

/// A pause that does not end a slow burn: who is over its limit every other second is.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a history is kept that nobody watches and that says nothing new.
const KEEP: Duration = Duration::from_secs(RECENT as u64);

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

    /// Goes on by other rules. The histories stay.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Lets go of the histories of these slots' ports and clients: the slots will be others'.
    pub fn forget(&mut self, slots: &HashSet<u32>) {
        self.records.retain(|subject, _| !slots.contains(&subject.slot()));
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The history of somebody who has one.
    #[must_use]
    pub fn record(&self, subject: Subject) -> Option<&Record> {
        self.records.get(&subject)
    }

    /// Everyone with a history.
    pub fn records(&self) -> impl Iterator<Item = (&Subject, &Record)> {
        self.records.iter()
    }

    /// Takes the samples of one window, which ended at `now`. Who has no sample any more is forgotten; who is `watched`
    /// has a history even while it is quiet.
    pub fn step(
        &mut self,
        now: Duration,
        samples: impl Iterator<Item = (Subject, Sample)>,
        watched: &HashSet<Subject>,
    ) -> Deserved {
        let mut deserved = Deserved::default();
        for (subject, sample) in samples {
            let record = match self.records.entry(subject) {
                Entry::Occupied(record) => record.into_mut(),
                Entry::Vacant(place) if sample.is_loud(&self.rules) || watched.contains(&subject) => {
                    place.insert(Record::default())
                }
                Entry::Vacant(_) => continue,
            };
            if record.take(&self.rules, now, sample) {
                deserved.candidates.push(subject);
            }
        }
        let matters = |subject: &Subject, record: &Record| {
            watched.contains(subject) || now.saturating_sub(record.last_loud) < KEEP
        };
        self.records.retain(|subject, record| record.seen == now && matters(subject, record));
        deserved.proposals = self.blame_all();
        deserved.candidates.sort_unstable();
        deserved
    }

    fn blame_all(&self) -> Vec<Proposal> {
        let ports: BTreeSet<u32> = self.records.keys().map(|subject| subject.slot()).collect();
        let mut clients: HashMap<u32, Vec<(ClientKey, &Record)>> = HashMap::new();
        for (subject, record) in &self.records {
            if let Subject::Client(key) = subject
                && record.hot >= self.rules.windows
            {
                clients.entry(key.slot()).or_default().push((*key, record));
            }
        }
        ports.into_iter().flat_map(|port| self.blame(port, clients.remove(&port).unwrap_or_default())).collect()
    }

    /// Who on a port has deserved it: the clients that make most of the excess, because nobody knows who else lives on the
    /// port: machines that renew twice a day are not seen for hours. The port, if it is one machine's alone, or if the
    /// excess is nobody's in particular. However many clients they are: the governor lets few of them through.
    fn blame(&self, slot: u32, mut hot: Vec<(ClientKey, &Record)>) -> Vec<Proposal> {
        hot.sort_by_key(|(key, _)| *key);
        let record = self.records.get(&Subject::Port(slot));
        let port = record.and_then(|record| record.cause(&self.rules));
        let own = record.is_some_and(|record| record.latest.own);
        // Behind a relay, a client is whatever a message says it is.
        let nameable = hot.iter().all(|(key, _)| !key.is_relayed());
        if !own && !hot.is_empty() && nameable && self.is_most_of_the_excess(slot, &hot) {
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
        let theirs: u64 = hot.iter().map(|(_, record)| record.latest.window.excess).sum();
        let of_port = self.records.get(&Subject::Port(slot)).map_or(0, |record| record.latest.window.excess);
        theirs * 10 >= of_port * 9
    }
}

impl Sample {
    fn has_many_macs(&self, rules: &Rules) -> bool {
        self.distinct.is_none_or(|macs| macs > rules.new_macs)
    }

    /// It sends more than it may, or others had to suffer for it.
    fn is_loud(&self, rules: &Rules) -> bool {
        self.window.rate_pps() > self.limit_pps || self.window.excess > 0 || self.has_many_macs(rules)
    }
}

impl Record {
    /// True: it has been over its limit for so long that somebody should look, and nobody was told yet.
    fn take(&mut self, rules: &Rules, now: Duration, sample: Sample) -> bool {
        let window = sample.window;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((count(window.packets), count(window.own_excess)));
        (self.latest, self.seen) = (sample, now);
        let next = |running: u32, holds: bool| if holds { running + 1 } else { 0 };
        self.over = next(self.over, window.own_excess > 0);
        self.hot = next(self.hot, window.rate_pps() >= rules.factor * sample.limit_pps.max(1));
        self.many_macs = next(self.many_macs, sample.has_many_macs(rules));

        let is_quiet = window.rate_pps() <= sample.limit_pps.max(1) && self.many_macs == 0;
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or(now));
        if sample.is_loud(rules) {
            self.last_loud = now;
            self.loud_since.get_or_insert(now.saturating_sub(window.length));
        } else if now.saturating_sub(self.last_loud) >= PAUSE {
            self.loud_since = None;
        }
        self.burn(rules, now)
    }

    /// See [`Self::take`].
    fn burn(&mut self, rules: &Rules, now: Duration) -> bool {
        if self.over > 0 {
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

    /// It has been over its limit for so long that somebody should look.
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        self.told
    }

    /// Why it has deserved a quarantine, if it has.
    #[must_use]
    pub fn cause(&self, rules: &Rules) -> Option<Cause> {
        let latest = &self.latest;
        if self.hot >= rules.windows {
            return Some(Cause::Rate { pps: latest.window.rate_pps(), limit_pps: latest.limit_pps });
        }
        (self.many_macs >= rules.windows).then_some(Cause::NewMacs { macs: latest.distinct })
    }

    /// How long it has kept to its limit.
    #[must_use]
    pub fn quiet_for(&self, now: Duration) -> Duration {
        self.quiet_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

/// Evidence of more than this is as good.
fn count(packets: u64) -> u32 {
    u32::try_from(packets).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOODER: Subject = Subject::Client(ClientKey::from_mac(1, [2, 0, 0, 0, 0, 9]));
    const KNOWN: Subject = Subject::Client(ClientKey::from_mac(1, [2, 0, 0, 0, 0, 1]));
    const PORT: Subject = Subject::Port(1);
    const WATCHED: Subject = Subject::Client(ClientKey::from_mac(2, [2, 0, 0, 0, 0, 7]));

    fn window(packets: u64, excess: u64) -> Window {
        Window { packets, excess, own_excess: excess, length: Duration::from_secs(1) }
    }

    fn client(packets: u64) -> Sample {
        let window = window(packets, packets.saturating_sub(2));
        Sample { window, limit_pps: 2, distinct: Some(0), own: false }
    }

    fn port(packets: u64, distinct: Option<u64>) -> Sample {
        Sample { window: window(packets, packets.saturating_sub(50)), limit_pps: 50, distinct, own: false }
    }

    fn step(sanctions: &mut Sanctions, second: u64, samples: &[(Subject, Sample)]) -> Deserved {
        sanctions.step(Duration::from_secs(second), samples.iter().copied(), &HashSet::from([WATCHED]))
    }

    /// Runs the same samples for so many seconds; the second of the first proposal, and the latest step's result.
    fn run(seconds: u64, samples: &[(Subject, Sample)]) -> (Option<u64>, Deserved) {
        let mut sanctions = Sanctions::new(Rules::default());
        let (mut first, mut latest) = (None, Deserved::default());
        for second in 1..=seconds {
            latest = step(&mut sanctions, second, samples);
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
    fn a_flooder_is_blamed_itself_after_ten_seconds() {
        let (first, latest) = run(12, &[(FLOODER, client(4000)), (KNOWN, client(1)), (PORT, port(4001, Some(2)))]);
        assert_eq!((first, subjects(&latest)), (Some(10), vec![FLOODER]));
        assert_eq!(latest.proposals[0].cause, Cause::Rate { pps: 4000, limit_pps: 2 });
    }

    #[test]
    fn a_port_that_is_one_machine_s_alone_is_blamed_as_a_whole() {
        let own = (PORT, Sample { own: true, ..port(4001, Some(2)) });
        let (_, latest) = run(10, &[(FLOODER, client(4000)), (KNOWN, client(1)), own]);
        assert_eq!(subjects(&latest), [PORT]);
    }

    #[test]
    fn random_macs_are_the_port_s() {
        let (first, latest) = run(10, &[(KNOWN, client(1)), (PORT, port(200, None))]);
        assert_eq!((first, subjects(&latest)), (Some(10), vec![PORT]));
        assert_eq!(latest.proposals[0].cause, Cause::NewMacs { macs: None });
        assert_eq!(run(30, &[(PORT, port(100, Some(128)))]).0, None, "128 are not more than 128");
    }

    #[test]
    fn many_loud_clients_are_each_blamed_if_the_excess_is_theirs() {
        let loud = |n: u8| (Subject::Client(ClientKey::from_mac(1, [2, 0, 0, 0, 1, n])), client(100));
        let mut samples: Vec<_> = (0..4).map(loud).collect();
        samples.push((PORT, port(400, Some(4))));
        assert_eq!(subjects(&run(10, &samples).1), samples[..4].iter().map(|(one, _)| *one).collect::<Vec<_>>());
        samples[4] = (PORT, port(4000, Some(4)));
        assert_eq!(subjects(&run(10, &samples).1), [PORT], "most of it is somebody else's");
    }

    #[test]
    fn whoever_is_behind_a_relay_is_not_blamed_by_name() {
        let relayed = Subject::Client(ClientKey((1 << 63) | 5).on(1));
        let (_, latest) = run(10, &[(relayed, client(4000)), (KNOWN, client(1)), (PORT, port(4001, Some(2)))]);
        assert_eq!(subjects(&latest), [PORT]);
    }

    #[test]
    fn less_than_five_times_the_limit_is_a_candidate_after_five_minutes_and_told_once() {
        let mut sanctions = Sanctions::new(Rules::default());
        let slow = [(FLOODER, client(9)), (KNOWN, client(1))];
        let none = [(FLOODER, client(0)), (KNOWN, client(1))];
        let is_candidate = |sanctions: &Sanctions| sanctions.record(FLOODER).is_some_and(Record::is_candidate);
        let mut told = Vec::new();
        for second in 1..=700 {
            // Every third second it pauses.
            let deserved = step(&mut sanctions, second, if second % 3 == 0 { &none } else { &slow });
            assert_eq!(deserved.proposals, []);
            told.extend(deserved.candidates.iter().map(|subject| (second, *subject)));
        }
        assert_eq!(told, [(301, FLOODER)]);
        assert!(is_candidate(&sanctions));
        for second in 701..=712 {
            step(&mut sanctions, second, &none);
        }
        assert!(!is_candidate(&sanctions), "ten seconds of rest end it");
    }

    #[test]
    fn a_second_of_rest_starts_the_count_again() {
        let mut sanctions = Sanctions::new(Rules::default());
        let hot = [(FLOODER, client(4000)), (PORT, port(4000, Some(1)))];
        let rest = [(FLOODER, client(1)), (PORT, port(1, Some(1)))];
        for second in 1..40 {
            let deserved = step(&mut sanctions, second, if second % 10 == 0 { &rest } else { &hot });
            assert_eq!(deserved.proposals, [], "in second {second}");
        }
    }

    #[test]
    fn quiet_is_to_keep_to_the_limit() {
        let mut sanctions = Sanctions::new(Rules::default());
        for second in 1..=100 {
            let packets = if second < 40 { 4000 } else { 2 };
            step(&mut sanctions, second, &[(WATCHED, client(packets))]);
        }
        assert_eq!(sanctions.record(WATCHED).unwrap().quiet_for(Duration::from_secs(100)), Duration::from_secs(60));
    }
    #[test]
    fn only_the_loud_and_the_watched_have_a_history() {
        let mut sanctions = Sanctions::new(Rules::default());
        let calm = [(FLOODER, client(2)), (KNOWN, client(1)), (WATCHED, client(0))];
        let loud = [(FLOODER, client(3)), (KNOWN, client(1)), (WATCHED, client(0))];
        step(&mut sanctions, 1, &calm);
        assert_eq!(sanctions.records().map(|(subject, _)| *subject).collect::<Vec<_>>(), [WATCHED]);
        step(&mut sanctions, 2, &loud);
        assert_eq!(sanctions.record(FLOODER).unwrap().recent, [(3, 1)]);
        for second in 3..=60 {
            step(&mut sanctions, second, &calm);
            let expected = second < 2 + RECENT as u64;
            assert_eq!(sanctions.record(FLOODER).is_some(), expected, "in second {second}");
        }
        assert_eq!(sanctions.record(WATCHED).unwrap().recent.len(), RECENT);
        step(&mut sanctions, 61, &[]);
        assert_eq!(sanctions.records().count(), 0, "who is not seen any more is forgotten");
    }
}
