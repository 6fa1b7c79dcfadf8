//! What the agent answers and the CLI shows: the JSON of the control API and of every `--json`.
//!
//! Names are stable. Integers are in base units that the name states (`rate_pps`, `uptime_s`); times are RFC 3339 in
//! UTC; MAC addresses are lower-case and colon-separated.

mod checkup;
mod sanction;
pub mod values;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use checkup::*;
pub use sanction::*;

/// What happens to a packet over a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is dropped.
    #[default]
    Enforce,
    /// It passes, and is counted as "would drop".
    Monitor,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachMode {
    /// In the driver, before the kernel allocates anything for the frame.
    Native,
    /// XDP in the network stack: works on every interface, and costs several times as much.
    Generic,
    /// TCX, where the network stack begins: costs as much, and sees VLAN tags that the card has taken off.
    Tcx,
    /// A filter of tc, at the same place: as TCX, but anybody who may can delete it.
    Clsact,
    /// Not at all: somebody took it off.
    Detached,
}

impl AttachMode {
    /// As it is shown.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Detached => "detached",
        }
    }
}

/// `GET /v1/status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// An agent runs. Otherwise this is read from the maps that one has left: `pid` is 0, and `started` is when one last ran.
    #[serde(default)]
    pub agent_running: bool,
    /// Process id of the agent.
    pub pid: u32,
    /// When the maps were read.
    pub as_of: Timestamp,
    /// When the agent started.
    pub started: Timestamp,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Seconds since there was an agent: 0 while one runs; none: there never was one that got as far as to guard.
    #[serde(default)]
    pub last_agent_s: Option<u64>,
    /// The mode of the whole agent.
    pub mode: Mode,
    /// The configuration file in force; none: defaults.
    pub config: Option<String>,
    /// Guarded interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Clients and ports that are offenders now.
    pub offenders: u64,
    /// All automatic quarantine is on hold.
    pub hold: bool,
    /// Clients and ports in quarantine.
    pub quarantined: u64,
    /// What the data plane could not do since it was loaded.
    pub troubles: Troubles,
    /// Whatever makes the guard blind or weak, one sentence each.
    pub warnings: Vec<String>,
}

/// One guarded interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name of the interface.
    pub name: String,
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// Native, generic or TCX.
    pub mode: AttachMode,
    /// Frames the program saw: `non_dhcp_packets + dhcp_packets`.
    pub packets: u64,
    /// Frames that were not DHCP; they passed.
    pub non_dhcp_packets: u64,
    /// DHCP packets, the sum of `reasons`.
    pub dhcp_packets: u64,
    /// DHCP packets dropped.
    pub dropped: u64,
    /// DHCP packets that were over a limit and passed in `monitor` mode.
    pub would_drop: u64,
    /// DHCP packets a second over the last window.
    pub rate_pps: u64,
    /// Drops (and would-be drops) a second over the last window.
    pub drop_rate_pps: u64,
    /// DHCP packets by verdict reason; all reasons, in their order.
    pub reasons: std::collections::BTreeMap<String, u64>,
    /// DHCP packets by message type; all types.
    pub message_types: std::collections::BTreeMap<String, u64>,
    /// What was noted besides: `relayed`, `chaddr_mismatch`, `unknown_vlan` (DHCP packets, in none, one or several of
    /// them) and `isolated_frame` (frames that are no DHCP).
    pub notes: std::collections::BTreeMap<String, u64>,
}

/// What the data plane could not do, summed over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Troubles {
    /// Events not sent because a CPU's budget was spent.
    pub events_suppressed: u64,
    /// Events lost because the ring buffer was full.
    pub events_lost: u64,
    /// Events while no agent was there to hear of them.
    pub events_unheard: u64,
    /// New clients the table had no room for.
    pub insert_failed: u64,
    /// Packets counted for their port, but not for their MAC.
    pub untracked_packets: u64,
    /// Packets that lost a limiter to other CPUs and were treated as over the limit.
    pub lost_races: u64,
}

/// Client or port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A source MAC on a port.
    Client,
    /// A port as a whole.
    Port,
}

/// Where a client or port stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Within its limits.
    Normal,
    /// Over its limit, not yet long enough to be reported.
    OverLimit,
    /// Over its limit in enough windows running, and since then not quiet for long.
    Offender,
    /// An offender for so long that somebody should look, though never fast enough for quarantine.
    Candidate,
    /// Would be in quarantine, and is not, because a cap, the hold or systemic trouble says so. It is policed all the same.
    HeldBack,
    /// In quarantine.
    Quarantined,
    /// Was in quarantine. The next one lasts longer.
    Probation,
    /// Was an offender and has been quiet since; shown for a while so that "who was it?" has an answer.
    Recovered,
}

/// `GET /v1/offenders`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offenders {
    /// When the maps were read.
    pub as_of: Timestamp,
    /// Present offenders first, then recovered ones; each group by packets over the limit.
    pub offenders: Vec<Offender>,
}

/// A client or port that is, or lately was, over its limit for long enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offender {
    /// Client or port.
    pub kind: Kind,
    /// Source MAC, see [`ClientReport::mac`]; none for a port.
    pub mac: Option<String>,
    /// See [`ClientReport::relay`].
    pub relay: Option<String>,
    /// See [`ClientReport::peer`].
    pub peer: Option<String>,
    /// Interface name.
    pub interface: String,
    /// Port name: the interface, then each VLAN id after a dot (`eth0`, `eth0.100`, `eth0.100.20`).
    pub port: String,
    /// VLAN ids, outer first.
    pub vlans: Vec<u16>,
    /// DHCP packets to servers since the agent knows it.
    pub packets: u64,
    /// Of these, dropped.
    pub dropped: u64,
    /// Of these, over a limit and passed in `monitor` mode.
    pub would_drop: u64,
    /// Packets a second over the last window.
    pub rate_pps: u64,
    /// Packets a second it may send; a client: of DHCPv4.
    pub limit_pps: u64,
    /// A client: packets a second of DHCPv6 it may send; none for a port.
    pub limit_v6_pps: Option<u64>,
    /// First packet.
    pub first_seen: Timestamp,
    /// Latest packet.
    pub last_seen: Timestamp,
    /// When it became an offender.
    pub offender_since: Timestamp,
    /// `offender` or `recovered`, or `candidate`, `held_back`, `quarantined` or `probation` where that says more.
    pub state: State,
    /// The limit it was over: `client_limit`, `stranger_share`, `discover_share` or `port_limit`.
    pub reason: String,
    /// From the inventory; none: not in it.
    pub server_id: Option<String>,
    /// From the inventory.
    pub server_name: Option<String>,
    /// From the inventory: whose machine it is.
    pub owner: Option<String>,
    /// From the inventory: the switch that this port or client is plugged into.
    pub switch: Option<String>,
    /// From the inventory: and the port there.
    pub switch_port: Option<String>,
    /// From the inventory.
    pub zone: Option<String>,
}

/// `GET /v1/ports`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// When the maps were read.
    pub as_of: Timestamp,
    /// Ports over their limit first.
    pub ports: Vec<PortReport>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// Port name, see [`Offender::port`].
    pub port: String,
    /// Interface name.
    pub interface: String,
    /// VLAN ids, outer first.
    pub vlans: Vec<u16>,
    /// Class (`vm`, `metal`, `strict`, `trusted` or one of your own).
    pub class: String,
    /// The class is exempt from client limits.
    pub trusted: bool,
    /// The whole port is on the allowlist: everything passes.
    pub allowed: bool,
    /// Enforce or monitor.
    pub mode: Mode,
    /// Where it stands.
    pub state: State,
    /// DHCP packets.
    pub packets: u64,
    /// Dropped.
    pub dropped: u64,
    /// Over a limit, passed in `monitor` mode.
    pub would_drop: u64,
    /// DHCP packets a second over the last window.
    pub rate_pps: u64,
    /// Drops (and would-be drops) a second over the last window.
    pub drop_rate_pps: u64,
    /// Packets a second the port may send.
    pub limit_pps: u64,
    /// And in one burst.
    pub limit_burst: u64,
    /// Clients with an entry.
    pub clients: u64,
    /// Strangers that sent something in the last window (a second), estimated: some 5 % off up to 1,500, 10 % up to 3,000.
    /// None: so many that it cannot be told, at least some 5,000; or, without an agent, that nobody counts them.
    pub distinct_macs: Option<u64>,
    /// Server messages from this port, which is not trusted; dropped or not.
    pub rogue_server_packets: u64,
    /// From the inventory.
    pub server_id: Option<String>,
    /// From the inventory: the switch that this port or client is plugged into.
    pub switch: Option<String>,
    /// From the inventory: and the port there.
    pub switch_port: Option<String>,
    /// From the inventory.
    pub zone: Option<String>,
    /// DHCP packets by verdict reason; all reasons.
    pub reasons: std::collections::BTreeMap<String, u64>,
    /// DHCP packets by message type; all types.
    pub message_types: std::collections::BTreeMap<String, u64>,
    /// What was noted besides: `relayed`, `chaddr_mismatch`, `unknown_vlan` (DHCP packets, in none, one or several of
    /// them) and `isolated_frame` (frames that are no DHCP).
    pub notes: std::collections::BTreeMap<String, u64>,
}

/// `GET /v1/clients`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Clients {
    /// When the maps were read.
    pub as_of: Timestamp,
    /// Clients over their limit first, then by rate.
    pub clients: Vec<ClientReport>,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// Source MAC; of a client behind a DHCPv4 relay, its hardware address in the message (chaddr); behind a DHCPv6 relay, the
    /// MAC that its address was made of, if it was. None: not known.
    pub mac: Option<String>,
    /// The relay it is behind: a DHCPv4 relay's gateway address (giaddr) as `10.0.0.1`, or `dhcpv6`. None: it sends for
    /// itself.
    pub relay: Option<String>,
    /// Of a client behind a DHCPv6 relay, the lower half of its address there, as `::213:57ff:fe9b:dffe`.
    pub peer: Option<String>,
    /// Interface name.
    pub interface: String,
    /// Port name, see [`Offender::port`].
    pub port: String,
    /// VLAN ids, outer first.
    pub vlans: Vec<u16>,
    /// In the known table; otherwise a stranger.
    pub known: bool,
    /// What made it known; none: it is a stranger.
    pub known_by: Option<KnownBy>,
    /// Where it stands.
    pub state: State,
    /// DHCP packets to servers.
    pub packets: u64,
    /// Dropped.
    pub dropped: u64,
    /// Over a limit, passed in `monitor` mode.
    pub would_drop: u64,
    /// Packets a second over the last window.
    pub rate_pps: u64,
    /// First packet; none: not seen yet.
    pub first_seen: Option<Timestamp>,
    /// Latest packet; none: not seen yet.
    pub last_seen: Option<Timestamp>,
    /// From the inventory.
    pub server_id: Option<String>,
}

/// What made a client known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// The configuration names it.
    Configuration,
    /// It was a stranger that behaved for long enough.
    Learned,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The agent began to guard.
    AgentStarted,
    /// A client went over its limit: its first drop.
    ClientOverLimit,
    /// A port went over its limit, or strangers over their share of it.
    PortOverLimit,
    /// A client or port became an offender.
    OffenderFound,
    /// An offender has been quiet for long enough.
    OffenderRecovered,
    /// A server's message came from a port that is not trusted.
    RogueServer,
    /// Frames arrive with VLANs that no port is configured for.
    UnknownVlan,
    /// The host's untrusted ports are over what they may send together.
    HostOverLimit,
    /// An interface is not guarded any more: it was deleted, or is not meant by the configuration.
    InterfaceGone,
    /// An interface has appeared, or is meant by the configuration from now on, and is guarded.
    InterfaceGuarded,
    /// A guarded interface is called otherwise.
    InterfaceRenamed,
    /// An interface should be guarded, and cannot be.
    CannotGuard,
    /// Somebody took the guard off an interface.
    Detached,
    /// It is there again.
    Reattached,
    /// Somebody took the program off an interface that counts servers' replies; the guard is there.
    RepliesDetached,
    /// Somebody removed what the guard outlives its agent by.
    PinsRemoved,
    /// Another configuration is in force.
    Reloaded,
    /// Somebody was put into quarantine.
    QuarantineBegan,
    /// A quarantine ended.
    QuarantineEnded,
    /// Somebody would be in quarantine, and is not: a cap, the hold, or systemic trouble.
    QuarantineHeldBack,
    /// Over its limit for minutes, but too slowly for quarantine.
    CandidateFound,
    /// So many are in trouble at once that none of them is to blame: no automatic quarantine begins.
    Systemic,
    /// That is over.
    SystemicOver,
    /// Automatic quarantine was put on hold, or is not any more; somebody was allowed, or is not any more.
    OperatorChange,
    /// An actuator could not do what it was told.
    ActuatorFailed,
    /// The state or the audit log cannot be written.
    CannotSave,
}

/// One event. `GET /v1/events` answers the latest ones, oldest first; `GET /v1/events/follow` streams new ones, one JSON
/// document a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event of this agent; a gap means that a follower was too slow.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// Interface name.
    pub interface: Option<String>,
    /// Port name.
    pub port: Option<String>,
    /// VLAN ids, outer first.
    pub vlans: Vec<u16>,
    /// Source MAC.
    pub mac: Option<String>,
    /// From the inventory.
    pub server_id: Option<String>,
    /// One sentence for people.
    pub message: String,
}

/// `GET /v1/events`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Event>,
}

/// What the API answers with a status other than 200.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApiError {
    /// One sentence: what was attempted, on what, what to do.
    pub error: String,
}
