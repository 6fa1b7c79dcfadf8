//! Between the pure parts that decide about quarantines and everything around them: once a window, and for each request of
//! a person, it asks the engine who has deserved a quarantine, the governor whether it may begin, and hands what was
//! decided to the data plane, the actuators, the audit log, the state file and the journal. It waits for none of them.
//!
//! * `ports`: samples for the engine. `world`: what the governor asks about the host.
//! * `propose`: what happens once a window. `people`: what people ask for. `explain`: why somebody stands where they do.
//! * `enact`: what is done about a change. `cases`: what is known about each quarantine. `sentences`: how it is told.
//! * `view`: what queries are answered from.

mod cases;
mod enact;
mod explain;
mod people;
mod ports;
mod propose;
mod sentences;
mod view;
mod world;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use dhcp_guard_common::layout::ClientKey;
use jiff::Timestamp;
use tokio::sync::watch;

pub use self::view::Sanctioned;
use self::{cases::Cases, ports::Activity, propose::Spared, world::Host};
use super::{
    Context,
    host_facts::HostFacts,
    journal::Journal,
    orders::{self, Anchor, Clock},
    picture::Picture,
};
use crate::{
    actuators, audit,
    engine::{Subject, sanction::Sanctions, systemic::Systemic},
    governor::Governor,
};

/// MACs that are remembered as servers while nobody has said where the servers are.
const SERVERS: usize = 256;

/// Where decisions go. Nobody here is waited for.
#[derive(Debug)]
pub struct Hands {
    /// To the data plane.
    pub orders: orders::Sender,
    /// To whoever follows events.
    pub journal: Arc<Journal>,
    /// To the disk.
    pub audit: audit::Handle,
    /// To everything outside.
    pub actuators: actuators::Handle,
}

/// See the module.
#[derive(Debug)]
pub struct Sanctioner {
    context: Arc<Context>,
    hands: Hands,
    clock: Clock,
    facts: watch::Receiver<Arc<HostFacts>>,
    engine: Sanctions,
    systemic: Systemic,
    governor: Governor,
    activity: Activity,
    cases: Cases,
    /// Who has deserved a quarantine and is spared.
    spared: BTreeMap<Subject, Spared>,
    /// When the kernel dropped the first packet of somebody, lately.
    first_drops: HashMap<Subject, Timestamp>,
    servers: HashSet<ClientKey>,
    taps: HashSet<String>,
    picture: Arc<Picture>,
    anchor: Anchor,
}

impl Sanctioner {
    /// With a governor that knows what was saved, and whose orders were carried out.
    #[must_use]
    pub fn new(
        context: Arc<Context>,
        hands: Hands,
        clock: Clock,
        facts: watch::Receiver<Arc<HostFacts>>,
        governor: Governor,
        first: &Picture,
    ) -> Self {
        let config = &context.config;
        let (engine, systemic) = (Sanctions::new(config.sanction_rules()), Systemic::new(config.systemic_rules()));
        let (anchor, taps) = (anchor(&clock, first), world::taps(&context.plan));
        let mut sanctioner = Self {
            context,
            hands,
            clock,
            facts,
            engine,
            systemic,
            governor,
            activity: Activity::default(),
            cases: Cases::default(),
            spared: BTreeMap::new(),
            first_drops: HashMap::new(),
            servers: HashSet::new(),
            taps,
            picture: Arc::new(first.clone()),
            anchor,
        };
        sanctioner.take_up();
        sanctioner
    }

    /// Takes the picture of one window, decides, and answers with the picture that others get to see.
    pub fn step(&mut self, mut picture: Picture) -> Arc<Picture> {
        self.anchor = anchor(&self.clock, &picture);
        let now = self.anchor.time;
        self.activity.update(&picture, self.context.config.systemic_rules().replies_window);
        self.decide(now, &picture);
        // What could not be sent before.
        self.hands.orders.send(Vec::new(), self.anchor);
        picture.sanctioned = Arc::new(self.sanctioned(now, &picture));
        self.picture = Arc::new(picture);
        Arc::clone(&self.picture)
    }

    /// The latest picture with what was decided since: whoever changes something sees it in the next query.
    pub fn refreshed(&mut self) -> Arc<Picture> {
        let mut picture = Picture::clone(&self.picture);
        picture.sanctioned = Arc::new(self.sanctioned(self.now(), &picture));
        self.picture = Arc::new(picture);
        Arc::clone(&self.picture)
    }

    /// Whether somebody sends more than they may, as far as is known; in quarantine, what they would send counts.
    #[must_use]
    pub fn is_loud(&self, subject: Subject) -> bool {
        self.engine.record(subject).is_some_and(|record| record.loud_since.is_some())
    }

    /// The kernel has dropped somebody's first packet, then.
    pub fn note_first_drop(&mut self, subject: Subject, at: Timestamp) {
        self.first_drops.insert(subject, at);
    }

    /// A server's message came from there. That is no way out for whoever floods already, or is in quarantine for it.
    pub fn note_server(&mut self, client: ClientKey) {
        let is_suspect = self.engine.record(Subject::Client(client)).is_some();
        if !is_suspect && self.servers.len() < SERVERS {
            self.servers.insert(client);
        }
    }

    /// The latest picture.
    #[must_use]
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Goes on with another configuration or other interfaces, and answers with the latest picture as it is to be read with
    /// them. Windows, quarantines, the hold and who began lately go on. `gone`: slots that nobody has any more.
    pub fn take_context(&mut self, context: &Arc<Context>, gone: &HashSet<u32>) -> Arc<Picture> {
        let config = &context.config;
        self.engine.set_rules(config.sanction_rules());
        self.systemic.set_rules(config.systemic_rules());
        self.governor.set_rules(config.governor_rules());
        let stays = |subject: &Subject| !gone.contains(&subject.slot());
        self.engine.forget(gone);
        self.activity.forget(gone);
        self.spared.retain(|subject, _| stays(subject));
        self.first_drops.retain(|subject, _| stays(subject));
        self.servers.retain(|client| !gone.contains(&client.slot()));
        self.taps = world::taps(&context.plan);
        self.context = Arc::clone(context);
        self.picture = Arc::new(self.picture.with_context(context, gone));
        self.refreshed()
    }

    /// The governor, and the host as it is to see it.
    fn governor_and_host<'a>(&'a mut self, picture: &'a Picture) -> (&'a mut Governor, Host<'a>) {
        let host = Host {
            context: &self.context,
            inventory: self.context.inventory(),
            facts: Arc::clone(&self.facts.borrow()),
            activity: &self.activity,
            picture,
            servers: &self.servers,
            taps: &self.taps,
            systemic: self.systemic.since().is_some(),
        };
        (&mut self.governor, host)
    }

    /// The time of the latest picture: what people ask for between two of them happens then.
    fn now(&self) -> Timestamp {
        self.anchor.time
    }
}

/// The moment of a picture, on the governor's clock and the kernel's.
fn anchor(clock: &Clock, picture: &Picture) -> Anchor {
    let moment = &picture.moment;
    Anchor { time: clock.at(moment.monotonic), ticks: moment.ticks, ticks_per_s: moment.ticks_per_s }
}
