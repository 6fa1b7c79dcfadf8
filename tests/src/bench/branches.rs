//! The kinds of frames that cost differently, and the state that makes the program take just that branch.
//!
//! The limits here are spent for hours or endless, so that a branch does not change under the measurement: a limit of
//! 1 packet a second would let one through every second, by another branch.

use dhcp_guard::dataplane::PortSpec;
use dhcp_guard_common::{
    gcra::{GRAIN_BITS, Limit},
    verdict::Reason,
};

use super::frames;
use crate::{
    control::Verdict,
    guard_run,
    mac::Mac,
    packets::{Tag, discover, offer, solicit},
};

/// After its first packet nothing more gets through for hours, at any tick rate (2^24 ticks).
const SPENT: Limit = Limit { interval: 1 << (GRAIN_BITS + 24), tolerance: 0 };
/// More than any measurement has packets.
const ENDLESS: Limit = Limit { interval: 1, tolerance: 1 << (GRAIN_BITS + 20) };

/// What this version promises: no frame that is not DHCP may notice the guard, and dropping must stay far below what
/// the stack would spend.
const PASS_BUDGET_NS: f64 = 3.0;
const QUARANTINED_BUDGET_NS: f64 = 12.0;
const ONE_MAC_BUDGET_NS: f64 = 20.0;
const RANDOM_MAC_BUDGET_NS: f64 = 30.0;

/// What the program's counters must say of every frame, or it was not this branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Not DHCP.
    NotDhcp,
    /// This reason, found in the tables, for a client that has an entry there or needs none.
    Reason(Reason),
    /// This reason, answered by the memo of clients over their limit.
    Memo(Reason),
    /// This reason, for a client without an entry.
    Untracked(Reason),
}

/// The limits of all ports of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the port.
    pub total: Limit,
    /// Of its strangers together.
    pub strangers: Limit,
    /// Of strangers that get an entry though they are dropped.
    pub new_clients: Limit,
    /// Of each client.
    pub client: Limit,
}

impl Limits {
    const NONE: Self = Self { total: ENDLESS, strangers: ENDLESS, new_clients: ENDLESS, client: ENDLESS };
}

/// A kind of frame.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Stable name.
    pub name: &'static str,
    /// The same for people.
    pub text: &'static str,
    /// What becomes of the frame, and so which empty program it is compared with.
    pub verdict: Verdict,
    /// What the counters must say.
    pub expected: Expected,
    /// Nanoseconds over the control that this version promises.
    pub budget_ns: Option<f64>,
    /// The frame.
    pub frame: Vec<u8>,
    /// Frames that are sent before, to bring the limiters where they have to be.
    pub before: Vec<Vec<u8>>,
    /// Ports.
    pub ports: Vec<PortSpec>,
    /// Their limits.
    pub limits: Limits,
    /// Known clients, on the first port.
    pub known: Vec<Mac>,
    /// All memos are in the hands of clients that do not appear.
    pub memos_taken: bool,
    /// The first port is in quarantine.
    pub muted: bool,
}

/// All of them, in the order of the table.
#[must_use]
pub fn all() -> Vec<Branch> {
    let mut branches = not_dhcp();
    branches.extend(dropped());
    branches.extend(passed());
    branches
}

impl Branch {
    /// A branch on one untagged port without limits.
    fn new((name, text): Names, verdict: Verdict, expected: Expected, frame: Vec<u8>) -> Self {
        Self {
            name,
            text,
            verdict,
            expected,
            budget_ns: None,
            frame,
            before: Vec::new(),
            ports: vec![guard_run::port(0, 0)],
            limits: Limits::NONE,
            known: Vec::new(),
            memos_taken: false,
            muted: false,
        }
    }

    fn dropped(names: Names, expected: Expected, frame: Vec<u8>) -> Self {
        Self::new(names, Verdict::Drop, expected, frame)
    }

    /// The frame itself, so often that its client is over its limit and remembered as such.
    fn after_itself(mut self) -> Self {
        self.before = vec![self.frame.clone(); 4];
        self
    }
}

/// Stable name, and the same for people.
type Names = (&'static str, &'static str);
/// Makes a frame.
type Build = fn() -> Vec<u8>;

fn not_dhcp() -> Vec<Branch> {
    let branches: [(Names, Build); 8] = [
        (("tcp_ipv4", "TCP over IPv4"), frames::tcp_v4),
        (("tcp_ipv6", "TCP over IPv6"), frames::tcp_v6),
        (("tcp_vlan", "TCP over IPv4, one VLAN tag"), frames::tcp_v4_tagged),
        (("tcp_qinq", "TCP over IPv4, two VLAN tags"), frames::tcp_v4_double_tagged),
        (("tcp_ipv4_options", "TCP over IPv4 with IP options"), frames::tcp_v4_with_options),
        (("arp", "ARP"), frames::arp),
        (("udp_dns", "UDP over IPv4 to port 53"), frames::udp_v4),
        (("udp_ipv6", "UDP over IPv6 to port 443"), frames::udp_v6),
    ];
    let branch = |(names, frame): (Names, Build)| Branch {
        budget_ns: Some(PASS_BUDGET_NS),
        ..Branch::new(names, Verdict::Pass, Expected::NotDhcp, frame())
    };
    branches.map(branch).into()
}

fn dropped() -> Vec<Branch> {
    let mut branches = quarantined();
    branches.extend(over_their_own_limit());
    branches.extend(over_a_shared_limit());
    branches
}

/// Clients of a port in quarantine.
fn quarantined() -> Vec<Branch> {
    let muted = |names, expected| Branch {
        muted: true,
        limits: Limits { new_clients: SPENT, ..Limits::NONE },
        ..Branch::dropped(names, expected, discover(Mac::machine(0)).bytes()).after_itself()
    };
    let reason = Reason::DropQuarantine;
    vec![
        Branch {
            budget_ns: Some(QUARANTINED_BUDGET_NS),
            known: vec![Mac::machine(0)],
            ..muted(("quarantined", "one MAC of a port in quarantine"), Expected::Memo(reason))
        },
        Branch {
            known: vec![Mac::machine(0)],
            memos_taken: true,
            ..muted(("quarantined_no_memo", "port in quarantine, no memo free"), Expected::Reason(reason))
        },
        muted(("quarantined_no_entry", "port in quarantine, MAC without an entry"), Expected::Untracked(reason)),
    ]
}

/// Clients over their own limit.
fn over_their_own_limit() -> Vec<Branch> {
    let over = Reason::DropClientLimit;
    let client_spent = Limits { client: SPENT, ..Limits::NONE };
    let mac = Mac::machine(0);
    let one_mac = |names, expected, frame| Branch {
        limits: client_spent,
        ..Branch::dropped(names, expected, frame).after_itself()
    };
    let promised = |branch| Branch { budget_ns: Some(ONE_MAC_BUDGET_NS), ..branch };
    let frame = || discover(mac).bytes();
    vec![
        promised(one_mac(("one_mac", "one MAC over its limit"), Expected::Memo(over), frame())),
        promised(one_mac(("one_mac_v6", "one MAC over its limit, DHCPv6"), Expected::Memo(over), solicit(mac).bytes())),
        promised(Branch {
            ports: vec![guard_run::port(0, 0), guard_run::port(100, 0)],
            ..one_mac(
                ("one_mac_vlan", "one MAC over its limit, one VLAN tag"),
                Expected::Memo(over),
                discover(mac).tagged(&[Tag::c(100)]).bytes(),
            )
        }),
        Branch {
            memos_taken: true,
            ..one_mac(("stranger_no_memo", "stranger over its limit, no memo free"), Expected::Reason(over), frame())
        },
        Branch {
            memos_taken: true,
            known: vec![mac],
            ..one_mac(("known_no_memo", "known client over its limit, no memo free"), Expected::Reason(over), frame())
        },
    ]
}

/// Clients within their own limit, on a port where others have spent what is shared.
fn over_a_shared_limit() -> Vec<Branch> {
    let frames = |machines: std::ops::Range<usize>| machines.map(|i| discover(Mac::machine(i)).bytes()).collect();
    let share = Reason::DropStrangerShare;
    let strangers_spent = Limits { strangers: SPENT, new_clients: SPENT, ..Limits::NONE };
    let stranger = |names, expected, machine| Branch {
        limits: strangers_spent,
        // The first takes the share, the second the only place that a dropped one gets.
        before: frames(0..2),
        ..Branch::dropped(names, expected, discover(Mac::machine(machine)).bytes())
    };
    vec![
        Branch {
            budget_ns: Some(RANDOM_MAC_BUDGET_NS),
            ..stranger(("stranger_no_entry", "stranger without an entry, share spent"), Expected::Untracked(share), 2)
        },
        stranger(("stranger_entry", "stranger with an entry, share spent"), Expected::Reason(share), 1),
        Branch {
            limits: Limits { total: SPENT, ..Limits::NONE },
            known: vec![Mac::machine(0)],
            ..Branch::dropped(
                ("known_port_limit", "known client, port over its limit"),
                Expected::Reason(Reason::DropPortLimit),
                discover(Mac::machine(0)).bytes(),
            )
            .after_itself()
        },
    ]
}

fn passed() -> Vec<Branch> {
    let mac = Mac::machine(0);
    let passed = |names, reason, frame| Branch::new(names, Verdict::Pass, Expected::Reason(reason), frame);
    let reply = offer(mac, Mac::machine(1), [10, 77, 0, 9].into()).bytes();
    let request = || discover(mac).bytes();
    vec![
        passed(("pass_server", "server's message, port not trusted"), Reason::PassServer, reply),
        Branch {
            ports: vec![PortSpec { trusted: true, ..guard_run::port(0, 0) }],
            ..passed(("pass_trusted", "trusted port"), Reason::PassTrusted, request())
        },
        Branch {
            known: vec![mac],
            ..passed(("pass_known", "known client within all limits"), Reason::PassKnown, request())
        },
        passed(("pass_stranger", "stranger within all limits"), Reason::PassStranger, request()).after_itself(),
        Branch {
            ports: Vec::new(),
            ..passed(("pass_no_port", "interface without a port"), Reason::PassNoPort, request())
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_stable_words_and_differ() {
        let branches = all();
        let names: BTreeSet<_> = branches.iter().map(|branch| branch.name).collect();
        assert_eq!(names.len(), branches.len());
        assert!(
            names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
    }

    #[test]
    fn the_control_does_what_the_reason_says() {
        for branch in all() {
            let drops = match branch.expected {
                Expected::NotDhcp => false,
                Expected::Reason(reason) | Expected::Memo(reason) | Expected::Untracked(reason) => reason.is_drop(),
            };
            assert_eq!(drops, branch.verdict == Verdict::Drop, "{}", branch.name);
        }
    }
}
