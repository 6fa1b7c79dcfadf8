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
pub mod reader;
pub mod report;
pub mod requests;
pub mod sanctions;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use log::{info, warn};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    actuators::{self, Dispatcher, LinkDown},
    config::Config,
    dataplane::{self, DataPlane, attach::Attachment, interface},
    governor::Governor,
    inventory::{
        Inventory,
        watch::{Known, Watcher},
    },
    model::{AttachMode, EventKind, Mode},
};

use self::{
    decide::{Decider, Inputs, Picture},
    journal::{Draft, Journal},
    kept::Kept,
    orders::Clock,
    peers::Rights,
    plan::Plan,
    reader::Reader,
    sanctions::{Hands, Sanctioner},
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
    let mut signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let mut warnings = config.warnings();
    let watcher = config.inventory.as_deref().map(Watcher::new);
    let known = watcher.as_ref().map(Watcher::known).unwrap_or_default();
    let listener = api::bind(&config.socket, &config.access).await?;
    let (rights, without_group) = Rights::new(&config.access);
    warnings.extend(without_group);
    let clock = Clock::start();
    let actuators = actuators::configured(&config.actuators)?;
    let facts = host_facts::watch().await;
    let mut plan = find_interfaces(&config, options.debug_kernel).await?;
    warnings.extend(plan.spare_hidden_servers(interface::strips_vlan_tags));
    let mut kept = kept::load(&config, &clock);
    let (mut plane, attachments) = start_data_plane(&plan, &mut kept, &clock)?;
    warnings.append(&mut kept.warnings);
    warnings.extend(attachments.iter().filter_map(generic_warning));
    warnings.extend(attachments.iter().filter_map(vlan_warning));
    warnings.iter().chain(&known.warnings).for_each(|warning| warn!("{warning}"));
    release_forgotten(&config, &kept.governor).await;
    let kernel_log = options.debug_kernel.then(|| kernel_events::Log::open(plane.ebpf())).transpose()?;
    let kernel_events = kernel_events::open(&mut plane)?;
    let context = Arc::new(Context {
        modes: attachments.iter().map(|a| a.mode).collect(),
        config,
        config_path: options.config_path,
        plan,
        known: RwLock::new(known),
        started: Timestamp::now(),
        warnings,
    });
    let journal = Arc::new(Journal::default());
    journal.add(started(&context));
    watcher.map_or(Ok(()), |watcher| inventory::keep_fresh(&context, watcher))?;
    let (governor, audit) = kept.keep(&context.config, &journal).context("no thread for the audit log")?;

    let first = reader::read(&mut plane, clock.epoch()).context("cannot read the counters")?;
    let (learner, learned) = learn::channel(&context.config, &context.plan);
    let (executor, orders_done) = orders::executor(&context.plan);
    let (mut reader, snapshots) = Reader::start(plane, attachments, learned, executor, clock.epoch())?;
    let (actuators, actuators_done, dispatcher) = Dispatcher::start(actuators);
    let hands = Hands {
        orders: orders::Sender::new(reader.messages()),
        journal: Arc::clone(&journal),
        audit: audit.clone(),
        actuators,
    };
    let (requests, asked) = requests::channel();
    let sanctioner = Sanctioner::new(Arc::clone(&context), hands, clock, facts, governor, &Picture::before(&first));
    let (decider, pictures) = Decider::new(Arc::clone(&context), Arc::clone(&journal), learner, sanctioner, &first);
    let (stop, stopped) = watch::channel(false);
    let inputs =
        Inputs { snapshots, events: kernel_events, requests: asked, orders: orders_done, actuators: actuators_done };
    let mut decisions = tokio::spawn(decider.run(inputs, stopped.clone()));
    let kernel_log = kernel_log.map(|log| tokio::spawn(log.run()));
    let shared =
        api::Shared { context, journal, pictures, requests, audit: audit.clone(), rights: Arc::new(rights) };
    let mut server = tokio::spawn(api::serve(listener, shared, stopped));

    // There is nothing to reload yet. Without this, the end of a terminal, or the habit of sending HUP, would end the guard.
    let ignore_hangups = async {
        while hangup.recv().await.is_some() {
            warn!("SIGHUP: this version cannot reload its configuration; the guard goes on with the one it has");
        }
        std::future::pending::<()>().await;
    };
    let signal = tokio::select! {
        () = ignore_hangups => unreachable!("waits for ever"),
        _ = signals.0.recv() => "SIGINT",
        _ = signals.1.recv() => "SIGTERM",
        error = reader.failed() => return Err(error),
        ended = &mut decisions => return Err(anyhow!("the decision loop ended by itself ({ended:?}): please report it")),
        ended = &mut server => return Err(anyhow!("the control API ended by itself ({ended:?}): please report it")),
    };
    info!("{signal}: taking the guard off and stopping");
    let _ = stop.send(true);
    decisions.await.context("the decision loop failed")?;
    server.await.context("the control API failed")??;
    dispatcher.finish(GRACE).await;
    let written = tokio::task::spawn_blocking(move || audit.flush(GRACE)).await.unwrap_or(false);
    if !written {
        warn!("not all of the audit log and the state could be written");
    }
    if let Some(log) = kernel_log {
        log.abort();
    }
    reader.stop()
}

async fn find_interfaces(config: &Config, debug_kernel: bool) -> anyhow::Result<Plan> {
    let mut interfaces = Vec::new();
    for name in &config.interfaces {
        interfaces.push(interface::find(name).await?);
    }
    Ok(Plan::new(config, interfaces, debug_kernel))
}

/// Loads the program, puts what was kept into it, and attaches it to all interfaces, or to none.
fn start_data_plane(plan: &Plan, kept: &mut Kept, clock: &Clock) -> anyhow::Result<(DataPlane, Vec<Attachment>)> {
    let mut plane = DataPlane::load(&plan.spec)?;
    kept.put_into(&mut plane, plan, clock)?;
    let attachments = plan.interfaces.iter().map(|i| plane.attach(i.clone())).collect::<Result<Vec<_>, _>>()?;
    Ok((plane, attachments))
}

/// Sets up the interfaces that an agent before this one had set down for quarantines that have ended since.
async fn release_forgotten(config: &Config, governor: &Governor) {
    let in_force: Vec<u64> = governor.state().quarantines.values().map(|quarantine| quarantine.id).collect();
    match LinkDown.release_forgotten(&config.interfaces, &in_force).await {
        Ok(released) => {
            released.iter().for_each(|name| info!("interface {name} is set up again: its quarantine has ended"));
        }
        Err(error) => warn!("cannot look for interfaces that were set down for quarantines: {error}"),
    }
}

fn generic_warning(attachment: &Attachment) -> Option<String> {
    let reason = attachment.native_refused.as_ref()?;
    Some(format!(
        "interface {} is guarded in generic mode only, its driver refused the native one ({reason}): a flood costs \
         several times as much CPU there",
        attachment.interface.name
    ))
}

fn vlan_warning(attachment: &Attachment) -> Option<String> {
    let name = &attachment.interface.name;
    interface::strips_vlan_tags(name).then(|| {
        format!(
            "interface {name} takes VLAN tags off before the guard sees them (rx-vlan-offload): all its VLANs count as \
             its untagged port; switch that off with `ethtool -K {name} rxvlan off`"
        )
    })
}

fn started(context: &Context) -> Draft<'_> {
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
    Draft {
        kind: EventKind::AgentStarted,
        at: context.started,
        port: None,
        mac: None,
        source: None,
        vlans: None,
        message,
    }
}
