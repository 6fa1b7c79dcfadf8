//! Why something is not done.

use std::time::Duration;

use super::{PortName, Subject, Target};

/// Why a request changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No target.
    #[error("the request names nobody, and nobody is not everybody: name one port, or one MAC on a port")]
    Empty,
    /// More than one, without saying so.
    #[error("the request names {named} machines: one call names one; for more, say --max {named} --confirm {named}")]
    Several {
        /// So many.
        named: usize,
    },
    /// The numbers do not agree.
    #[error("the request names {named} machines, and allows {max} and confirms {confirmed}: all three must agree")]
    Unconfirmed {
        /// In the request.
        named: usize,
        /// What `max` says.
        max: usize,
        /// What `confirm` says.
        confirmed: usize,
    },
    /// It must not be sanctioned.
    #[error("{subject} is protected: {why}")]
    Protected {
        /// Who.
        subject: Subject,
        /// Why, as half a sentence.
        why: String,
    },
    /// There is no such port here.
    #[error("{subject} is on no guarded port: `dhcp-guard ports` lists them")]
    NotHere {
        /// Who.
        subject: Subject,
    },
    /// Automation is switched off.
    #[error("automatic quarantine is off in the configuration")]
    NotAutomatic,
    /// Automation is on hold.
    #[error("automatic quarantine is on hold")]
    OnHold,
    /// Too much is in trouble for anybody to be to blame.
    #[error("the trouble is systemic: nobody in particular is to blame")]
    Systemic,
    /// A person has just let it out.
    #[error("{} was let out by a person, and is left alone for {} s more", target, left.as_secs())]
    Pardoned {
        /// Who.
        target: Target,
        /// For so long.
        left: Duration,
    },
    /// Too many at once.
    #[error("cap: {active} of at most {most} {what} in automatic quarantine at once")]
    AtOnce {
        /// Already there.
        active: usize,
        /// The cap.
        most: usize,
        /// `ports`, or `clients of port eth0`.
        what: String,
    },
    /// Others would suffer for somebody.
    #[error("{clients} other clients on port {port} keep to their limits, and would lose their DHCP with it")]
    Bystanders {
        /// The port that is to blame.
        port: PortName,
        /// So many.
        clients: usize,
    },
    /// Too fast.
    #[error("cap: {began} automatic quarantines began in the last {} s, at most {most} may", window.as_secs())]
    TooFast {
        /// So many.
        began: usize,
        /// The cap.
        most: usize,
        /// In this time.
        window: Duration,
    },
    /// Nobody there.
    #[error("{0} is not in quarantine: `dhcp-guard quarantine list` shows who is")]
    NotQuarantined(Target),
    /// No quarantine has this number.
    #[error("there is no quarantine {0}: `dhcp-guard quarantine list` shows all")]
    NoSuchQuarantine(u64),
    /// Not on the list.
    #[error("{0} is not on the allowlist, or is there by the configuration: `dhcp-guard allow list` shows all")]
    NotAllowed(Subject),
    /// Without an end, or with one too far away.
    #[error("a quarantine lasts from 1 s to {} s, not {} s", most.as_secs(), asked.as_secs())]
    Ttl {
        /// Asked for.
        asked: Duration,
        /// The longest.
        most: Duration,
    },
    /// There is nothing.
    #[error("nothing was changed since then: there is nothing to undo")]
    NothingToUndo,
    /// It is not known any more how things were.
    #[error("only the changes of the last {} s are known: undo from there on, and check the audit log for the rest", known.as_secs())]
    TooLongAgo {
        /// How far back they go.
        known: Duration,
    },
}
