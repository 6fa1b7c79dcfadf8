//! The decision loop: snapshots, kernel events and people's requests in; picture, journal and orders out. It never waits
//! for anything else.

use std::{collections::HashSet, sync::Arc};

use dhcp_guard_common::layout::{
    ClientKey, EVENT_CLIENT_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, EVENT_ROGUE_SERVER, Event as KernelEvent,
};
use tokio::sync::{mpsc, watch};

use super::{
    Context, describe, guarding,
    journal::{Draft, Journal},
    learn::Learner,
    orders,
    picture::{self, Picture, Viewer},
    reader::{Changed, Reading},
    requests::Asked,
    sanctions::Sanctioner,
    service::Service,
};
use crate::{
    actuators,
    dataplane::{Snapshot, clock::Moment},
    engine::{Change, Report, Subject},
    model::EventKind,
};

/// See the module.
#[derive(Debug)]
pub struct Decider {
    context: Arc<Context>,
    journal: Arc<Journal>,
    viewer: Viewer,
    learner: Learner,
    sanctioner: Sanctioner,
    moment: Moment,
    pictures: watch::Sender<Arc<Picture>>,
}

/// What the decision loop hears.
#[derive(Debug)]
pub struct Inputs {
    /// The counters, once a window; and what has changed, in order with them.
    pub readings: mpsc::Receiver<Reading>,
    /// What the kernel tells at once.
    pub events: mpsc::Receiver<KernelEvent>,
    /// What people ask for.
    pub requests: mpsc::Receiver<Asked>,
    /// What became of orders.
    pub orders: mpsc::Receiver<orders::Outcome>,
    /// What became of the actuators' jobs.
    pub actuators: actuators::Outcomes,
    /// Hears that the loop goes on, once a window.
    pub service: Service,
}

impl Decider {
    /// A decider that has seen `first`, and the pictures it will publish.
    pub fn new(
        context: Arc<Context>,
        journal: Arc<Journal>,
        learner: Learner,
        sanctioner: Sanctioner,
        first: &Snapshot,
    ) -> (Self, watch::Receiver<Arc<Picture>>) {
        let viewer = Viewer::new(picture::rules(&context.config));
        let (pictures, receiver) = watch::channel(Arc::new(Picture::before(&context, first)));
        let mut decider = Self { context, journal, viewer, learner, sanctioner, moment: first.moment, pictures };
        decider.take_snapshot(first);
        (decider, receiver)
    }

    /// Runs until it is told to stop, or nothing can come any more.
    pub async fn run(mut self, mut inputs: Inputs, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                Some(reading) = inputs.readings.recv() => match reading {
                    Reading::Snapshot(snapshot) => {
                        self.take_snapshot(&snapshot);
                        inputs.service.beat(&self.pictures.borrow());
                    }
                    Reading::Changed(changed) => {
                        let Changed { done, gone, answer } = *changed;
                        self.take_context(&done.context, &gone);
                        inputs.service.now_guards(guarding(&done.context));
                        // Whoever asked may not wait any more.
                        let _ = answer.send(Ok(done));
                    }
                },
                Some(event) = inputs.events.recv() => self.take_event(&event),
                Some(asked) = inputs.requests.recv() => self.take_request(asked),
                Some(outcome) = inputs.orders.recv() => {
                    self.sanctioner.take_outcome(&outcome);
                    self.pictures.send_replace(self.sanctioner.refreshed());
                }
                Some(outcome) = inputs.actuators.recv() => self.sanctioner.take_actuator_outcome(&outcome),
                _ = stopped.changed() => return,
                else => return,
            }
        }
    }

    fn take_request(&mut self, asked: Asked) {
        let pictures = &self.pictures;
        // The picture first: whoever has the answer may query at once.
        self.sanctioner.answer(asked, |picture| _ = pictures.send_replace(picture));
    }

    /// Goes on with another configuration or other interfaces. `gone`: slots that nobody has any more.
    fn take_context(&mut self, context: &Arc<Context>, gone: &HashSet<u32>) {
        self.context = Arc::clone(context);
        self.viewer.take_context(context, gone, self.sanctioner.picture());
        self.learner.reconfigure(&context.config, &context.plan);
        self.pictures.send_replace(self.sanctioner.take_context(context, gone));
    }

    fn take_snapshot(&mut self, snapshot: &Snapshot) {
        self.moment = snapshot.moment;
        let (picture, reports) = self.viewer.step(&self.context, snapshot);
        reports.into_iter().for_each(|report| self.tell(report));
        let excess = |slot: u32| picture.ports.get(slot as usize).map_or(0, |port| port.window.own_excess);
        self.learner.step(snapshot, &self.context.plan, excess);
        self.pictures.send_replace(self.sanctioner.step(picture));
    }

    fn tell(&self, report: Report) {
        let (slot, who) = match report.subject {
            Subject::Client(key) => (key.slot(), Some(self.viewer.who(key))),
            Subject::Port(slot) => (slot, None),
        };
        let Some(port) = self.context.plan.port(slot) else { return };
        // In quarantine it has no excess, however much it sends.
        if report.change == Change::Recovers && self.sanctioner.is_loud(report.subject) {
            return;
        }
        let (kind, message) = describe::change(report.change, port, who, &self.context.config.detection);
        let (mac, source) = (who.and_then(|who| who.mac()), who.and_then(|who| who.source()));
        let draft = Draft { kind, at: self.moment.wall, port: Some(port), mac, source, vlans: None, message };
        self.journal.add_with(draft, &self.context.inventory());
    }

    fn take_event(&mut self, event: &KernelEvent) {
        let plan = &self.context.plan;
        // A slot's port may be another one by now.
        let Some(port) = plan.port(event.slot).filter(|port| port.ifindex == event.port.ifindex) else { return };
        let client = ClientKey(event.client);
        let who = self.viewer.who(client);
        let wall = self.moment.wall_of(event.at);
        match event.kind {
            EVENT_CLIENT_OVER_LIMIT => self.sanctioner.note_first_drop(Subject::Client(client), wall),
            EVENT_PORT_OVER_LIMIT => self.sanctioner.note_first_drop(Subject::Port(event.slot), wall),
            EVENT_ROGUE_SERVER => self.sanctioner.note_server(client),
            _ => {}
        }
        let drops_rogue_servers = plan.spec.policy.host.drop_rogue_servers;
        let Some((kind, message)) = describe::kernel_event(event, port, who, drops_rogue_servers) else { return };
        let vlans = (kind == EventKind::UnknownVlan).then(|| describe::vlans_of(event));
        let draft = Draft { kind, at: wall, port: Some(port), mac: who.mac(), source: who.source(), vlans, message };
        self.journal.add_with(draft, &self.context.inventory());
    }
}
