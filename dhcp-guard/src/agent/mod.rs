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
//! * [`journal`]: the latest events, for `events` and its followers.
//! * [`inventory`]: reads the inventory again when its file changes.
//! * [`requests`]: what people ask of the decision loop; [`names`]: slots and names.
//! * [`sanctions`]: who is put into quarantine, and who is not.
//! * [`report`]: from the decision loop's picture to the API's documents.
//! * [`api`]: HTTP on the Unix socket. [`peers`]: who is at its other end.

pub mod api;
pub mod decide;
pub mod describe;
pub mod inventory;
pub mod journal;
pub mod kernel_events;
pub mod learn;
pub mod names;
pub mod peers;
pub mod plan;
pub mod reader;
pub mod report;
pub mod requests;
pub mod sanctions;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use log::{info, warn};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    audit,
    config::Config,
    dataplane::{self, DataPlane, attach::Attachment, interface},
    inventory::{
        Inventory,
        watch::{Known, Watcher},
    },
    model::{AttachMode, EventKind, Mode},
};

use self::{
    decide::Decider,
    journal::{Draft, Journal},
    peers::Rights,
    plan::Plan,
    reader::Reader,
};

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
    let epoch = Instant::now();
    let mut plan = find_interfaces(&config, options.debug_kernel).await?;
    warnings.extend(plan.spare_hidden_servers(interface::strips_vlan_tags));
    let (mut plane, attachments) = start_data_plane(&plan)?;
    warnings.extend(attachments.iter().filter_map(generic_warning));
    warnings.extend(attachments.iter().filter_map(vlan_warning));
    warnings.iter().chain(&known.warnings).for_each(|warning| warn!("{warning}"));
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

    let first = reader::read(&mut plane, epoch).context("cannot read the counters")?;
    let (learner, learned) = learn::channel(&context.config, &context.plan);
    let (mut reader, snapshots) = Reader::start(plane, attachments, learned, epoch)?;
    let (decider, pictures) = Decider::new(Arc::clone(&context), Arc::clone(&journal), learner, &first);
    let (stop, stopped) = watch::channel(false);
    let mut decisions = tokio::spawn(decider.run(snapshots, kernel_events, stopped.clone()));
    let kernel_log = kernel_log.map(|log| tokio::spawn(log.run()));
    // Nobody decides about requests yet: each is answered at once that it was not looked at.
    let (requests, _) = requests::channel();
    let (audit, rights) = (audit::Handle::nowhere(), Arc::new(rights));
    let shared = api::Shared { context, journal, pictures, requests, audit, rights };
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

/// Loads the program and attaches it to all interfaces, or to none.
fn start_data_plane(plan: &Plan) -> anyhow::Result<(DataPlane, Vec<Attachment>)> {
    let mut plane = DataPlane::load(&plan.spec)?;
    let attachments = plan.interfaces.iter().map(|i| plane.attach(i.clone())).collect::<Result<Vec<_>, _>>()?;
    Ok((plane, attachments))
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
