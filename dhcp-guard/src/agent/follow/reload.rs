//! Reading the configuration again: all of it is checked before any of it is in force.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use log::{info, warn};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Done, Failed, Follower, QUEUE, Waiting, links, new_names};
use crate::{
    agent::{
        inventory::{self, Machines},
        journal::Draft,
        requests::Denied,
    },
    config::{Config, ConfigError, Diff},
    dataplane,
    governor::Author,
    human::duration,
    inventory::watch::Watcher,
    model::{AttachMode, AuditRecord, Changed, EventKind},
};

/// How long reading the file may take.
const READ: Duration = Duration::from_secs(10);

/// What a reload is asked for by.
#[derive(Debug)]
pub struct Reload {
    /// Who asks; none: a signal, which has no name.
    pub author: Option<Author>,
    /// Why.
    pub reason: String,
    /// Only say what would change.
    pub dry_run: bool,
    /// Where the answer goes. That nobody waits for it any more is no reason not to do it.
    pub answer: oneshot::Sender<Result<Changed, Denied>>,
}

/// The way to whoever reads the configuration again.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Reload>);

impl Reloads {
    /// Both ends.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Reload>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Asks for it, and waits until it is done or refused.
    ///
    /// # Errors
    /// [`Denied`]: nothing was changed.
    pub async fn ask(&self, author: Option<Author>, reason: String, dry_run: bool) -> Result<Changed, Denied> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Reload { author, reason, dry_run, answer }).map_err(|_| Denied::Busy)?;
        answered.await.unwrap_or(Err(Denied::Busy))
    }
}

impl Follower {
    /// Reads the configuration again for somebody.
    pub(super) async fn answer(&mut self, asked: Reload) {
        let Reload { author, reason, dry_run, answer } = asked;
        let result = self.reload(author, &reason, dry_run).await;
        // Whoever asked may be gone by now.
        let _ = answer.send(result);
        // What one change has no time for.
        self.more = true;
    }

    async fn reload(&mut self, author: Option<Author>, reason: &str, dry_run: bool) -> Result<Changed, Denied> {
        let written = self.read().await?;
        let links = Arc::clone(&self.links.borrow_and_update());
        let running = &self.context.config;
        // Until now the same keys may have waited for the next start.
        let mut diff = Diff::between(running, &written);
        let config = written.until_restart(running);
        self.check(&config, &diff)?;
        let meant = links::meant(&config.interfaces, &links);
        let new = new_names(running, &config);
        if let Some(name) = new.iter().find(|name| meant.missing.contains(name)) {
            return Err(Denied::Rules(dataplane::Error::NoInterface { name: name.clone() }.to_string()));
        }
        let mut changes = lines(&diff);
        if dry_run {
            changes.extend(self.to_be_put_back());
            return Ok(Changed { dry_run, changes });
        }
        let machines = if config.inventory == running.inventory {
            Arc::clone(&self.context.machines)
        } else {
            machines(&config).await?
        };
        let before = std::mem::replace(&mut self.at_start, std::mem::take(&mut diff.at_start));
        self.waiting = Waiting::default();
        let portion = self.portion(&meant, &links, &new, true);
        let wanted = self.wanted(config, machines, &meant, &portion, &new).await;
        match self.change(wanted).await {
            Ok(done) => {
                changes.extend(self.put_back(&done));
                self.take(done, &links, &portion);
            }
            Err(failed) => {
                self.at_start = before;
                return Err(match failed {
                    Failed::Plane(error) => Denied::Rules(format!("{error}; everything is as it was")),
                    Failed::Stopping => Denied::Busy,
                });
            }
        }
        self.record(author, reason, &changes);
        Ok(Changed { dry_run, changes })
    }

    /// Where others have taken the guard off, and it is to be again: that is no change of the configuration, but one.
    fn to_be_put_back(&self) -> impl Iterator<Item = String> {
        let off = self.context.plan.interfaces.iter().filter(|one| self.detached.contains(&one.ifindex));
        off.map(|one| format!("interface {}: the guard is put back, if nothing is in its place", one.name))
    }

    /// And where it is again.
    fn put_back(&self, done: &Done) -> impl Iterator<Item = String> {
        let was_off = |ifindex| self.detached.contains(ifindex) || done.lost.guard.contains(ifindex);
        let interfaces = done.context.plan.interfaces.iter().zip(&done.context.modes);
        let back = interfaces.filter(move |(one, mode)| was_off(&one.ifindex) && **mode != AttachMode::Detached);
        back.map(|(one, _)| format!("interface {}: the guard was put back", one.name))
    }

    /// What the file says, with the command line over it.
    async fn read(&self) -> Result<Config, Denied> {
        let Some(path) = self.lasting.config_path.clone() else {
            let sentence = "the agent was started without a configuration file, so there is none to read again: start it with \
                            --config";
            return Err(Denied::Nonsense(sentence.to_owned()));
        };
        let late = format!(
            "cannot read the configuration {}: its file system has not answered for {}; nothing is changed, try again when it \
             does",
            path.display(),
            duration(READ.as_secs())
        );
        // A file server that does not answer stops nothing else: interfaces are followed here, too.
        let read = timeout(READ, tokio::task::spawn_blocking(move || Config::load(&path))).await;
        match read.map_err(|_| Denied::Nonsense(late))? {
            Ok(Ok(config)) => Ok(self.overrides.over(config)),
            Ok(Err(error @ ConfigError::Invalid { .. })) => Err(Denied::Rules(error.to_string())),
            Ok(Err(error)) => Err(Denied::Nonsense(error.to_string())),
            Err(error) => Err(Denied::Nonsense(format!("the configuration could not be read: {error}"))),
        }
    }

    /// What is in force afterwards must be right as well: it has parts of the file and parts of what runs.
    fn check(&self, config: &Config, diff: &Diff) -> Result<(), Denied> {
        if config.interfaces.is_empty() {
            return Err(Denied::Rules("the configuration names no interface: nothing would be guarded".to_owned()));
        }
        let problems: Vec<String> = config.validate().iter().map(ToString::to_string).collect();
        if problems.is_empty() {
            return Ok(());
        }
        let problems = problems.join("; ");
        Err(Denied::Rules(if diff.at_start.is_empty() {
            format!("the configuration is not valid: {problems}")
        } else {
            format!(
                "without what takes effect at the next start only ({}) the configuration is not valid: {problems}; start the \
                 agent again",
                diff.at_start.join(", ")
            )
        }))
    }

    fn record(&self, author: Option<Author>, reason: &str, changes: &[String]) {
        let at = Timestamp::now();
        let who = author.as_ref().map_or_else(|| "a signal".to_owned(), ToString::to_string);
        let what = match changes {
            [] => "nothing is different".to_owned(),
            changes => changes.join("; "),
        };
        let message = format!("the configuration was read again (by {who}): {what}");
        self.journal.add(Draft::of_nobody(EventKind::Reloaded, at, message));
        self.audit.record(AuditRecord {
            author,
            after: Some(changes.into()),
            ..AuditRecord::new(at, "reload", reason)
        });
    }
}

/// What a person is told.
fn lines(diff: &Diff) -> Vec<String> {
    let later = diff.at_start.iter().map(|line| format!("{line} (at the next start)"));
    diff.now.iter().cloned().chain(later).collect()
}

/// Another inventory, kept fresh from now on.
async fn machines(config: &Config) -> Result<Arc<Machines>, Denied> {
    let Some(path) = config.inventory.clone() else { return Ok(Arc::default()) };
    let loaded = tokio::task::spawn_blocking(move || {
        let watcher = Watcher::new(&path);
        let machines = Arc::new(Machines::new(watcher.known()));
        inventory::keep_fresh(&machines, watcher).map(|()| machines)
    });
    match loaded.await {
        Ok(Ok(machines)) => Ok(machines),
        Ok(Err(error)) => Err(Denied::Nonsense(format!("{error:#}"))),
        Err(error) => Err(Denied::Nonsense(format!("the inventory could not be read: {error}"))),
    }
}

/// What SIGHUP does: the same as somebody's request, told in the log.
pub async fn on_signal(reloads: &Reloads) {
    match reloads.ask(None, "SIGHUP".to_owned(), false).await {
        Ok(_) => info!("SIGHUP: the configuration was read again"),
        Err(denied) => warn!("SIGHUP: {denied}; the guard goes on with the configuration that it has"),
    }
}
