//! The agent: what `dhcp-guard run` does between its start and its end.
//!
//! ```text
//!   reader thread ──snapshots──▶ decision loop ──picture──▶ control API ──▶ CLI
//!        ▲  ring buffer ──events──▶   │ │ └────journal────▶
//!        └──────who is known──────────┘ engine (pure)
//! ```
//!
//! All channels are bounded, and the decision loop waits for nobody: a full queue loses its item, and the log says so.
//! Stopping is one word to everybody. The programs stay on the interfaces, and the next agent goes on where this one ended;
//! only where nothing can be pinned they go with it.
//!
//! * [`start`]: from a configuration to a guarded host.
//! * [`plan`]: configuration and interfaces become ports with slots and limits.
//! * [`reader`]: reads the maps once a window, on a thread of its own.
//! * [`kernel_events`]: reads the ring buffer.
//! * [`picture`]: what the readings amount to, and what queries are answered from.
//! * [`decide`]: the decision loop; [`describe`]: the sentences of its events; [`who`](crate::who): the names of clients.
//! * [`learn`]: strangers become known, from the decision loop to the reader.
//! * [`kept`]: what survives a restart; [`found`]: what only the maps know of it.
//! * [`journal`]: the latest events, for `events` and its followers.
//! * [`inventory`]: reads the inventory again when its file changes.
//! * [`follow`]: interfaces that come and go, and the configuration when it is to be read again; [`links`]: which interfaces
//!   there are; [`change`]: how the guard changes, as a whole or not at all.
//! * [`pinned`]: whether what is to outlive the agent is still pinned.
//! * [`orders`]: from the decision loop to the data plane. [`host_facts`]: what the host itself lives on.
//! * [`requests`]: what people ask of the decision loop; [`names`]: slots and names.
//! * [`sanctions`]: who is put into quarantine, and who is not.
//! * [`offline`]: the picture where no agent runs.
//! * [`report`]: from the decision loop's picture to the API's documents.
//! * [`api`]: HTTP on the Unix socket. [`peers`]: who is at its other end.
//! * [`service`]: what systemd is told. [`privileges`]: what the agent gives up once it guards.

pub mod api;
pub mod change;
pub mod decide;
pub mod describe;
pub mod follow;
pub mod found;
pub mod host_facts;
pub mod inventory;
pub mod journal;
pub mod kept;
pub mod kernel_events;
pub mod learn;
pub mod links;
pub mod names;
pub mod offline;
pub mod orders;
pub mod peers;
pub mod picture;
pub mod pinned;
pub mod plan;
pub mod privileges;
pub mod reader;
pub mod report;
pub mod requests;
pub mod sanctions;
pub mod service;
pub mod start;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use log::{info, warn};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    actuators::{self, Dispatcher},
    audit,
    config::{Config, Overrides},
    dataplane, doctor,
    inventory::{Inventory, watch::Watcher},
    model::{AttachMode, EventKind, Mode},
};

use self::{
    change::Lasting,
    decide::{Decider, Inputs},
    follow::{Follower, Reloads},
    inventory::Machines,
    journal::{Draft, Journal},
    orders::Clock,
    peers::Rights,
    picture::Picture,
    plan::Plan,
    reader::Reader,
    sanctions::{Hands, Sanctioner},
    service::Service,
};

/// How long what is under way may take when the agent stops.
const GRACE: Duration = Duration::from_secs(5);
/// For how long the start waits for the disk to have its state.
const FIRST_SAVE: Duration = Duration::from_secs(1);

/// What `dhcp-guard run` was told beyond the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The configuration file in force; none: defaults.
    pub config_path: Option<PathBuf>,
    /// What the command line says over the file.
    pub overrides: Overrides,
    /// Print the kernel program's debug messages.
    pub debug_kernel: bool,
}

/// What is guarded, how, and by which configuration. It never changes: a change of the configuration or of the interfaces
/// puts another one in its place, as a whole, and each [`Picture`] has the one that it is to be read with.
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
    /// Whose machine is where.
    pub machines: Arc<Machines>,
    /// When the agent started.
    pub started: Timestamp,
    /// How long ago there was an agent; none: never. Whoever has this from an agent has it from one that is there.
    pub last_agent: Option<Duration>,
    /// What makes the guard blind or weak.
    pub warnings: Vec<String>,
}

impl Context {
    /// Whose machine is where. The file may change at any time: whoever asks more than once for one answer keeps this.
    #[must_use]
    pub fn inventory(&self) -> Arc<Inventory> {
        self.machines.inventory()
    }
}

/// Guards until SIGINT or SIGTERM, then removes the socket. The interfaces stay guarded.
///
/// # Errors
/// Whatever keeps the agent from starting: an interface that is unusable, the kernel refuses the program, the
/// socket is taken. Whatever was guarded before still is.
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    // First, so that whoever lacks the rights for everything hears of the rights, not of the first thing they are for.
    dataplane::check_kernel()?;
    raise_file_limit();
    let mut signals = Signals::listen()?;
    let listener = api::bind(&config.socket, &config.access).await?;
    let mut running = Running::start(config, options, listener).await?;
    let signal = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Caught::End(signal) => break signal,
                // Not awaited here: whatever it takes, the next signal is heard.
                Caught::Reload => drop(tokio::spawn(running.reload_on_signal())),
            },
            error = running.failed() => return Err(error),
        }
    };
    info!("{signal}: {}", running.last_words().await);
    running.stop().await
}

/// As many descriptors as the system lets us have: what a connection takes must not be missing for the guard.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // It stays as it is where it must.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

/// What a signal wants.
enum Caught {
    /// The agent ends, by this signal.
    End(&'static str),
    /// The configuration is read again.
    Reload,
}

/// The signals that mean something.
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

    /// Waits for the next one.
    async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.interrupt.recv() => Caught::End("SIGINT"),
            _ = self.terminate.recv() => Caught::End("SIGTERM"),
            _ = self.hangup.recv() => Caught::Reload,
        }
    }
}

/// The agent's parts while it runs.
struct Running {
    /// Where what holds the guard without the agent is pinned; none: nothing does.
    pins: Option<PathBuf>,
    pictures: watch::Receiver<Arc<Picture>>,
    stop: watch::Sender<bool>,
    reader: Reader,
    decisions: JoinHandle<()>,
    follower: JoinHandle<()>,
    reloads: Reloads,
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
        let links = links::watch().await?;
        let now = Arc::clone(&links.borrow());
        let (mut plan, hidden_servers) = start::plan(&config, &now, options.debug_kernel).await?;
        let weaknesses = start::weaknesses(&config, options.config_path.as_deref()).await?;
        // What is pinned where only this agent sees it goes when the last one goes who does. To be asked before it is mounted.
        let hidden = doctor::are_pins_hidden(&config.pin_dir);
        let mut kept = kept::load(&config, &clock);
        let (mut guarded, governor) = start::guard(&mut plan, &config, &mut kept, &clock).await?;
        let pins = guarded.plane.pin_dir().filter(|_| !hidden).map(Path::to_owned);
        let kernel_log = options.debug_kernel.then(|| kernel_events::Log::open(guarded.plane.ebpf())).transpose()?;
        let events = kernel_events::open(&mut guarded.plane)?;
        // Before the threads that live as long as the agent.
        privileges::keep_what_running_needs();

        let lasting = Lasting {
            config_path: options.config_path,
            debug_kernel: options.debug_kernel,
            started: Timestamp::now(),
            warnings: without_group
                .into_iter()
                .chain(kept.warnings.drain(..))
                .chain(guarded.warnings.drain(..))
                .chain(weaknesses)
                .collect(),
        };
        let mut warnings = lasting.warnings.clone();
        warnings.extend(config.warnings());
        warnings.extend(hidden_servers);
        warnings.extend(guarded.weaknesses(&plan, &HashSet::new()));
        warnings.iter().chain(&known.warnings).for_each(|warning| warn!("{warning}"));
        let context = Arc::new(Context {
            modes: guarded.modes(&plan),
            config,
            config_path: lasting.config_path.clone(),
            plan,
            machines: Arc::new(Machines::new(known)),
            started: lasting.started,
            last_agent: Some(Duration::ZERO),
            warnings,
        });
        let journal = Arc::new(Journal::default());
        let guarding = guarding(&context);
        let socket = context.config.socket.clone();
        journal.add(Draft::of_nobody(EventKind::AgentStarted, context.started, guarding.clone()));
        watcher.map_or(Ok(()), |watcher| inventory::keep_fresh(&context.machines, watcher))?;

        let first = reader::read(&mut guarded.plane, clock.epoch()).context("cannot read the counters")?;
        let (learner, learned) = learn::channel(&context.config, &context.plan);
        let (executor, orders) = orders::executor(&context.plan);
        let (lost, taken_off) = mpsc::channel(1);
        let audit = kept.keep(&context.config, &journal).context("no thread for the audit log")?;
        // The last that can fail: until here, what is dropped undoes what this start has done.
        let parts = reader::Parts { guarded, actions: learned, executor, lost };
        let (reader, readings) = Reader::start(parts, clock.epoch())?;
        let (handle, outcomes, dispatcher) = Dispatcher::start(actuators);
        let hands = Hands {
            orders: orders::Sender::new(reader.messages()),
            journal: Arc::clone(&journal),
            audit: audit.clone(),
            actuators: handle,
        };
        let sanctioner =
            Sanctioner::new(Arc::clone(&context), hands, clock, facts, governor, &Picture::before(&context, &first));
        let (decider, pictures) = Decider::new(Arc::clone(&context), Arc::clone(&journal), learner, sanctioner, &first);
        let (stop, stopped) = watch::channel(false);
        let (requests, asked) = requests::channel();
        let service = Service::of_environment(&guarding);
        let inputs =
            Inputs { readings, events, requests: asked, orders, actuators: outcomes, service: service.clone() };
        let decisions = tokio::spawn(decider.run(inputs, stopped.clone()));
        let rights = Arc::new(rights);
        let (follower, reloads) = Follower::new(follow::Parts {
            links,
            lost: taken_off,
            messages: reader.messages(),
            context,
            lasting,
            overrides: options.overrides,
            journal: Arc::clone(&journal),
            audit: audit.clone(),
        });
        let follower = tokio::spawn(follower.run(stopped.clone()));
        let shared = api::Shared {
            journal,
            pictures: pictures.clone(),
            requests,
            reloads: reloads.clone(),
            audit: audit.clone(),
            rights,
        };
        let server = tokio::spawn(api::serve(listener, shared, stopped));
        let kernel_log = kernel_log.map(|log| tokio::spawn(log.run()));
        // From here on whoever is killed is missed: a state that is not there then counts as lost. A disk that does not answer
        // keeps nobody from starting.
        let saving = audit.clone();
        let _ = tokio::task::spawn_blocking(move || saving.flush(FIRST_SAVE)).await;
        // Only now is everything there that an agent is.
        info!("{guarding}; control API on {}", socket.display());
        service.ready();
        Ok(Self {
            pins,
            pictures,
            stop,
            reader,
            decisions,
            follower,
            reloads,
            server,
            dispatcher,
            audit,
            kernel_log,
            service,
        })
    }

    /// Waits until a part ends by itself, which is for ever if none does.
    async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.reader.failed() => error,
            ended = &mut self.decisions => anyhow!("the decision loop ended by itself ({ended:?}): please report it"),
            ended = &mut self.follower => anyhow!("what follows the interfaces ended by itself ({ended:?}): please report it"),
            ended = &mut self.server => anyhow!("the control API ended by itself ({ended:?}): please report it"),
        }
    }

    /// Reads the configuration again, as soon as this is awaited.
    fn reload_on_signal(&self) -> impl Future<Output = ()> + Send + use<> {
        let reloads = self.reloads.clone();
        async move { follow::on_signal(&reloads).await }
    }

    /// What becomes of the guard.
    async fn last_words(&self) -> String {
        let Some(dir) = self.pins.clone() else { return "taking the guard off and stopping".to_owned() };
        let context = Arc::clone(&self.pictures.borrow().context);
        let (looked_into, how) = (dir.clone(), "(`dhcp-guard detach` takes the guard off)");
        let look = tokio::task::spawn_blocking(move || pinned::end_with_agent(&looked_into, &context));
        match look.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(off) if off.is_empty() => format!("stopping; the interfaces stay guarded {how}"),
            Ok(off) => format!(
                "stopping; the guard goes off {}, because its pin in {} is gone; all else stays guarded {how}",
                off.join(", "),
                dir.display()
            ),
            Err(error) => {
                format!("stopping; whether the interfaces stay guarded cannot be told ({}: {error})", dir.display())
            }
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.service.stopping();
        let _ = self.stop.send(true);
        self.decisions.await.context("the decision loop failed")?;
        // It may be waiting for a file server, and the API for it.
        if let Ok(ended) = timeout(GRACE, self.follower).await {
            ended.context("what follows the interfaces failed")?;
        } else {
            warn!("what follows the interfaces did not end in time, and is left behind");
        }
        if let Ok(ended) = timeout(GRACE, self.server).await {
            ended.context("the control API failed")??;
        } else {
            warn!("the control API did not end in time, and is left behind");
        }
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

/// What is guarded, in one line.
fn guarding(context: &Context) -> String {
    let interfaces: Vec<String> = context
        .plan
        .interfaces
        .iter()
        .zip(&context.modes)
        .map(|(interface, mode)| match mode {
            AttachMode::Detached => format!("{} (not yet)", interface.name),
            mode => format!("{} ({})", interface.name, mode.word()),
        })
        .collect();
    let mode = if context.config.mode == Mode::Enforce { "enforce" } else { "monitor" };
    let which = if interfaces.is_empty() { "nothing yet".to_owned() } else { interfaces.join(", ") };
    format!("guarding {which} in {mode} mode")
}
