//! What one change is about. To put a program on an interface, or to take it off, takes the kernel some 10 ms, and while a change
//! is made nobody is judged and nothing is counted. So a change is half a second's work, and the next one does more.

use std::collections::HashSet;

use crate::{agent::links::Links, dataplane::interface::Interface};

/// Interfaces that a program is put on, or taken off, in one change.
const AT_ONCE: usize = 32;

/// An interface, as it is called at the moment.
pub(super) type Named = (u32, String);

/// What is known of those that are not guarded, and are not tried with every change.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// They could not be guarded.
    pub(super) impossible: HashSet<Named>,
    /// They changed while they were looked at; netlink tells more of them in a moment.
    pub(super) vanished: HashSet<Named>,
    /// The guard was taken off, and could not be put back.
    pub(super) refused: HashSet<u32>,
}

impl Waiting {
    fn is_new(&self, one: &Named) -> bool {
        !self.impossible.contains(one) && !self.vanished.contains(one)
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Portion {
    /// What is to be guarded then, in the configuration's order; what has to wait for its end comes last.
    pub(super) interfaces: Vec<Named>,
    /// Of those, where the guard was taken off and is to be put back.
    pub(super) put_back: HashSet<u32>,
}

/// Of what is `meant`: all that is guarded and goes on, all that `must` be, and some of what is new, what is to be put back, and
/// what is to go.
pub(super) fn portion(
    meant: &[Named],
    links: &Links,
    guarded: &[Interface],
    detached: &HashSet<u32>,
    waiting: &Waiting,
    must: &[String],
) -> Portion {
    let mut room = AT_ONCE;
    let mut take = |wanted: bool| {
        let taken = wanted && room > 0;
        room -= usize::from(taken);
        taken
    };
    let known: HashSet<u32> = guarded.iter().map(|one| one.ifindex).collect();
    let stays: HashSet<u32> = meant.iter().map(|(ifindex, _)| *ifindex).collect();
    let mut portion = Portion::default();
    for one @ (ifindex, name) in meant {
        let is_known = known.contains(ifindex);
        if is_known && detached.contains(ifindex) && take(!waiting.refused.contains(ifindex)) {
            portion.put_back.insert(*ifindex);
        }
        if is_known || must.contains(name) || take(waiting.is_new(one)) {
            portion.interfaces.push(one.clone());
        }
    }
    // Those that are gone cost nothing.
    let goes = |one: &&Interface| !stays.contains(&one.ifindex) && links.contains_key(&one.ifindex);
    for one in guarded.iter().filter(goes) {
        if !take(true) {
            portion.interfaces.push((one.ifindex, one.name.clone()));
        }
    }
    portion
}

/// Whether something is left for another change.
pub(super) fn is_done(meant: &[Named], guarded: &[Interface], detached: &HashSet<u32>, waiting: &Waiting) -> bool {
    let known: HashSet<u32> = guarded.iter().map(|one| one.ifindex).collect();
    let now = guarded.iter().map(|one| (one.ifindex, one.name.as_str()));
    let to_be = meant.iter().filter(|one| known.contains(&one.0) || waiting.is_new(one));
    now.eq(to_be.map(|(ifindex, name)| (*ifindex, name.as_str())))
        && detached.iter().all(|ifindex| waiting.refused.contains(ifindex))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(range: std::ops::Range<u32>) -> Vec<Named> {
        range.map(|index| (index, format!("tap{index}"))).collect()
    }

    fn guarded(range: std::ops::Range<u32>) -> Vec<Interface> {
        range.map(|index| Interface::bare(&format!("tap{index}"), index)).collect()
    }

    fn links(meant: &[Named]) -> Links {
        meant.iter().cloned().collect()
    }

    #[test]
    fn new_ones_come_some_at_a_time_until_all_are_there() {
        let meant = named(1..101);
        let (mut there, mut changes) = (Vec::new(), 0);
        while !is_done(&meant, &there, &HashSet::new(), &Waiting::default()) {
            let next = portion(&meant, &links(&meant), &there, &HashSet::new(), &Waiting::default(), &[]);
            assert!(next.interfaces.len() <= there.len() + AT_ONCE);
            there = next.interfaces.iter().map(|(ifindex, name)| Interface::bare(name, *ifindex)).collect();
            changes += 1;
        }
        assert_eq!((there.len(), changes), (100, 4));
    }

    #[test]
    fn whoever_names_one_does_not_wait() {
        let meant = named(1..101);
        let must = ["tap100".to_owned()];
        let next = portion(&meant, &links(&meant), &[], &HashSet::new(), &Waiting::default(), &must);
        assert_eq!((next.interfaces.len(), next.interfaces.last()), (AT_ONCE + 1, meant.last()));
    }

    #[test]
    fn those_that_are_to_go_wait_their_turn_unless_they_are_gone() {
        let there = guarded(1..101);
        let next = |links: &Links| portion(&[], links, &there, &HashSet::new(), &Waiting::default(), &[]);
        assert_eq!(next(&links(&named(1..101))).interfaces.len(), 100 - AT_ONCE);
        assert!(next(&Links::new()).interfaces.is_empty());
        assert!(!is_done(&[], &there, &HashSet::new(), &Waiting::default()));
    }

    #[test]
    fn what_was_taken_off_is_put_back_some_at_a_time_and_stays_listed() {
        let (meant, there) = (named(1..101), guarded(1..101));
        let detached: HashSet<u32> = (1..101).collect();
        let mut waiting = Waiting::default();
        let next = portion(&meant, &links(&meant), &there, &detached, &waiting, &[]);
        assert_eq!((next.interfaces.len(), next.put_back.len()), (100, AT_ONCE));
        assert!(!is_done(&meant, &there, &detached, &waiting));
        waiting.refused = detached.clone();
        let next = portion(&meant, &links(&meant), &there, &detached, &waiting, &[]);
        assert_eq!((next.interfaces.len(), next.put_back.len()), (100, 0));
        assert!(is_done(&meant, &there, &detached, &waiting), "until it is tried again");
    }

    #[test]
    fn one_that_could_not_be_guarded_is_another_one_under_another_name() {
        let meant = named(1..3);
        let mut waiting = Waiting::default();
        waiting.impossible.insert((1, "tap1".to_owned()));
        waiting.vanished.insert((2, "eth2".to_owned()));
        let next = portion(&meant, &links(&meant), &[], &HashSet::new(), &waiting, &[]);
        assert_eq!(next.interfaces, named(2..3));
        assert!(is_done(&meant, &guarded(2..3), &HashSet::new(), &waiting));
        let renamed = [(1, "ens5".to_owned()), meant[1].clone()];
        assert!(!is_done(&renamed, &guarded(2..3), &HashSet::new(), &waiting));
    }
}
