//! What the data plane and the actuators obey.

use jiff::Timestamp;

use super::{Quarantine, Subject};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The quarantine begins, or has another end now.
    Impose(Quarantine),
    /// It ends now. Its deadline has passed, or somebody ended it.
    Lift(Quarantine),
    /// The subject's packets pass whatever happens, until then; none: for good.
    Allow(Subject, Option<Timestamp>),
    /// They do not any more.
    Disallow(Subject),
}

/// An [`Action`] that the governor has granted. Only the governor makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order(Action);

impl Order {
    pub(super) fn new(action: Action) -> Self {
        Self(action)
    }

    /// What is to be done.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.0
    }
}

#[cfg(test)]
impl Order {
    /// Some order, told from others by a number.
    pub(crate) fn for_test(number: u64) -> Self {
        let at = Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
        let port = super::PortName { interface: "eth0".into(), vlans: Vec::new() };
        Self(Action::Allow(Subject { port, client: None }, Some(at)))
    }
}
