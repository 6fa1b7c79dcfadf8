//! Quarantines and allowances for tests, by the only way there is: the safety governor's orders.

use std::time::Duration;

use anyhow::{Context as _, Result};
use dhcp_guard::{
    dataplane::{DataPlane, load::slot_of},
    governor::{Author, ClientName, Governor, Granted, PortName, Request, Rules, Sanction, Subject, Target, World},
    mac,
    who::Behind,
};
use jiff::{SignedDuration, Timestamp};

use crate::mac::Mac;

/// Somebody who asks two governors, of a host where nobody is protected and everybody is here.
///
/// Two, because tests want what one would never order: that somebody is allowed and in quarantine. The one knows of no
/// allowances, the other of no quarantines.
#[derive(Debug)]
pub struct Orders {
    quarantines: Governor,
    allowances: Governor,
    /// Goes on with each request, so that none is what the one before was.
    now: Timestamp,
}

impl Default for Orders {
    fn default() -> Self {
        let governor = || Governor::new(Rules::default());
        Self { quarantines: governor(), allowances: governor(), now: Timestamp::UNIX_EPOCH }
    }
}

/// The place of a port that the guard knows nothing of.
pub const NOT_GUARDED: usize = usize::MAX;

/// The port at this place of the policy.
#[must_use]
pub fn whole_port(place: usize) -> Subject {
    Subject { port: PortName { interface: place.to_string(), vlans: Vec::new() }, client: None }
}

/// A client on the port at this place of the policy.
#[must_use]
pub fn on_port(place: usize, mac: Mac) -> Subject {
    Subject { client: Some(ClientName::Mac(mac::Mac(mac.0))), ..whole_port(place) }
}

/// A client behind a relay there: see [`Sender`](dhcp_guard_common::message::Sender) for the two words.
#[must_use]
pub fn behind(place: usize, relay: u64, client: u64) -> Subject {
    Subject { client: Some(ClientName::Behind(Behind { relay, client })), ..whole_port(place) }
}

impl Orders {
    /// Puts somebody into quarantine until a tick, or changes what there is.
    ///
    /// # Errors
    /// The data plane's, and whatever the governor finds wrong.
    pub fn impose(&mut self, plane: &mut DataPlane, target: Target, sanction: Sanction, until: u64) -> Result<()> {
        let ttl = Some(Duration::from_secs(3600));
        let request = Request::Quarantine { targets: vec![target], sanction, ttl, max: None, confirm: None };
        self.now = self.now.checked_add(SignedDuration::from_secs(1))?;
        carry_out(plane, &ask(&mut self.quarantines, self.now, &request)?, until)
    }

    /// Ends a quarantine.
    ///
    /// # Errors
    /// As [`Orders::impose`]; nobody there.
    pub fn release(&mut self, plane: &mut DataPlane, target: Target) -> Result<()> {
        carry_out(plane, &ask(&mut self.quarantines, self.now, &Request::ReleaseTarget(target))?, 0)
    }

    /// Allows somebody everything until a tick.
    ///
    /// # Errors
    /// As [`Orders::impose`].
    pub fn allow(&mut self, plane: &mut DataPlane, subject: Subject, until: u64) -> Result<()> {
        self.now = self.now.checked_add(SignedDuration::from_secs(1))?;
        carry_out(plane, &ask(&mut self.allowances, self.now, &Request::Allow(subject, None))?, until)
    }

    /// Does so no more.
    ///
    /// # Errors
    /// As [`Orders::impose`]; nobody there.
    pub fn disallow(&mut self, plane: &mut DataPlane, subject: Subject) -> Result<()> {
        carry_out(plane, &ask(&mut self.allowances, self.now, &Request::Disallow(subject))?, 0)
    }
}

fn ask(governor: &mut Governor, now: Timestamp, request: &Request) -> Result<Granted> {
    let world = World {
        active_ports: 1000,
        active_clients: &|_| 1000,
        bystanders: &|_| 0,
        is_here: &|_| true,
        protection: &|_| None,
        systemic: false,
    };
    let person = Author::Person { uid: 0, user: None, pid: None };
    Ok(governor.ask(now, &world, &person, request, "a test wants it")?)
}

fn carry_out(plane: &mut DataPlane, granted: &Granted, until: u64) -> Result<()> {
    let place = |subject: &Subject| subject.port.interface.parse().ok();
    let slot = |subject: &Subject| place(subject).filter(|place| *place != NOT_GUARDED).map(slot_of);
    for order in &granted.orders {
        plane.carry_out(order, &slot, &|_| until).context("cannot carry an order out")?;
    }
    Ok(())
}
