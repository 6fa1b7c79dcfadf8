//! Follows the interfaces as they come and go, and the configuration when somebody wants it read again. Each of both becomes
//! a [`Change`], one at a time, which the thread that owns the data plane makes as a whole or not at all.
//!
//! `reload`: from the file to what is wanted. `portion`: how much of it at once. `tell`: the events of a change.

mod portion;
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

use self::portion::{Portion, Waiting};
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
    waiting: Waiting,
    /// There is work left for the next change.
    more: bool,
    /// Interfaces that the guard was taken off, and is not on.
    detached: HashSet<u32>,
    /// The number of the latest news of pins that was told.
    told_of_pins: u64,
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
            waiting: Waiting::default(),
            more: false,
            detached,
            told_of_pins: 0,
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
                Ok(()) = self.links.changed() => {
                    self.waiting.vanished.clear();
                    self.follow(false).await;
                }
                Some(lost) = self.lost.recv() => self.take_lost(lost).await,
                Some(asked) = self.asked.recv() => self.answer(asked).await,
                // The first comes at once: what has changed since the start is not waited for.
                _ = retry.tick() => {
                    self.waiting.vanished.clear();
                    self.waiting.refused.clear();
                    if turn == 0 {
                        self.waiting.impossible.clear();
                    }
                    turn = (turn + 1) % RETRY_FAILED;
                    self.follow(false).await;
                }
                () = std::future::ready(()), if self.more => self.follow(false).await,
                _ = stopped.changed() => return,
            }
        }
    }

    /// Guards what is to be guarded of the interfaces there are, as far as one change goes; `is_asked_for`: also if all seems to
    /// be guarded.
    async fn follow(&mut self, is_asked_for: bool) {
        let links = Arc::clone(&self.links.borrow_and_update());
        let meant = links::meant(&self.context.config.interfaces, &links);
        self.forget_gone(&meant);
        self.more = false;
        if !is_asked_for && self.is_followed(&meant) {
            return;
        }
        let before = Arc::clone(&self.context);
        let (config, machines) = (before.config.clone(), Arc::clone(&before.machines));
        let portion = self.portion(&meant, &links, &[], config.reattach);
        let wanted = self.wanted(config, machines, &meant, &portion, &[]).await;
        match self.change(wanted).await {
            Ok(done) => {
                self.stuck = None;
                self.take(done, &links, &portion);
                let stays = |one: &Interface| self.context.plan.interfaces.iter().any(|now| now.ifindex == one.ifindex);
                if !before.plan.interfaces.iter().all(stays) {
                    // Those that found no room may find it after others have gone.
                    self.waiting.impossible.clear();
                }
                self.more = !self.is_followed(&meant);
            }
            Err(Failed::Stopping) => {}
            // Whoever was refused a change is refused the next one: the kernel tells when there is something new.
            Err(Failed::Plane(error)) => self.tell_stuck(&error.to_string()),
        }
    }

    /// All that is meant is guarded, or could not be.
    fn is_followed(&self, meant: &Meant) -> bool {
        let guarded = &self.context.plan.interfaces;
        let to_put_back = self.to_put_back(self.context.config.reattach);
        portion::is_done(&meant.interfaces, guarded, &to_put_back, &self.waiting) && self.warnings(meant) == self.warned
    }

    fn portion(&self, meant: &Meant, links: &Links, must: &[String], reattach: bool) -> Portion {
        let guarded = &self.context.plan.interfaces;
        portion::portion(&meant.interfaces, links, guarded, &self.to_put_back(reattach), &self.waiting, must)
    }

    fn to_put_back(&self, reattach: bool) -> HashSet<u32> {
        if reattach { self.detached.clone() } else { HashSet::new() }
    }

    /// Nobody wonders why interfaces are not guarded that are not there, or not meant.
    fn forget_gone(&mut self, meant: &Meant) {
        self.failed.retain(|name, _| meant.interfaces.iter().any(|(_, meant)| meant == name));
    }

    /// What is to be, with these interfaces.
    async fn wanted(
        &mut self,
        config: Config,
        machines: Arc<Machines>,
        meant: &Meant,
        portion: &Portion,
        must: &[String],
    ) -> Wanted {
        let (mut candidates, mut failed) = (Vec::new(), Vec::new());
        for (ifindex, name) in &portion.interfaces {
            let known = self.context.plan.interfaces.iter().find(|one| one.ifindex == *ifindex);
            let put_back = portion.put_back.contains(ifindex);
            let found = if known.is_none() || put_back { Some(interface::find(name).await) } else { None };
            let interface = match (found, known) {
                // What is on it must be known before something can be put there.
                (Some(Ok(found)), _) if found.ifindex == *ifindex => found,
                (_, Some(known)) => Interface { name: name.clone(), ..known.clone() },
                // It has changed again, and that is told in a moment.
                (Some(Ok(_) | Err(dataplane::Error::NoInterface { .. })) | None, None) => continue,
                (Some(Err(error)), None) => {
                    failed.push((name.clone(), error.to_string()));
                    continue;
                }
            };
            candidates.push(Candidate { must: must.contains(name), put_back, interface });
        }
        let warnings = self.warnings(meant);
        self.warned.clone_from(&warnings);
        // Those that are not tried this time are what they were.
        let others = self.failed.iter().filter(|(name, _)| portion.interfaces.iter().all(|(_, tried)| tried != *name));
        let failed_before = others.map(|(name, why)| (name.clone(), why.clone())).collect();
        let lasting = Arc::clone(&self.lasting);
        Wanted { config, candidates, failed, failed_before, machines, lasting, warnings }
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
    async fn take_lost(&mut self, lost: Lost) {
        if self.tell_lost(&lost) {
            self.follow(true).await;
        } else {
            debug!("what was taken off is known, gone, or called otherwise");
        }
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
