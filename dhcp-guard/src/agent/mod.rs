//! The agent: what `dhcp-guard run` does between its start and its end.
//!
//! ```text
//!   reader thread ──snapshots──▶ decision loop ──picture──▶ control API ──▶ CLI
//!        ▲  ring buffer ──events──▶   │ │ └────journal────▶
//!        └──────who is known──────────┘ engine (pure)
//! ```
//!
//! All channels are bounded, and the decision loop waits for nobody: a full queue loses its item, and the log says so.
//! Stopping is one word to everybody, and dropping the data plane takes the program off the interfaces.
//!
//! * [`start`]: from a configuration to a guarded host.
//! * [`plan`]: configuration and interfaces become ports with slots and limits.
//! * [`reader`]: reads the maps once a window, on a thread of its own.
//! * [`kernel_events`]: reads the ring buffer.
//! * [`decide`]: the decision loop; [`describe`]: the sentences of its events; [`who`](crate::who): the names of clients.
//! * [`learn`]: strangers become known, from the decision loop to the reader.
//! * [`kept`]: what survives a restart.
//! * [`journal`]: the latest events, for `events` and its followers.
//! * [`inventory`]: reads the inventory again when its file changes.
//! * [`orders`]: from the decision loop to the data plane. [`host_facts`]: what the host itself lives on.
//! * [`requests`]: what people ask of the decision loop; [`names`]: slots and names.
//! * [`sanctions`]: who is put into quarantine, and who is not.
//! * [`report`]: from the decision loop's picture to the API's documents.
//! * [`api`]: HTTP on the Unix socket. [`peers`]: who is at its other end.
//! * [`service`]: what systemd is told. [`privileges`]: what the agent gives up once it guards.

pub mod api;
pub mod decide;
pub mod describe;
pub mod host_facts;
pub mod inventory;
pub mod journal;
pub mod kept;
pub mod kernel_events;
pub mod learn;
pub mod names;
pub mod orders;
pub mod peers;
pub mod plan;
pub mod privileges;
pub mod reader;
pub mod report;
pub mod requests;
pub mod sanctions;
pub mod service;
pub mod start;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use log::{info, warn};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    actuators::{self, Dispatcher},
    audit,
    config::Config,
    dataplane::{self, interface},
    inventory::{
        Inventory,
        watch::{Known, Watcher},
    },
    model::{AttachMode, EventKind, Mode},
};

use self::{
    decide::{Decider, Inputs, Picture},
    journal::{Draft, Journal},
    orders::Clock,
    peers::Rights,
    plan::Plan,
    reader::Reader,
    sanctions::{Hands, Sanctioner},
    service::Service,
};

/// How long what is under way may take when the agent stops.
const GRACE: Duration = Duration::from_secs(5);

/// What `dhcp-guard run` was told beyond the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The configuration file in force; none: defaults.
    pub config_path: Option<PathBuf>,
    /// Print the kernel program's debug messages.
    pub debug_kernel: bool,
}

/// What does not change while the agent runs, but for the inventory.
#[derive(Debug)]
pub struct Context {
    /// The configuration in force.
    pub config: Config,
    /// Where it came from.
    pub config_path: Option<PathBuf>,
    /// Interfaces and ports.
    pub plan: Plan,
    /// How each interface of the plan is attached, in its order.
    pub modes: Vec<AttachMode>,
    /// Whose machine is where, see [`Context::inventory`].
    pub known: RwLock<Known>,
    /// When the agent started.
    pub started: Timestamp,
    /// What makes the guard blind or weak from the start.
    pub warnings: Vec<String>,
}

impl Context {
    /// Whose machine is where. The file may change at any time: whoever asks more than once for one answer keeps this.
    #[must_use]
    pub fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).inventory)
    }

    /// What is wrong with the inventory's file, in sentences.
    #[must_use]
    pub fn inventory_warnings(&self) -> Vec<String> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).warnings.clone()
    }

    /// Puts another inventory into the place of this one. Nobody waits for more than that: it was read before, and the old
    /// one is freed after.
    pub fn set_inventory(&self, known: Known) {
        let before = std::mem::replace(&mut *self.known.write().unwrap_or_else(PoisonError::into_inner), known);
        drop(before);
    }

    /// Guarded interfaces that the kernel has no more under their name and index. Two cheap system calls each.
    pub fn gone_interfaces(&self) -> impl Iterator<Item = &str> {
        self.plan
            .interfaces
            .iter()
            .filter(|interface| interface::index_of(&interface.name) != Some(interface.ifindex))
            .map(|interface| interface.name.as_str())
    }
}

/// Guards until SIGINT or SIGTERM, then takes the program off the interfaces and removes the socket.
///
/// # Errors
/// Whatever keeps the agent from starting: an interface that is unusable, the kernel refuses the program, the
/// socket is taken. Nothing stays attached then.
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    // First, so that whoever lacks the rights for everything hears of the rights, not of the first thing they are for.
    dataplane::check_kernel()?;
    raise_file_limit();
    let mut signals = Signals::listen()?;
    let listener = api::bind(&config.socket, &config.access).await?;
    let mut running = Running::start(config, options, listener).await?;
    let signal = tokio::select! {
        signal = signals.next() => signal,
        error = running.failed() => return Err(error),
    };
    info!("{signal}: taking the guard off and stopping");
    running.stop().await
}

/// As many descriptors as the system lets us have: what a connection takes must not be missing for the guard.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // It stays as it is where it must.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

/// What ends the agent, and what does not.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup: signal(SignalKind::hangup())? })
    }

    /// Waits for one that ends the agent.
    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                // There is nothing to reload yet. Without this, the end of a terminal, or the habit of sending HUP, would
                // end the guard.
                Some(()) = self.hangup.recv() => {
                    warn!("SIGHUP: this version cannot reload its configuration; the guard goes on with the one it has");
                }
            }
        }
    }
}

/// The agent's parts while it runs.
struct Running {
    stop: watch::Sender<bool>,
    reader: Reader,
    decisions: JoinHandle<()>,
    server: JoinHandle<anyhow::Result<()>>,
    dispatcher: Dispatcher,
    audit: audit::Handle,
    kernel_log: Option<JoinHandle<()>>,
    service: Service,
}

impl Running {
    async fn start(config: Config, options: Options, listener: api::Listener) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let watcher = config.inventory.as_deref().map(Watcher::new);
        let known = watcher.as_ref().map(Watcher::known).unwrap_or_default();
        let (rights, without_group) = Rights::new(&config.access);
        let actuators = actuators::configured(&config.actuators)?;
        let facts = host_facts::watch().await;
        let (plan, hidden_servers) = start::plan(&config, options.debug_kernel).await?;
        let mut kept = kept::load(&config, &clock);
        let mut guarded = start::guard(&plan, &mut kept, &clock).await?;
        let kernel_log = options.debug_kernel.then(|| kernel_events::Log::open(guarded.plane.ebpf())).transpose()?;
        let events = kernel_events::open(&mut guarded.plane)?;
        // Before the threads that live as long as the agent.
        privileges::keep_what_running_needs();

        let mut warnings = config.warnings();
        warnings.extend(without_group);
        warnings.extend(hidden_servers);
        warnings.append(&mut kept.warnings);
        warnings.append(&mut guarded.warnings);
        warnings.iter().chain(&known.warnings).for_each(|warning| warn!("{warning}"));
        let context = Arc::new(Context {
            modes: guarded.attachments.iter().map(|a| a.mode).collect(),
            config,
            config_path: options.config_path,
            plan,
            known: RwLock::new(known),
            started: Timestamp::now(),
            warnings,
        });
        let journal = Arc::new(Journal::default());
        let guarding = started(&context);
        let mut service = Service::of_environment();
        service.ready(&guarding.message);
        journal.add(guarding);
        watcher.map_or(Ok(()), |watcher| inventory::keep_fresh(&context, watcher))?;

        let first = reader::read(&mut guarded.plane, clock.epoch()).context("cannot read the counters")?;
        let (learner, learned) = learn::channel(&context.config, &context.plan);
        let (executor, orders) = orders::executor(&context.plan);
        let (reader, snapshots) = Reader::start(guarded, learned, executor, clock.epoch())?;
        let (governor, audit) = kept.keep(&context.config, &journal).context("no thread for the audit log")?;
        let (handle, outcomes, dispatcher) = Dispatcher::start(actuators);
        let hands = Hands {
            orders: orders::Sender::new(reader.messages()),
            journal: Arc::clone(&journal),
            audit: audit.clone(),
            actuators: handle,
        };
        let sanctioner = Sanctioner::new(Arc::clone(&context), hands, clock, facts, governor, &Picture::before(&first));
        let (decider, pictures) = Decider::new(Arc::clone(&context), Arc::clone(&journal), learner, sanctioner, &first);
        let (stop, stopped) = watch::channel(false);
        let (requests, asked) = requests::channel();
        let inputs =
            Inputs { snapshots, events, requests: asked, orders, actuators: outcomes, service: service.clone() };
        let decisions = tokio::spawn(decider.run(inputs, stopped.clone()));
        let rights = Arc::new(rights);
        let shared = api::Shared { context, journal, pictures, requests, audit: audit.clone(), rights };
        let server = tokio::spawn(api::serve(listener, shared, stopped));
        let kernel_log = kernel_log.map(|log| tokio::spawn(log.run()));
        Ok(Self { stop, reader, decisions, server, dispatcher, audit, kernel_log, service })
    }

    /// Waits until a part ends by itself, which is for ever if none does.
    async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.reader.failed() => error,
            ended = &mut self.decisions => anyhow!("the decision loop ended by itself ({ended:?}): please report it"),
            ended = &mut self.server => anyhow!("the control API ended by itself ({ended:?}): please report it"),
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.service.stopping();
        let _ = self.stop.send(true);
        self.decisions.await.context("the decision loop failed")?;
        self.server.await.context("the control API failed")??;
        self.dispatcher.finish(GRACE).await;
        let audit = self.audit;
        let written = tokio::task::spawn_blocking(move || audit.flush(GRACE)).await.unwrap_or(false);
        if !written {
            warn!("not all of the audit log and the state could be written");
        }
        if let Some(log) = self.kernel_log {
            log.abort();
        }
        self.reader.stop()
    }
}

fn started(context: &Context) -> Draft<'static> {
    let interfaces: Vec<String> = context
        .plan
        .interfaces
        .iter()
        .zip(&context.modes)
        .map(|(interface, mode)| {
            let mode = if *mode == AttachMode::Native { "native" } else { "generic" };
            format!("{} ({mode})", interface.name)
        })
        .collect();
    let mode = if context.config.mode == Mode::Enforce { "enforce" } else { "monitor" };
    let message = format!("guarding {} in {mode} mode", interfaces.join(", "));
    info!("{message}; control API on {}", context.config.socket.display());
    Draft::of_nobody(EventKind::AgentStarted, context.started, message)
}
