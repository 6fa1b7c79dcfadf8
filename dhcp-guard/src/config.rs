//! The configuration: defaults, the TOML file, and what both must satisfy.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::Mode;

/// Everything that can be configured. Every key has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Interfaces to guard, by name.
    pub interfaces: Vec<String>,
    /// What happens to packets over a limit.
    pub mode: Mode,
    /// The class of a port that nothing else assigns one to.
    pub default_class: String,
    /// Path of the control API's Unix socket.
    pub socket: PathBuf,
    /// CSV file that gives ports and MACs the name of a machine.
    pub inventory: Option<PathBuf>,
    /// Limits that do not depend on the class.
    pub limits: Limits,
    /// Port classes by name. Those of the file are added to the built-in ones, or replace them.
    #[serde(rename = "class")]
    pub classes: BTreeMap<String, Class>,
    /// Ports other than each interface's untagged one, or with a class of their own.
    #[serde(rename = "port")]
    pub ports: Vec<Port>,
    /// Clients known from the start.
    #[serde(rename = "known_client")]
    pub known_clients: Vec<KnownClient>,
    /// When someone is an offender.
    pub detection: Detection,
    /// Sizes of the kernel's tables.
    pub capacity: Capacity,
}

/// Limits that do not depend on the class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Packets a second that one client may send; 1 to 1,000,000.
    pub client_rate_pps: u32,
    /// And in one burst; 1 to 1,000,000.
    pub client_burst: u32,
    /// What strangers together may take of their port's limit; 1 to 100.
    pub strangers_share_percent: u32,
    /// New MACs a second, on one port, that get an entry even though their packet is dropped, so that it is counted for
    /// its MAC; 1 to 100,000.
    pub new_clients_per_s: u32,
}

/// A port class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// DHCP packets a second that the port may send; 1 to 1,000,000.
    pub rate_pps: u32,
    /// And in one burst; 1 to 1,000,000.
    pub burst: u32,
    /// DHCP servers, relays, uplinks towards them: only the port's own limit applies.
    #[serde(default)]
    pub trusted: bool,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Interface name.
    pub interface: String,
    /// VLAN ids, outer first, at most two; empty: untagged, and every VLAN without a port of its own.
    #[serde(default)]
    pub vlans: Vec<u16>,
    /// Class; the default class if missing.
    pub class: Option<String>,
    /// Mode; the agent's if missing.
    pub mode: Option<Mode>,
}

/// A client that is known from the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownClient {
    /// Interface name.
    pub interface: String,
    /// VLAN ids, outer first.
    #[serde(default)]
    pub vlans: Vec<u16>,
    /// Source MAC.
    pub mac: String,
}

/// When someone is an offender.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detection {
    /// Windows of one second running, each with packets over the limit; 1 to 3,600.
    pub offender_windows: u32,
    /// Seconds without excess after which an offender has recovered; 1 to 86,400.
    pub recover_after_s: u32,
    /// Seconds for which a recovered offender is still listed; 0 to 604,800.
    pub remember_s: u32,
}

/// Sizes of the kernel's tables; they are allocated at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// Ports; 1 to 4,096.
    pub ports: u32,
    /// Known clients; 1 to 1,000,000.
    pub known_clients: u32,
    /// Strangers; 1,024 to 1,000,000.
    pub strangers: u32,
}
