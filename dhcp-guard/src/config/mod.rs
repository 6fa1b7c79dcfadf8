//! The configuration: defaults, the TOML file, and what both must satisfy.
//!
//! - here: the types, their defaults, and what follows from them ([`Config::class_of`], [`Config::mode_of`])
//! - `read`: from the text of a file to the types, with the line of each problem
//! - `keys`: which keys exist, from the types themselves
//! - `check`: what the values must satisfy
//! - `problem`: the sentences

mod check;
mod keys;
mod path;
mod problem;
mod read;
#[cfg(test)]
mod reference;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

pub use self::{
    check::port_name,
    path::{KeyPath, Segment},
    problem::{ConfigError, Problem, ProblemKind},
};
use crate::{mac::Mac, model::Mode};

/// The configuration file that is used if it exists and no other is named.
pub const DEFAULT_FILE: &str = "/etc/dhcp-guard/dhcp-guard.toml";
/// The control API's socket, unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/dhcp-guard/agent.sock";

/// The built-in class for virtual machines: libvirt's limit for DHCP.
const VM: Class = Class { rate_pps: 10, burst: 50, trusted: false };
/// The built-in class for physical machines: 250 nested virtual machines booting at once stay below it.
const METAL: Class = Class { rate_pps: 50, burst: 250, trusted: false };
/// The built-in class for DHCP servers and relays, which aggregate many clients.
const TRUSTED: Class = Class { rate_pps: 1000, burst: 1000, trusted: true };

/// Everything that can be configured. Every key has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(rename = "class", deserialize_with = "over_built_in_classes")]
    pub classes: BTreeMap<String, Class>,
    /// Ports other than each interface's untagged one, or with a class of their own.
    #[serde(rename = "port", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Clients known from the start.
    #[serde(rename = "known_client", skip_serializing_if = "Vec::is_empty")]
    pub known_clients: Vec<KnownClient>,
    /// When someone is an offender.
    pub detection: Detection,
    /// Sizes of the kernel's tables.
    pub capacity: Capacity,
}

/// Limits that do not depend on the class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownClient {
    /// Interface name.
    pub interface: String,
    /// VLAN ids, outer first.
    #[serde(default)]
    pub vlans: Vec<u16>,
    /// Source MAC.
    pub mac: Mac,
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
            mode: Mode::default(),
            default_class: "metal".to_owned(),
            socket: PathBuf::from(DEFAULT_SOCKET),
            inventory: None,
            limits: Limits::default(),
            classes: built_in_classes(),
            ports: Vec::new(),
            known_clients: Vec::new(),
            detection: Detection::default(),
            capacity: Capacity::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        // The worst legitimate client measured sends 4 packets in one second and 11 in ten.
        Self { client_rate_pps: 2, client_burst: 20, strangers_share_percent: 50, new_clients_per_s: 128 }
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self { offender_windows: 3, recover_after_s: 60, remember_s: 600 }
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self { ports: 1024, known_clients: 16_384, strangers: 65_536 }
    }
}

fn built_in_classes() -> BTreeMap<String, Class> {
    [("vm", VM), ("metal", METAL), ("trusted", TRUSTED)].map(|(name, class)| (name.to_owned(), class)).into()
}

/// The built-in classes, and over them those of the file.
fn over_built_in_classes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Class>, D::Error> {
    let mut classes = built_in_classes();
    classes.extend(BTreeMap::<String, Class>::deserialize(deserializer)?);
    Ok(classes)
}

impl Config {
    /// The class, by name, that frames with these VLANs on this interface are held to: the port's own; else, because
    /// VLANs without a port of their own belong to it, that of the interface's untagged port; else the default class.
    #[must_use]
    pub fn class_of(&self, interface: &str, vlans: &[u16]) -> (&str, &Class) {
        let port = self.port(interface, vlans).or_else(|| self.port(interface, &[]));
        let name = port.and_then(|port| port.class.as_deref()).unwrap_or(&self.default_class);
        match self.classes.get_key_value(name) {
            Some((name, class)) => (name, class),
            // Not in a configuration that was validated. Never without a limit, all the same.
            None => ("metal", &METAL),
        }
    }

    /// The mode of frames with these VLANs on this interface: the port's own, found as in [`Self::class_of`], or the
    /// agent's.
    #[must_use]
    pub fn mode_of(&self, interface: &str, vlans: &[u16]) -> Mode {
        let port = self.port(interface, vlans).or_else(|| self.port(interface, &[]));
        port.and_then(|port| port.mode).unwrap_or(self.mode)
    }

    fn port(&self, interface: &str, vlans: &[u16]) -> Option<&Port> {
        self.ports.iter().find(|port| port.interface == interface && port.vlans == vlans)
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
        assert_eq!((defaults.limits.client_rate_pps, defaults.limits.client_burst), (2, 20));
        assert_eq!((defaults.limits.strangers_share_percent, defaults.limits.new_clients_per_s), (50, 128));
        let detection = &defaults.detection;
        assert_eq!((detection.offender_windows, detection.recover_after_s, detection.remember_s), (3, 60, 600));
        let capacity = &defaults.capacity;
        assert_eq!((capacity.ports, capacity.known_clients, capacity.strangers), (1024, 16_384, 65_536));
        assert_eq!(defaults.mode, Mode::Enforce);
        assert_eq!(defaults.default_class, "metal");
        let class = |name: &str| {
            let class = &defaults.classes[name];
            (class.rate_pps, class.burst, class.trusted)
        };
        assert_eq!(["vm", "metal", "trusted"].map(class), [(10, 50, false), (50, 250, false), (1000, 1000, true)]);
    }

    #[test]
    fn classes_of_the_file_join_or_replace_the_built_in_ones() {
        let config = config("[class.vm]\nrate_pps = 20\nburst = 60\n[class.lab]\nrate_pps = 5\nburst = 5\n");
        assert_eq!(config.classes.keys().collect::<Vec<_>>(), ["lab", "metal", "trusted", "vm"]);
        assert_eq!(config.classes["vm"], Class { rate_pps: 20, burst: 60, trusted: false });
        assert_eq!(config.classes["metal"], METAL);
    }

    #[test]
    fn a_port_has_its_class_or_its_interface_s_or_the_default() {
        let config = config(
            "mode = 'monitor'
            [[port]]
            interface = 'eth0'
            class = 'vm'
            mode = 'enforce'
            [[port]]
            interface = 'eth0'
            vlans = [100]
            class = 'trusted'
            [[port]]
            interface = 'eth0'
            vlans = [200]",
        );
        let class = |interface, vlans: &[u16]| config.class_of(interface, vlans).0.to_owned();
        assert_eq!(class("eth0", &[]), "vm");
        assert_eq!(class("eth0", &[100]), "trusted");
        assert_eq!(class("eth0", &[200]), "metal", "a port of its own, without a class");
        assert_eq!(class("eth0", &[100, 20]), "vm", "no port of its own: the untagged one takes it");
        assert_eq!(class("eth1", &[]), "metal");
        assert!(config.class_of("eth0", &[100]).1.trusted);
        assert_eq!(config.mode_of("eth0", &[]), Mode::Enforce);
        assert_eq!(config.mode_of("eth0", &[7]), Mode::Enforce, "the untagged port takes it");
        assert_eq!(config.mode_of("eth0", &[100]), Mode::Monitor, "a port of its own, without a mode");
        assert_eq!(config.mode_of("eth1", &[]), Mode::Monitor);
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
            mac = '0200.5e10.0001'",
        );
        assert_eq!(Config::from_toml(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
}
