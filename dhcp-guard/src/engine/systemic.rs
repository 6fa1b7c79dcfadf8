//! When so much is in trouble that nobody in particular is to blame: then no automatic quarantine begins.
//!
//! Why: when the DHCP or address service stops answering, every client retries, and a tool that knows only limits would
//! take the victims for offenders. Two signs: most ports are over their limit at once; or replies, which came until a
//! moment ago, do not come any more on several ports while requests go on.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// When trouble is systemic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// More than this share of the active ports (of known clients, where there are fewer than [`FEW_PORTS`] ports) is
    /// over its limit; percent.
    pub over_limit_percent: u64,
    /// Fewer replies than this share of the requests; percent.
    pub replies_percent: u64,
    /// In this time.
    pub replies_window: Duration,
    /// On so many ports at least.
    pub ports: usize,
    /// Or, where the ports are fewer, of so many clients at least.
    pub clients: usize,
    /// How long nothing of it must be seen before it is over.
    pub over_after: Duration,
}

/// With fewer ports than this, clients are counted in their place.
pub const FEW_PORTS: usize = 4;

impl Default for Rules {
    fn default() -> Self {
        Self {
            over_limit_percent: 50,
            replies_percent: 20,
            replies_window: Duration::from_secs(30),
            ports: 3,
            clients: 10,
            over_after: Duration::from_secs(60),
        }
    }
}

/// A port in the last window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSample {
    /// It sent something in the last ten minutes.
    pub active: bool,
    /// It is over its limit.
    pub over_limit: bool,
    /// Messages to servers that passed.
    pub requests: u64,
    /// Messages from servers to it; none: they cannot be seen here.
    pub replies: Option<u64>,
    /// Known clients that sent something lately.
    pub known_clients: u64,
    /// Of these, over their limit.
    pub known_over_limit: u64,
    /// Known clients that sent something within [`Rules::replies_window`].
    pub known_asking: u64,
}

/// Why it is systemic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// So many of so many ports, or known clients, are over their limit.
    OverLimit {
        /// So many.
        over: u64,
        /// Of so many.
        of: u64,
        /// They are known clients, not ports.
        clients: bool,
    },
    /// On so many ports, so few replies to so many requests.
    NoReplies {
        /// Ports.
        ports: usize,
        /// Requests in the time looked at.
        requests: u64,
        /// Replies in the same.
        replies: u64,
    },
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is systemic from now on.
    Begins(Sign),
    /// It is not any more.
    Ends,
}

/// Requests and replies of one port, second by second.
#[derive(Clone, Debug, Default)]
struct Port {
    windows: VecDeque<(Duration, u64, u64)>,
    last_reply: Option<Duration>,
    known_asking: u64,
    /// Its own replies can be seen.
    sees: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Systemic {
    rules: Rules,
    ports: HashMap<u32, Port>,
    /// All ports whose own replies cannot be seen, together: replies to any of them are those that came to the host.
    blind: Port,
    since: Option<Duration>,
    last_sign: Duration,
    sign: Option<Sign>,
}

/// For how long a port that had replies is expected to have some.
const HAD_REPLIES: Duration = Duration::from_secs(600);
/// Fewer requests in the window than this say nothing about replies.
const ENOUGH_REQUESTS: u64 = 2;

impl Systemic {
    /// With these rules; nothing is systemic yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            ports: HashMap::new(),
            blind: Port::default(),
            since: None,
            last_sign: Duration::ZERO,
            sign: None,
        }
    }

    /// The latest sign, while it is systemic.
    #[must_use]
    pub fn sign(&self) -> Option<Sign> {
        self.since.and(self.sign)
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Option<Duration> {
        self.since
    }

    /// Goes on by other rules. What was seen stays.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Takes the ports of one window, by slot, which ended at `now`; and how many messages of servers came to the host in
    /// it, where they come in through guarded interfaces: that is all there is about ports whose own replies cannot be seen.
    pub fn step(&mut self, now: Duration, ports: &HashMap<u32, PortSample>, arrived: Option<u64>) -> Option<Change> {
        self.ports.retain(|slot, _| ports.contains_key(slot));
        for (slot, sample) in ports {
            self.ports.entry(*slot).or_default().take(now, self.rules.replies_window, sample);
        }
        let blind = ports.values().filter(|port| port.replies.is_none());
        let (requests, known_asking) =
            blind.fold((0, 0), |sum, port| (sum.0 + port.requests, sum.1 + port.known_asking));
        let together = PortSample { requests, known_asking, replies: arrived, ..PortSample::default() };
        self.blind.take(now, self.rules.replies_window, &together);
        let sign = self.over_limit(ports).or_else(|| self.no_replies(now)).or_else(|| self.none_arrive(now));
        if let Some(sign) = sign {
            (self.last_sign, self.sign) = (now, Some(sign));
            let begins = self.since.is_none();
            self.since.get_or_insert(now);
            return begins.then_some(Change::Begins(sign));
        }
        if self.since.is_some() && now.saturating_sub(self.last_sign) >= self.rules.over_after {
            (self.since, self.sign) = (None, None);
            return Some(Change::Ends);
        }
        None
    }

    fn over_limit(&self, ports: &HashMap<u32, PortSample>) -> Option<Sign> {
        let active = || ports.values().filter(|port| port.active);
        let count = active().count();
        let (over, of, least) = if count >= FEW_PORTS {
            (active().filter(|port| port.over_limit).count() as u64, count as u64, self.rules.ports)
        } else {
            // Strangers do not count: one machine can make up as many as it likes.
            (
                active().map(|port| port.known_over_limit).sum(),
                active().map(|port| port.known_clients).sum(),
                self.rules.clients,
            )
        };
        let is_most = over * 100 > of * self.rules.over_limit_percent && over >= least as u64;
        is_most.then_some(Sign::OverLimit { over, of, clients: count < FEW_PORTS })
    }

    /// Ports that had replies and have requests, but hardly any replies.
    fn no_replies(&self, now: Duration) -> Option<Sign> {
        let silent: Vec<&Port> =
            self.ports.values().filter(|port| port.is_silent(now, self.rules.replies_percent)).collect();
        let sums = silent.iter().map(|port| port.sums());
        let (requests, replies) = sums.fold((0, 0), |sum, port| (sum.0 + port.0, sum.1 + port.1));
        // Strangers do not count here either.
        let asking: u64 = silent.iter().map(|port| port.known_asking).sum();
        let enough = silent.len() >= self.rules.ports || asking >= self.rules.clients as u64;
        // And most of those who ask: three machines that ask for what nobody has are no outage.
        let of = self.ports.values().filter(|port| port.expects(now)).count();
        (enough && silent.len() * 2 > of).then_some(Sign::NoReplies { ports: silent.len(), requests, replies })
    }
}

impl Systemic {
    /// The same where only the host's replies can be seen, and not whose they are.
    fn none_arrive(&self, now: Duration) -> Option<Sign> {
        let asks = |port: &&Port| !port.sees && port.sums().0 >= ENOUGH_REQUESTS;
        let ports = self.ports.values().filter(asks).count();
        let enough = ports >= self.rules.ports || self.blind.known_asking >= self.rules.clients as u64;
        let (requests, replies) = self.blind.sums();
        let is_silent = self.blind.is_silent(now, self.rules.replies_percent);
        (enough && is_silent).then_some(Sign::NoReplies { ports, requests, replies })
    }
}

impl Port {
    fn take(&mut self, now: Duration, keep: Duration, sample: &PortSample) {
        let replies = sample.replies.unwrap_or(0);
        self.sees = sample.replies.is_some();
        if replies > 0 {
            self.last_reply = Some(now);
        }
        self.known_asking = sample.known_asking;
        self.windows.push_back((now, sample.requests, replies));
        while self.windows.front().is_some_and(|(at, ..)| now.saturating_sub(*at) >= keep) {
            self.windows.pop_front();
        }
    }

    /// It had replies, and has requests, but hardly any replies.
    fn is_silent(&self, now: Duration, percent: u64) -> bool {
        let (requests, replies) = self.sums();
        self.expects(now) && replies * 100 < requests * percent
    }

    /// It had replies, and has requests.
    fn expects(&self, now: Duration) -> bool {
        let had = self.last_reply.is_some_and(|last| now.saturating_sub(last) < HAD_REPLIES);
        self.sees && had && self.sums().0 >= ENOUGH_REQUESTS
    }

    fn sums(&self) -> (u64, u64) {
        self.windows.iter().fold((0, 0), |sum, (_, requests, replies)| (sum.0 + requests, sum.1 + replies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: PortSample = PortSample {
        active: true,
        over_limit: false,
        requests: 0,
        replies: Some(0),
        known_clients: 5,
        known_over_limit: 0,
        known_asking: 0,
    };

    fn ports(count: u32, sample: impl Fn(u32) -> PortSample) -> HashMap<u32, PortSample> {
        (1..=count).map(|slot| (slot, sample(slot))).collect()
    }

    fn run(
        systemic: &mut Systemic,
        seconds: std::ops::Range<u64>,
        ports: &HashMap<u32, PortSample>,
    ) -> Vec<(u64, Change)> {
        seconds.filter_map(|second| Some((second, systemic.step(Duration::from_secs(second), ports, None)?))).collect()
    }

    #[test]
    fn a_server_that_dies_is_noticed_within_a_minute_and_its_return_too() {
        let mut systemic = Systemic::new(Rules::default());
        // Each port asks once in four seconds, as a client's first retries do.
        let asking = |second: u64, replies: u64| {
            ports(8, |slot| {
                let asks = u64::from((second + u64::from(slot)).is_multiple_of(4));
                PortSample { requests: asks, replies: Some(asks * replies), ..CALM }
            })
        };
        let mut changes = Vec::new();
        for second in 0..400u64 {
            let replies = u64::from(!(100..200).contains(&second));
            changes.extend(
                systemic.step(Duration::from_secs(second), &asking(second, replies), None).map(|c| (second, c)),
            );
        }
        let [(begin, Change::Begins(Sign::NoReplies { .. })), (end, Change::Ends)] = changes[..] else {
            panic!("{changes:?}")
        };
        assert!((101..=160).contains(&begin), "noticed after {} s", begin - 100);
        assert!((260..=300).contains(&end), "over at {end}");
    }

    #[test]
    fn a_port_that_never_had_replies_says_nothing() {
        let mut systemic = Systemic::new(Rules::default());
        assert_eq!(run(&mut systemic, 0..300, &ports(10, |_| PortSample { requests: 5, ..CALM })), []);
        let hidden = ports(10, |_| PortSample { requests: 5, replies: None, ..CALM });
        assert_eq!(run(&mut systemic, 300..600, &hidden), [], "nor one whose replies cannot be seen");
    }

    #[test]
    fn more_than_half_of_the_ports_over_their_limit_are_nobody_s_fault() {
        let over = |count: u32| ports(10, move |slot| PortSample { over_limit: slot <= count, ..CALM });
        assert_eq!(run(&mut Systemic::new(Rules::default()), 0..60, &over(5)), []);
        let sign = Sign::OverLimit { over: 6, of: 10, clients: false };
        let mut systemic = Systemic::new(Rules::default());
        assert_eq!(run(&mut systemic, 0..60, &over(6)), [(0, Change::Begins(sign))]);
        assert_eq!(systemic.sign(), Some(sign));
        assert_eq!(run(&mut systemic, 60..200, &over(0)), [(119, Change::Ends)]);
    }

    #[test]
    fn one_machine_on_a_small_host_is_not_systemic() {
        let flood = ports(1, |_| PortSample { over_limit: true, known_clients: 1, known_over_limit: 1, ..CALM });
        assert_eq!(run(&mut Systemic::new(Rules::default()), 0..60, &flood), []);
        let many = ports(2, |_| PortSample { over_limit: true, known_clients: 8, known_over_limit: 7, ..CALM });
        let sign = Sign::OverLimit { over: 14, of: 16, clients: true };
        assert_eq!(run(&mut Systemic::new(Rules::default()), 0..60, &many), [(0, Change::Begins(sign))]);
    }

    #[test]
    fn on_a_small_host_it_is_the_known_clients_that_tell() {
        let first_sign = |known_asking| {
            let mut systemic = Systemic::new(Rules::default());
            let answered = ports(1, |_| PortSample { requests: 2, replies: Some(2), known_asking, ..CALM });
            let dead = ports(1, |_| PortSample { requests: 2, replies: Some(0), known_asking, ..CALM });
            assert_eq!(run(&mut systemic, 0..60, &answered), []);
            run(&mut systemic, 60..120, &dead).first().map(|(second, _)| *second)
        };
        assert_eq!(first_sign(9), None, "one machine that nobody answers");
        assert!(first_sign(10).is_some_and(|second| second < 90));
    }

    #[test]
    fn where_only_the_host_s_replies_can_be_seen_they_tell_for_all() {
        let asking = ports(4, |_| PortSample { requests: 1, replies: None, ..CALM });
        let first_sign = |arrived: Option<u64>| {
            let mut systemic = Systemic::new(Rules::default());
            let mut signs = Vec::new();
            for second in 0..200u64 {
                let arrived = if second < 60 { Some(4) } else { arrived };
                signs.extend(systemic.step(Duration::from_secs(second), &asking, arrived).map(|_| second));
            }
            signs.first().copied()
        };
        assert!(first_sign(Some(0)).is_some_and(|second| (61..100).contains(&second)));
        assert_eq!(first_sign(Some(4)), None);
        assert_eq!(first_sign(None), None, "nobody can tell any more");
    }

    #[test]
    fn three_that_nobody_answers_among_many_who_are_answered_are_no_outage() {
        let run = |silent: u32| {
            let mut systemic = Systemic::new(Rules::default());
            let sample = |slot: u32, second: u64| PortSample {
                requests: 1,
                replies: Some(u64::from(slot > silent || second < 60)),
                ..CALM
            };
            let mut steps = (0..200u64)
                .map(|second| systemic.step(Duration::from_secs(second), &ports(8, |slot| sample(slot, second)), None));
            steps.any(|change| change.is_some())
        };
        assert_eq!([3, 4, 5].map(run), [false, false, true]);
    }
}
