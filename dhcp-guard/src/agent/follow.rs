//! Follows the interfaces as they come and go, and the configuration when somebody wants it read again. Each of both becomes
//! a [`Change`], one at a time, which the thread that owns the data plane makes as a whole or not at all.
//!
//! `reload`: from the file to what is wanted. `tell`: the events of a change.

mod reload;
mod tell;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use log::{debug, warn};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};

pub use self::reload::{Reload, Reloads, on_signal};
use super::{
    Context,
    change::{Candidate, Change, Done, Lasting, Lost, Wanted},
    inventory::Machines,
    journal::Journal,
    links::{self, Links, Meant},
    orders::Message,
};
use crate::{
    audit,
    config::{Config, Overrides, is_pattern},
    dataplane::{
        self,
        interface::{self, Interface},
    },
};

/// Before it is tried again to put the guard back where it was taken off.
const RETRY: Duration = Duration::from_secs(5);
/// Of these, one in so many also tries to guard what never could be guarded.
const RETRY_FAILED: u32 = 6;
/// New interfaces in one change. To attach to one takes the kernel some 10 ms, and while a change is made nobody is judged and
/// nothing is counted: so many at once are half a second's work.
const AT_ONCE: usize = 32;
/// Requests that may wait.
const QUEUE: usize = 4;

/// What the follower needs.
#[derive(Debug)]
pub struct Parts {
    /// The interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// Programs that were taken off.
    pub lost: mpsc::Receiver<Lost>,
    /// The way to the thread that owns the data plane.
    pub messages: std_mpsc::SyncSender<Message>,
    /// What is in force.
    pub context: Arc<Context>,
    /// What does not change.
    pub lasting: Lasting,
    /// What the command line said.
    pub overrides: Overrides,
    /// Where it is told.
    pub journal: Arc<Journal>,
    /// Where it is on record.
    pub audit: audit::Handle,
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    links: watch::Receiver<Arc<Links>>,
    lost: mpsc::Receiver<Lost>,
    asked: mpsc::Receiver<Reload>,
    messages: std_mpsc::SyncSender<Message>,
    context: Arc<Context>,
    lasting: Arc<Lasting>,
    overrides: Overrides,
    journal: Arc<Journal>,
    audit: audit::Handle,
    /// Interfaces that could not be guarded, and why, as far as it was told.
    failed: BTreeMap<String, String>,
    /// Those of them that never were guarded, by index, or went meanwhile: they wait for the next time that all are tried.
    impossible: HashSet<u32>,
    /// Interfaces that the guard was taken off, and is not on.
    detached: HashSet<u32>,
    /// What the file says and is not in force before the next start.
    at_start: Vec<String>,
    /// What the latest change had to warn about.
    warned: Vec<String>,
    /// Why nothing can be changed, if that is so; told once.
    stuck: Option<String>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Plane(#[from] dataplane::Error),
    #[error("the agent is stopping")]
    Stopping,
}

impl Follower {
    /// A follower, and the way to ask it to read the configuration again.
    #[must_use]
    pub fn new(parts: Parts) -> (Self, Reloads) {
        let (reloads, asked) = Reloads::channel();
        let Parts { links, lost, messages, context, lasting, overrides, journal, audit } = parts;
        let (lasting, detached) = (Arc::new(lasting), tell::detached(&context));
        let follower = Self {
            links,
            lost,
            asked,
            messages,
            context,
            lasting,
            overrides,
            journal,
            audit,
            failed: BTreeMap::new(),
            impossible: HashSet::new(),
            detached,
            at_start: Vec::new(),
            warned: Vec::new(),
            stuck: None,
        };
        (follower, reloads)
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = 0;
        loop {
            tokio::select! {
                Ok(()) = self.links.changed() => self.follow(false).await,
                Some(lost) = self.lost.recv() => self.take_lost(lost).await,
                Some(asked) = self.asked.recv() => self.answer(asked).await,
                // The first comes at once: what has changed since the start is not waited for.
                _ = retry.tick() => {
                    let again = self.is_detached() || !self.failed.is_empty() && turn == 0;
                    turn = (turn + 1) % RETRY_FAILED;
                    self.follow(again).await;
                }
                _ = stopped.changed() => return,
            }
        }
    }

    /// The guard is not where it was, and should be.
    fn is_detached(&self) -> bool {
        !self.detached.is_empty() && self.context.config.reattach
    }

    /// Guards what is to be guarded of the interfaces there are; `again`: also what could not be guarded before.
    async fn follow(&mut self, again: bool) {
        if again {
            self.impossible.clear();
        }
        let mut is_asked_for = again;
        loop {
            let links = Arc::clone(&self.links.borrow_and_update());
            let meant = links::meant(&self.context.config.interfaces, &links);
            if !is_asked_for && self.is_followed(&meant) {
                return;
            }
            is_asked_for = false;
            self.forget_gone(&meant);
            // Whoever was refused the change is refused the next one.
            let Some(makes_room) = self.follow_once(&links, &meant).await else { return };
            if makes_room {
                // Those that found no room may find it after others have gone.
                self.impossible.clear();
            }
        }
    }

    /// All that is meant is guarded, or could not be.
    fn is_followed(&self, meant: &Meant) -> bool {
        let guarded = self.context.plan.interfaces.iter().map(|one| (one.ifindex, one.name.as_str()));
        let possible = meant.interfaces.iter().filter(|(ifindex, _)| !self.impossible.contains(ifindex));
        guarded.eq(possible.map(|(ifindex, name)| (*ifindex, name.as_str()))) && self.warnings(meant) == self.warned
    }

    /// True: something is not guarded any more. None: nothing could be changed.
    async fn follow_once(&mut self, links: &Links, meant: &Meant) -> Option<bool> {
        let before = Arc::clone(&self.context);
        let (config, machines) = (self.context.config.clone(), Arc::clone(&self.context.machines));
        let reattach = config.reattach;
        let now = self.at_once(meant, &[]);
        let wanted = self.wanted(config, machines, &now, reattach, &[]).await;
        match self.change(wanted).await {
            Ok(done) => {
                self.stuck = None;
                self.take(done, links, &now);
                let stays = |one: &Interface| self.context.plan.interfaces.iter().any(|now| now.ifindex == one.ifindex);
                Some(!before.plan.interfaces.iter().all(stays))
            }
            Err(Failed::Stopping) => None,
            Err(Failed::Plane(error)) => {
                self.tell_stuck(&error.to_string());
                None
            }
        }
    }

    /// Nobody wonders why interfaces are not guarded that are not there, or not meant.
    fn forget_gone(&mut self, meant: &Meant) {
        self.failed.retain(|name, _| meant.interfaces.iter().any(|(_, meant)| meant == name));
    }

    /// Of what is meant, what one change may be about: what is guarded, what must be, and some of the rest that was not tried.
    fn at_once(&self, meant: &Meant, must: &[String]) -> Meant {
        let mut room = AT_ONCE;
        let mut is_next = |(ifindex, name): &&(u32, String)| {
            if must.contains(name) || self.context.plan.interfaces.iter().any(|one| one.ifindex == *ifindex) {
                return true;
            }
            let is_next = room > 0 && !self.impossible.contains(ifindex);
            room -= usize::from(is_next);
            is_next
        };
        let interfaces = meant.interfaces.iter().filter(|one| is_next(one)).cloned().collect();
        Meant { interfaces, ..meant.clone() }
    }

    /// What is to be, with these interfaces.
    async fn wanted(
        &mut self,
        config: Config,
        machines: Arc<Machines>,
        meant: &Meant,
        reattach: bool,
        must: &[String],
    ) -> Wanted {
        let mut candidates = Vec::new();
        for (ifindex, name) in &meant.interfaces {
            let known = self.context.plan.interfaces.iter().find(|one| one.ifindex == *ifindex);
            let interface = match known.filter(|_| !self.detached.contains(ifindex)) {
                Some(known) => Interface { name: name.clone(), ..known.clone() },
                // What is on it must be known before something can be put there.
                None => match interface::find(name).await {
                    Ok(found) if found.ifindex == *ifindex => found,
                    // It has changed again, and that is told in a moment.
                    _ => continue,
                },
            };
            candidates.push(Candidate { must: must.contains(name), interface });
        }
        let mut warnings = self.warnings(meant);
        self.warned.clone_from(&warnings);
        // Those that are not tried this time are what they were.
        let others = self.failed.iter().filter(|(name, _)| meant.interfaces.iter().all(|(_, tried)| tried != *name));
        warnings.extend(others.map(|(_, why)| why.clone()));
        Wanted { config, candidates, reattach, machines, lasting: Arc::clone(&self.lasting), warnings }
    }

    fn warnings(&self, meant: &Meant) -> Vec<String> {
        let missing = meant.missing.iter().map(|name| {
            format!("interface {name} is to be guarded and is not there: it is guarded as soon as it appears")
        });
        let idle = meant.idle.iter().map(|word| format!("interfaces: no interface is called like `{word}` yet"));
        let at_start = (!self.at_start.is_empty()).then(|| {
            format!("what the configuration says of this takes effect at the next start: {}", self.at_start.join(", "))
        });
        missing.chain(idle).chain(at_start).collect()
    }

    /// Has a change made, and waits until the decision loop has taken it.
    async fn change(&mut self, wanted: Wanted) -> Result<Done, Failed> {
        let (answer, answered) = oneshot::channel();
        let (messages, change) = (self.messages.clone(), Box::new(Change { wanted, answer }));
        // The queue is short, and this may wait for it.
        let sent = tokio::task::spawn_blocking(move || messages.send(Message::Change(change))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Err(Failed::Stopping);
        }
        let done = answered.await.map_err(|_| Failed::Stopping)?;
        // What was missing before the change is not told twice; what still is, in a second.
        while self.lost.try_recv().is_ok() {}
        done.map_err(Failed::Plane)
    }

    /// A program was taken off some interfaces, or went with them: then netlink says so in a moment.
    async fn take_lost(&mut self, mut lost: Lost) {
        let plan = &self.context.plan;
        let is_here = |ifindex: &u32| plan.interfaces.iter().any(|one| one.ifindex == *ifindex && one.is_here());
        lost.guard.retain(is_here);
        lost.replies.retain(is_here);
        if lost.is_empty() {
            return debug!("what was taken off is gone, or called otherwise");
        }
        for Interface { name, ifindex, .. } in &plan.interfaces {
            if lost.guard.contains(ifindex) && !self.detached.contains(ifindex) {
                self.tell_detached(name);
            }
            if lost.replies.contains(ifindex) {
                self.tell_replies_detached(name);
            }
        }
        self.detached.extend(lost.guard);
        self.follow(true).await;
    }

    fn tell_stuck(&mut self, why: &str) {
        if self.stuck.as_deref() != Some(why) {
            warn!("the interfaces have changed, and the guard cannot follow: {why}");
            self.stuck = Some(why.to_owned());
        }
    }
}

/// Names in `interfaces` that were not there before: whoever adds one wants it guarded now.
fn new_names(before: &Config, after: &Config) -> Vec<String> {
    let is_new = |word: &&String| !is_pattern(word) && !before.interfaces.contains(word);
    after.interfaces.iter().filter(is_new).cloned().collect()
}
