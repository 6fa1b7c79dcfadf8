//! When a client that got no answer asks again.

use std::time::Duration;

use crate::random::Dice;

/// What asks for a lease when a machine is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// Its system at once, as a machine does that boots from its disk.
    Disk,
    /// The firmware first, and after some time in which it loads the system, or gave up, the system.
    Network,
}

/// A program that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// iPXE: 1, 2, 4, 8 s after a DISCOVER, then it gives up; 0.25, 0.5, … 8 s after a REQUEST (net/udp/dhcp.c and
    /// config/dhcp.h).
    Ipxe,
    /// ISC dhclient 4.4 with its defaults: about 4 s, each time longer by up to twice as much, and from 15 s on something
    /// between half and one and a half of that. It never gives up within the time that a test takes.
    Dhclient,
}

/// How long firmware takes to load the system it then starts.
pub(super) const LOADING: Duration = Duration::from_secs(8);
/// iPXE's timer ends when it would be longer than this.
const IPXE_LONGEST: Duration = Duration::from_secs(10);
/// dhclient's `initial-interval`, as it turns out, and `backoff-cutoff`.
const DHCLIENT_FIRST: Duration = Duration::from_secs(4);
const DHCLIENT_CUTOFF: Duration = Duration::from_secs(15);
/// dhclient's `reboot`: how long it asks for one address before it looks for any.
const DHCLIENT_REBOOT: Duration = Duration::from_secs(10);

impl Program {
    /// How long it waits for an answer to a DISCOVER, after it waited so long for the one before; none: it gives up.
    pub(super) fn after_discover(self, last: Option<Duration>, dice: &mut Dice) -> Option<Duration> {
        self.after(last, Duration::from_secs(1), dice)
    }

    /// The same for a REQUEST.
    pub(super) fn after_request(self, last: Option<Duration>, dice: &mut Dice) -> Option<Duration> {
        self.after(last, Duration::from_millis(250), dice)
    }

    fn after(self, last: Option<Duration>, ipxe_first: Duration, dice: &mut Dice) -> Option<Duration> {
        match (self, last) {
            (Self::Ipxe, None) => Some(ipxe_first),
            (Self::Ipxe, Some(last)) => Some(last * 2).filter(|next| *next <= IPXE_LONGEST),
            (Self::Dhclient, None) => Some(DHCLIENT_FIRST),
            (Self::Dhclient, Some(last)) => {
                let next = last + dice.between(Duration::ZERO, last * 2);
                let at_the_cutoff = dice.between(DHCLIENT_CUTOFF / 2, DHCLIENT_CUTOFF * 3 / 2);
                Some(if next > DHCLIENT_CUTOFF { at_the_cutoff } else { next })
            }
        }
    }

    /// Whether it gives up on an address that it has asked for so long, and looks for any.
    pub(super) fn looks_elsewhere(self, asked_for: Duration) -> bool {
        self == Self::Dhclient && asked_for >= DHCLIENT_REBOOT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(mut next: impl FnMut(Option<Duration>) -> Option<Duration>) -> Vec<Duration> {
        let mut last = None;
        let step = || {
            last = next(last);
            last
        };
        std::iter::from_fn(step).take(20).collect()
    }

    #[test]
    fn firmware_doubles_and_gives_up() {
        let mut dice = Dice::new(1);
        let discover = intervals(|last| Program::Ipxe.after_discover(last, &mut dice));
        assert_eq!(discover, [1, 2, 4, 8].map(Duration::from_secs));
        let request = intervals(|last| Program::Ipxe.after_request(last, &mut dice));
        assert_eq!(request, [250, 500, 1000, 2000, 4000, 8000].map(Duration::from_millis));
        assert!(!Program::Ipxe.looks_elsewhere(Duration::from_secs(100)));
    }

    #[test]
    fn dhclient_backs_off_to_a_cutoff_and_goes_on() {
        for seed in 0..100 {
            let mut dice = Dice::new(seed);
            let waits = intervals(|last| Program::Dhclient.after_discover(last, &mut dice));
            assert_eq!((waits.len(), waits[0]), (20, DHCLIENT_FIRST));
            let longest = DHCLIENT_CUTOFF * 3 / 2;
            assert!(waits.iter().all(|wait| (DHCLIENT_FIRST..longest).contains(wait)), "{waits:?}");
        }
    }
}
