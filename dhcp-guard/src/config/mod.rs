//! The configuration: defaults, the TOML file, and what both must satisfy.
//!
//! - here: the types and their defaults; `class`: port classes; `quarantine`: when it comes, and what stops it;
//!   `actuator`: what it sets in motion; `access`: who may use the control API
//! - `rules`: what follows from them for a port ([`Config::rules_of`])
//! - `read`: from the text of a file to the types, with the line of each problem
//! - `keys`: which keys exist, from the types themselves
//! - `check`: what the values must satisfy; `warn`: what they should
//! - `problem`: the sentences
//! - `pattern`: interfaces by pattern
//! - `overrides`: what the command line says over the file; `diff`: what is different from another configuration

mod access;
mod actuator;
mod check;
mod class;
mod diff;
mod keys;
mod overrides;
mod path;
mod pattern;
mod problem;
mod quarantine;
mod read;
#[cfg(test)]
mod reference;
mod rules;
mod warn;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    access::Access,
    actuator::{ActuatorName, Actuators, AutoQuarantine, Command, Webhook},
    check::{MAX_KEPT_FILES, port_name},
    class::Class,
    diff::Diff,
    overrides::Overrides,
    path::{KeyPath, Segment},
    pattern::{is_pattern, names},
    problem::{ConfigError, Problem, ProblemKind},
    quarantine::Quarantine,
    rules::{Rules, share},
};
use crate::{dataplane::hook::Hook, mac::Mac, model::Mode};

/// The configuration file that is used if it exists and no other is named.
pub const DEFAULT_FILE: &str = "/etc/dhcp-guard/dhcp-guard.toml";
/// The control API's socket, unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/dhcp-guard/agent.sock";
/// The folder for what survives a restart, unless configured otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/dhcp-guard";
/// The folder for pinned links and maps, unless configured otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/dhcp-guard";

/// Everything that can be configured. Every key has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Interfaces to guard, by name or by pattern (`tap*`): then those that match, whenever they come and go.
    pub interfaces: Vec<String>,
    /// Where frames are judged.
    pub hook: Hook,
    /// Whether the guard goes back to an interface that somebody took it off.
    pub reattach: bool,
    /// What happens to packets over a limit.
    pub mode: Mode,
    /// The class of a port that nothing else assigns one to.
    pub default_class: String,
    /// Path of the control API's Unix socket.
    pub socket: PathBuf,
    /// Folder for what survives a restart, and for the audit log.
    pub state_dir: PathBuf,
    /// Folder on a BPF file system for the programs' links and maps, by which they outlive the agent.
    pub pin_dir: PathBuf,
    /// CSV file that gives ports and MACs the name of a machine.
    pub inventory: Option<PathBuf>,
    /// What happens to servers' messages from ports that are not trusted.
    pub rogue_servers: RogueServers,
    /// Guard although some packets would not be judged as this configuration says.
    pub even_if_blind: bool,
    /// Limits of every class that has none of its own.
    pub limits: Limits,
    /// What all untrusted ports together may send.
    pub host: Host,
    /// Port classes by name. Those of the file are added to the built-in ones, or replace them.
    #[serde(rename = "class", deserialize_with = "class::over_built_in")]
    pub classes: BTreeMap<String, Class>,
    /// Ports other than each interface's untagged one, or with a class of their own.
    #[serde(rename = "port", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Clients known from the start.
    #[serde(rename = "known_client", skip_serializing_if = "Vec::is_empty")]
    pub known_clients: Vec<KnownClient>,
    /// Clients and ports whose packets always pass.
    #[serde(rename = "allow", skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Allow>,
    /// How strangers become known.
    pub learning: Learning,
    /// When someone is an offender.
    pub detection: Detection,
    /// When automatic quarantine comes, and what stops it.
    pub quarantine: Quarantine,
    /// Who may use the control API.
    #[serde(rename = "api")]
    pub access: Access,
    /// How long the audit log is.
    pub audit: Audit,
    /// What the actuators need to know.
    #[serde(rename = "actuator")]
    pub actuators: Actuators,
    /// Sizes of the kernel's tables.
    pub capacity: Capacity,
}

/// What happens to servers' messages (to port 68 or 546) from ports that are not trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RogueServers {
    /// They are dropped, provided that a guarded port is trusted. While none is, nobody has said where the servers are, and
    /// the replies that everybody lives on may well come this way: then they are reported.
    #[default]
    Drop,
    /// They pass, and are reported.
    Report,
}

/// Limits of every class that has none of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// DHCPv4 packets a second that one client may send; 1 to 1,000,000.
    pub client_rate_pps: u32,
    /// And in one burst; 1 to 1,000,000.
    pub client_burst: u32,
    /// DHCPv6 packets a second that one client may send; 1 to 1,000,000.
    pub client_v6_rate_pps: u32,
    /// And in one burst; 1 to 1,000,000.
    pub client_v6_burst: u32,
    /// What strangers together may take of their port's limit; 1 to 100.
    pub strangers_share_percent: u32,
    /// What DISCOVERs and Solicits together may take of their port's limit; 1 to 100, 100: all of it.
    pub discover_share_percent: u32,
    /// New MACs a second, on one port, that get an entry even though their packet is dropped, so that it is counted for
    /// its MAC; 1 to 100,000.
    pub new_clients_per_s: u32,
}

/// What all untrusted ports together may send. It is not the sum of their limits: that all of them are busy at once is
/// rather an incident than a day's work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// DHCP packets a second; 1 to 1,000,000.
    pub rate_pps: u32,
    /// And in one burst; 1 to 1,000,000.
    pub burst: u32,
    /// What strangers, on all these ports together, may take of it; 1 to 100.
    pub strangers_share_percent: u32,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Interface name, or a pattern for several.
    pub interface: String,
    /// VLAN ids, outer first, at most two; empty: untagged, and every VLAN without a port of its own.
    #[serde(default)]
    pub vlans: Vec<u16>,
    /// Class; the default class if missing.
    pub class: Option<String>,
    /// Mode; that of the class, or else the agent's, if missing.
    pub mode: Option<Mode>,
}

/// A client that is known from the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownClient {
    /// Interface name, or a pattern for several.
    pub interface: String,
    /// VLAN ids, outer first.
    #[serde(default)]
    pub vlans: Vec<u16>,
    /// Source MAC.
    pub mac: Mac,
}

/// A client, or a whole port, whose packets always pass: no limit, no quarantine and no other rule stops them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// Interface name, or a pattern for several.
    pub interface: String,
    /// VLAN ids, outer first.
    #[serde(default)]
    pub vlans: Vec<u16>,
    /// Source MAC; missing: everybody on the port.
    pub mac: Option<Mac>,
}

impl Allow {
    /// Whether the port with these VLANs, or a client on it, is meant.
    #[must_use]
    pub fn is_on(&self, interface: &str, vlans: &[u16]) -> bool {
        self.vlans == vlans && names(&self.interface, interface)
    }
}

/// How strangers that behave become known clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learning {
    /// Whether they do.
    pub enabled: bool,
    /// Seconds between a stranger's first and latest packet from which on it may become known; 1 to 86,400.
    pub after_s: u32,
    /// Strangers of one port that become known in one minute at most; 1 to 1,000.
    pub per_port_per_minute: u32,
    /// Clients of one port that are known by learning, at most; 1 to 100,000.
    pub per_port_max: u32,
    /// Seconds of silence after which a learned client is a stranger again; 60 to 31,536,000 (a year).
    pub forget_after_s: u32,
}

/// When someone is an offender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detection {
    /// Windows of one second running, each with packets over the limit; 1 to 3,600.
    pub offender_windows: u32,
    /// Seconds without excess after which an offender has recovered; 1 to 86,400.
    pub recover_after_s: u32,
    /// Seconds for which a recovered offender is still listed; 0 to 604,800.
    pub remember_s: u32,
}

/// How long the audit log is: `max_bytes` in each of `keep + 1` files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Audit {
    /// Bytes in one file; 10,000 to 1,000,000,000.
    pub max_bytes: u32,
    /// Older files that are kept beside the present one; 1 to 100.
    pub keep: u32,
}

/// Sizes of the kernel's tables; they are allocated at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// Ports; 1 to 4,096.
    pub ports: u32,
    /// Known clients; 1 to 1,000,000.
    pub known_clients: u32,
    /// Strangers; 1,024 to 1,000,000.
    pub strangers: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            hook: Hook::default(),
            reattach: true,
            mode: Mode::default(),
            default_class: "metal".to_owned(),
            socket: PathBuf::from(DEFAULT_SOCKET),
            state_dir: PathBuf::from(DEFAULT_STATE_DIR),
            pin_dir: PathBuf::from(DEFAULT_PIN_DIR),
            inventory: None,
            rogue_servers: RogueServers::default(),
            even_if_blind: false,
            limits: Limits::default(),
            host: Host::default(),
            classes: class::built_in(),
            ports: Vec::new(),
            known_clients: Vec::new(),
            allowed: Vec::new(),
            learning: Learning::default(),
            detection: Detection::default(),
            quarantine: Quarantine::default(),
            access: Access::default(),
            audit: Audit::default(),
            actuators: Actuators::default(),
            capacity: Capacity::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The worst legitimate client measured sends 4 packets in one second and 11 in ten.
            client_rate_pps: 2,
            client_burst: 20,
            // RFC 8415 section 14.1 suggests 20 packets in 20 seconds.
            client_v6_rate_pps: 1,
            client_v6_burst: 20,
            strangers_share_percent: 50,
            discover_share_percent: 100,
            new_clients_per_s: 128,
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        // Switches protect their own processor with 100 to 300 packets a second.
        Self { rate_pps: 200, burst: 1000, strangers_share_percent: 50 }
    }
}

impl Default for Learning {
    fn default() -> Self {
        Self { enabled: true, after_s: 300, per_port_per_minute: 10, per_port_max: 256, forget_after_s: 86_400 }
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self { offender_windows: 3, recover_after_s: 60, remember_s: 600 }
    }
}

impl Default for Audit {
    fn default() -> Self {
        // A record has some 500 bytes: 20,000 records in a file, and never more than 100 MB on the disk.
        Self { max_bytes: 10_000_000, keep: 9 }
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self { ports: 1024, known_clients: 16_384, strangers: 65_536 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_toml(text).unwrap()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let defaults = Config::default();
        assert_eq!(config(""), defaults);
        assert_eq!(defaults.validate(), []);
        let limits = &defaults.limits;
        assert_eq!((limits.client_rate_pps, limits.client_burst), (2, 20));
        assert_eq!((limits.client_v6_rate_pps, limits.client_v6_burst), (1, 20));
        assert_eq!((limits.strangers_share_percent, limits.discover_share_percent), (50, 100));
        assert_eq!(limits.new_clients_per_s, 128);
        assert_eq!(defaults.host, Host { rate_pps: 200, burst: 1000, strangers_share_percent: 50 });
        assert_eq!(defaults.rogue_servers, RogueServers::Drop);
        let learning = &defaults.learning;
        assert!(learning.enabled);
        assert_eq!((learning.after_s, learning.forget_after_s), (300, 86_400));
        assert_eq!((learning.per_port_per_minute, learning.per_port_max), (10, 256));
        let detection = &defaults.detection;
        assert_eq!((detection.offender_windows, detection.recover_after_s, detection.remember_s), (3, 60, 600));
        assert_eq!(defaults.audit, Audit { max_bytes: 10_000_000, keep: 9 });
        assert_eq!(defaults.state_dir, PathBuf::from("/var/lib/dhcp-guard"));
        let capacity = &defaults.capacity;
        assert_eq!((capacity.ports, capacity.known_clients, capacity.strangers), (1024, 16_384, 65_536));
        assert_eq!((defaults.hook, defaults.mode), (Hook::Auto, Mode::Enforce));
        assert_eq!(defaults.default_class, "metal");
    }

    #[test]
    fn classes_of_the_file_join_or_replace_the_built_in_ones() {
        let config = config("[class.vm]\nrate_pps = 20\nburst = 60\n[class.lab]\nrate_pps = 5\nburst = 5\n");
        assert_eq!(config.classes.keys().collect::<Vec<_>>(), ["lab", "metal", "strict", "trusted", "vm"]);
        assert_eq!(config.classes["vm"], Class::with_rate(20, 60));
        assert_eq!(config.classes["metal"], Class::metal());
    }

    #[test]
    fn what_is_shown_can_be_added_to() {
        let shown = toml::to_string(&Config::default()).unwrap();
        let more = config(
            &(shown + "[[port]]\ninterface = 'eth0'\n[[known_client]]\ninterface = 'eth0'\nmac = '0200.5e10.0001'\n"),
        );
        assert_eq!((more.ports.len(), more.known_clients.len()), (1, 1));
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let config = config(
            "interfaces = ['eth0']
            inventory = '/etc/inventory.csv'
            [[port]]
            interface = 'eth0'
            vlans = [100, 20]
            [[known_client]]
            interface = 'eth0'
            vlans = [100, 20]
            mac = '0200.5e10.0001'
            [[allow]]
            interface = 'eth0'
            [class.lab]
            rate_pps = 1
            burst = 1
            mode = 'monitor'
            discover_share_percent = 3
            quarantine = 'off'
            actuators = ['link_down', 'webhook']
            [actuator.webhook]
            url = 'http://noc.example/dhcp'",
        );
        assert_eq!(Config::from_toml(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
}
