//! What a port is held to: its class, and over the general limits whatever the class has of its own.

use super::{ActuatorName, AutoQuarantine, Class, Config, Port, names};
use crate::model::Mode;

/// Everything that is decided about a port, with all defaults filled in. Units and ranges are those of
/// [`Limits`](super::Limits) and [`Class`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Name of the class.
    pub class: String,
    /// Only the port's own limit applies.
    pub trusted: bool,
    /// Enforce or monitor.
    pub mode: Mode,
    /// Packets a second, and packets in a burst, of everybody together.
    pub total: (u32, u32),
    /// The same of strangers together: their share of `total`.
    pub strangers: (u32, u32),
    /// The same of DISCOVERs and Solicits together; none: no limit but `total`.
    pub discover: Option<(u32, u32)>,
    /// The same of one client's DHCPv4.
    pub client_v4: (u32, u32),
    /// The same of one client's DHCPv6.
    pub client_v6: (u32, u32),
    /// New MACs a second that are counted one by one.
    pub new_clients_per_s: u32,
    /// Messages that name another hardware address than their frame are dropped.
    pub drop_chaddr_mismatch: bool,
    /// What automatic quarantine may do; nothing, if the port is trusted.
    pub quarantine: AutoQuarantine,
    /// What any quarantine sets in motion beside the data plane.
    pub actuators: Vec<ActuatorName>,
}

impl Config {
    /// What frames with these VLANs on this interface are held to.
    ///
    /// Their class is that of their own port; else, because VLANs without a port of their own belong to it, that of the
    /// interface's untagged port; else the default class. Their mode is that of the port, found in the same way; else that
    /// of the class; else the agent's.
    #[must_use]
    pub fn rules_of(&self, interface: &str, vlans: &[u16]) -> Rules {
        let port = self.port(interface, vlans).or_else(|| self.port(interface, &[]));
        let (name, class) = self.class_of(port);
        let limits = &self.limits;
        let total = (class.rate_pps, class.burst);
        let discover = class.discover_share_percent.unwrap_or(limits.discover_share_percent);
        Rules {
            class: name.to_owned(),
            trusted: class.trusted,
            mode: port.and_then(|port| port.mode).or(class.mode).unwrap_or(self.mode),
            total,
            strangers: share(total, class.strangers_share_percent.unwrap_or(limits.strangers_share_percent)),
            discover: (discover < 100).then(|| share(total, discover)),
            client_v4: (
                class.client_rate_pps.unwrap_or(limits.client_rate_pps),
                class.client_burst.unwrap_or(limits.client_burst),
            ),
            client_v6: (
                class.client_v6_rate_pps.unwrap_or(limits.client_v6_rate_pps),
                class.client_v6_burst.unwrap_or(limits.client_v6_burst),
            ),
            new_clients_per_s: class.new_clients_per_s.unwrap_or(limits.new_clients_per_s),
            drop_chaddr_mismatch: class.drop_chaddr_mismatch,
            quarantine: if class.trusted { AutoQuarantine::Off } else { class.quarantine },
            actuators: class.actuators,
        }
    }

    /// The port with exactly these VLANs, if the file has one: by the interface's name, or else the first whose pattern
    /// matches.
    pub(super) fn port(&self, interface: &str, vlans: &[u16]) -> Option<&Port> {
        let here = || self.ports.iter().filter(|port| port.vlans == vlans);
        here()
            .find(|port| port.interface == interface)
            .or_else(|| here().find(|port| names(&port.interface, interface)))
    }

    fn class_of(&self, port: Option<&Port>) -> (&str, Class) {
        let name = port.and_then(|port| port.class.as_deref()).unwrap_or(&self.default_class);
        match self.classes.get_key_value(name) {
            Some((name, class)) => (name, class.clone()),
            // Not in a configuration that was validated. Never without a limit, all the same.
            None => ("metal", Class::metal()),
        }
    }
}

/// So many percent of a rate and a burst, both rounded up: never nothing.
#[must_use]
pub fn share((rate, burst): (u32, u32), percent: u32) -> (u32, u32) {
    let part = |whole: u32| {
        let part = (u64::from(whole) * u64::from(percent)).div_ceil(100);
        u32::try_from(part).unwrap_or(whole)
    };
    (part(rate), part(burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_toml(text).unwrap()
    }

    #[test]
    fn a_port_has_its_class_or_its_interface_s_or_the_default() {
        let config = config(
            "[[port]]
            interface = 'eth0'
            class = 'vm'
            [[port]]
            interface = 'eth0'
            vlans = [100]
            class = 'trusted'
            [[port]]
            interface = 'eth0'
            vlans = [200]",
        );
        let class = |interface, vlans: &[u16]| config.rules_of(interface, vlans).class;
        assert_eq!(class("eth0", &[]), "vm");
        assert_eq!(class("eth0", &[100]), "trusted");
        assert_eq!(class("eth0", &[200]), "metal", "a port of its own, without a class");
        assert_eq!(class("eth0", &[100, 20]), "vm", "no port of its own: the untagged one takes it");
        assert_eq!(class("eth1", &[]), "metal");
        assert!(config.rules_of("eth0", &[100]).trusted);
    }

    #[test]
    fn a_port_s_mode_is_its_own_or_its_class_s_or_the_agent_s() {
        let config = config(
            "mode = 'monitor'
            [class.new]
            rate_pps = 10
            burst = 50
            mode = 'enforce'
            [[port]]
            interface = 'eth0'
            mode = 'enforce'
            [[port]]
            interface = 'eth0'
            vlans = [1]
            [[port]]
            interface = 'eth0'
            vlans = [2]
            class = 'new'
            [[port]]
            interface = 'eth0'
            vlans = [3]
            class = 'new'
            mode = 'monitor'",
        );
        let mode = |interface, vlans: &[u16]| config.rules_of(interface, vlans).mode;
        assert_eq!(mode("eth0", &[]), Mode::Enforce);
        assert_eq!(mode("eth0", &[7]), Mode::Enforce, "the untagged port takes it");
        assert_eq!(mode("eth0", &[1]), Mode::Monitor, "a port of its own, with a mode of nobody");
        assert_eq!(mode("eth0", &[2]), Mode::Enforce, "its class has one");
        assert_eq!(mode("eth0", &[3]), Mode::Monitor, "its own comes first");
        assert_eq!(mode("eth1", &[]), Mode::Monitor);
    }

    #[test]
    fn without_anything_set_the_general_limits_apply() {
        let expected = Rules {
            class: "metal".into(),
            trusted: false,
            mode: Mode::Enforce,
            total: (50, 250),
            strangers: (25, 125),
            discover: None,
            client_v4: (2, 20),
            client_v6: (1, 20),
            new_clients_per_s: 128,
            drop_chaddr_mismatch: false,
            quarantine: AutoQuarantine::Mute,
            actuators: vec![],
        };
        assert_eq!(Config::default().rules_of("eth0", &[]), expected);
    }

    #[test]
    fn a_class_may_have_limits_of_its_own() {
        let config = config(
            "default_class = 'lab'
            [limits]
            discover_share_percent = 40
            client_burst = 7
            [class.lab]
            rate_pps = 11
            burst = 21
            client_rate_pps = 3
            client_v6_rate_pps = 4
            client_v6_burst = 5
            strangers_share_percent = 10
            discover_share_percent = 100
            new_clients_per_s = 6
            drop_chaddr_mismatch = true",
        );
        let rules = config.rules_of("eth0", &[]);
        assert_eq!((rules.total, rules.strangers, rules.discover), ((11, 21), (2, 3), None), "rounded up");
        assert_eq!((rules.client_v4, rules.client_v6, rules.new_clients_per_s), ((3, 7), (4, 5), 6));
        assert!(rules.drop_chaddr_mismatch);
        let metal = Config { default_class: "metal".into(), ..config }.rules_of("eth0", &[]);
        assert_eq!((metal.discover, metal.client_v4), (Some((20, 100)), (2, 7)));
    }

    #[test]
    fn what_a_quarantine_does_is_the_class_s_and_nothing_by_itself_to_a_trusted_port() {
        let class = "rate_pps = 1\nburst = 1\nquarantine = 'isolate'\nactuators = ['link_down']\n";
        let config = config(&format!(
            "default_class = 'a'\n[class.a]\n{class}[class.b]\n{class}trusted = true\n[[port]]\ninterface = 'up0'\nclass = 'b'"
        ));
        let of = |interface| {
            let rules = config.rules_of(interface, &[]);
            (rules.quarantine, rules.actuators)
        };
        assert_eq!(of("eth0"), (AutoQuarantine::Isolate, vec![ActuatorName::LinkDown]));
        assert_eq!(of("up0"), (AutoQuarantine::Off, vec![ActuatorName::LinkDown]), "by hand it can be quarantined");
    }

    #[test]
    fn strict_ports_keep_half_for_renewals() {
        let rules = Config { default_class: "strict".into(), ..Config::default() }.rules_of("tap0", &[]);
        assert_eq!((rules.total, rules.discover), ((5, 20), Some((3, 10))));
        assert_eq!((rules.client_v4, rules.client_v6), ((1, 10), (1, 10)));
        assert!(rules.drop_chaddr_mismatch);
    }

    #[test]
    fn a_share_is_never_nothing_and_never_more_than_the_whole() {
        assert_eq!(share((1, 1), 1), (1, 1));
        assert_eq!(share((u32::MAX, 10), 100), (u32::MAX, 10));
    }
}
