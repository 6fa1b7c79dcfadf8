//! What the values of a configuration must satisfy.

use std::{collections::BTreeSet, ops::RangeInclusive, os::unix::ffi::OsStrExt};

use dhcp_guard_common::layout::MAX_PORTS;

use super::{ActuatorName, Class, Config, KeyPath, Problem, ProblemKind, is_pattern, keys, names};
use crate::{actuators::Endpoint, mac::Mac};

const MILLION: u32 = 1_000_000;
pub(super) const DAY_S: u32 = 86_400;

/// Most allowed clients. The kernel's table for rules about single clients has room for twice as many: the other half is
/// for quarantine.
const MAX_ALLOWED_CLIENTS: usize = 2048;

/// Most older files of the audit log.
pub const MAX_KEPT_FILES: u32 = 100;

/// A number of the configuration: its name, its value, and what is permitted for it.
pub(super) type Number = (KeyPath, u32, RangeInclusive<u32>);

/// The name of a port: the interface, then each VLAN id after a dot (`eth0`, `eth0.100`, `eth0.100.20`).
#[must_use]
pub fn port_name(interface: &str, vlans: &[u16]) -> String {
    vlans.iter().fold(interface.to_owned(), |name, vlan| format!("{name}.{vlan}"))
}

/// Whether the kernel accepts this name for an interface (`dev_valid_name`).
fn is_interface_name(name: &str) -> bool {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace();
    (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(forbidden)
}

impl Config {
    /// Everything that is wrong with the values; empty: the configuration can be used.
    #[must_use]
    pub fn validate(&self) -> Vec<Problem> {
        let mut found = Found(Vec::new());
        for (key, value, range) in self.numbers() {
            found.number(key, value, &range);
        }
        self.check_interfaces(&mut found);
        self.check_classes(&mut found);
        self.check_ports(&mut found);
        self.check_known_clients(&mut found);
        self.check_allowed(&mut found);
        self.check_capacity(&mut found);
        self.check_actuators(&mut found);
        found.0.extend(self.quarantine.contradictions());
        found.0.extend(self.access.problems());
        let socket = self.socket.as_os_str().as_bytes().len();
        if !(1..108).contains(&socket) {
            found.add(["socket"].into(), ProblemKind::SocketPath(socket));
        }
        for (key, folder) in [("state_dir", &self.state_dir), ("pin_dir", &self.pin_dir)] {
            if folder.as_os_str().is_empty() {
                found.add([key].into(), ProblemKind::NoFolder);
            }
        }
        found.0
    }

    /// Every number that is set.
    pub(super) fn numbers(&self) -> Vec<Number> {
        let (limits, detection, capacity) = (&self.limits, &self.detection, &self.capacity);
        let (host, learning, audit) = (&self.host, &self.learning, &self.audit);
        let mut numbers = vec![
            (["limits", "client_rate_pps"].into(), limits.client_rate_pps, 1..=MILLION),
            (["limits", "client_burst"].into(), limits.client_burst, 1..=MILLION),
            (["limits", "client_v6_rate_pps"].into(), limits.client_v6_rate_pps, 1..=MILLION),
            (["limits", "client_v6_burst"].into(), limits.client_v6_burst, 1..=MILLION),
            (["limits", "strangers_share_percent"].into(), limits.strangers_share_percent, 1..=100),
            (["limits", "discover_share_percent"].into(), limits.discover_share_percent, 1..=100),
            (["limits", "new_clients_per_s"].into(), limits.new_clients_per_s, 1..=100_000),
            (["host", "rate_pps"].into(), host.rate_pps, 1..=MILLION),
            (["host", "burst"].into(), host.burst, 1..=MILLION),
            (["host", "strangers_share_percent"].into(), host.strangers_share_percent, 1..=100),
            (["learning", "after_s"].into(), learning.after_s, 1..=DAY_S),
            (["learning", "per_port_per_minute"].into(), learning.per_port_per_minute, 1..=1_000),
            (["learning", "per_port_max"].into(), learning.per_port_max, 1..=100_000),
            (["learning", "forget_after_s"].into(), learning.forget_after_s, 60..=365 * DAY_S),
            (["detection", "offender_windows"].into(), detection.offender_windows, 1..=3_600),
            (["detection", "recover_after_s"].into(), detection.recover_after_s, 1..=DAY_S),
            (["detection", "remember_s"].into(), detection.remember_s, 0..=7 * DAY_S),
            (["audit", "max_bytes"].into(), audit.max_bytes, 10_000..=1_000 * MILLION),
            (["audit", "keep"].into(), audit.keep, 1..=MAX_KEPT_FILES),
            (["capacity", "ports"].into(), capacity.ports, 1..=MAX_PORTS),
            (["capacity", "known_clients"].into(), capacity.known_clients, 1..=MILLION),
            (["capacity", "strangers"].into(), capacity.strangers, 1_024..=MILLION),
        ];
        numbers.extend(self.quarantine.numbers());
        numbers.extend(self.actuator_numbers());
        numbers.extend(self.classes.iter().flat_map(|(name, class)| class_numbers(name, class)));
        numbers
    }

    /// Those of the actuators.
    fn actuator_numbers(&self) -> impl Iterator<Item = Number> {
        let command = self.actuators.command.iter();
        let command = command.map(|command| (["actuator", "command", "timeout_s"].into(), command.timeout_s, 1..=300));
        let webhook = self.actuators.webhook.iter().flat_map(|webhook| {
            [
                (["actuator", "webhook", "timeout_s"].into(), webhook.timeout_s, 1..=60),
                (["actuator", "webhook", "attempts"].into(), webhook.attempts, 1..=10),
            ]
        });
        command.chain(webhook)
    }

    fn check_interfaces(&self, found: &mut Found) {
        for (i, name) in self.interfaces.iter().enumerate() {
            let key = KeyPath::from(["interfaces"]).index(i);
            if self.interfaces[..i].contains(name) {
                found.add(key, ProblemKind::DuplicateInterface(name.clone()));
            } else {
                found.interface(key, name);
            }
        }
    }

    fn check_classes(&self, found: &mut Found) {
        let mut check = |key: KeyPath, name: &String| {
            if !self.classes.contains_key(name) {
                let nearest = keys::nearest(name, self.classes.keys().map(String::as_str));
                found.add(key, ProblemKind::UndefinedClass { name: name.clone(), nearest });
            }
        };
        check(["default_class"].into(), &self.default_class);
        for (i, port) in self.ports.iter().enumerate() {
            if let Some(class) = &port.class {
                check(KeyPath::from(["port"]).index(i).key("class"), class);
            }
        }
    }

    fn check_ports(&self, found: &mut Found) {
        for (i, port) in self.ports.iter().enumerate() {
            let key = KeyPath::from(["port"]).index(i);
            found.interface(key.key("interface"), &port.interface);
            found.vlans(&key.key("vlans"), &port.vlans);
            let same = |other: &super::Port| other.interface == port.interface && other.vlans == port.vlans;
            if let Some(first) = self.ports[..i].iter().position(same) {
                let first = KeyPath::from(["port"]).index(first);
                let port = port_name(&port.interface, &port.vlans);
                found.add(key, ProblemKind::DuplicatePort { port, first });
            }
        }
    }

    fn check_known_clients(&self, found: &mut Found) {
        let (mut seen, ports) = (std::collections::BTreeMap::new(), self.configured_ports());
        for (i, client) in self.known_clients.iter().enumerate() {
            let key = KeyPath::from(["known_client"]).index(i);
            check_place(found, &ports, &key, &client.interface, &client.vlans);
            found.unicast(&key, client.mac);
            let first = *seen.entry((&client.interface, &client.vlans, client.mac)).or_insert(i);
            if first != i {
                let first = KeyPath::from(["known_client"]).index(first);
                let port = port_name(&client.interface, &client.vlans);
                found.add(key, ProblemKind::DuplicateClient { mac: client.mac, port, first });
            }
        }
    }

    fn check_allowed(&self, found: &mut Found) {
        let (mut seen, ports) = (std::collections::BTreeMap::new(), self.configured_ports());
        for (i, allow) in self.allowed.iter().enumerate() {
            let key = KeyPath::from(["allow"]).index(i);
            check_place(found, &ports, &key, &allow.interface, &allow.vlans);
            if let Some(mac) = allow.mac {
                found.unicast(&key, mac);
            }
            let first = *seen.entry((&allow.interface, &allow.vlans, allow.mac)).or_insert(i);
            if first != i {
                let first = KeyPath::from(["allow"]).index(first);
                let port = port_name(&allow.interface, &allow.vlans);
                found.add(key, ProblemKind::DuplicateAllow { mac: allow.mac, port, first });
            }
        }
        let clients = self.allowed.iter().filter(|allow| allow.mac.is_some()).count();
        if clients > MAX_ALLOWED_CLIENTS {
            found.add(["allow"].into(), ProblemKind::TooManyAllowed { clients, max: MAX_ALLOWED_CLIENTS });
        }
    }

    /// There may be thousands of clients on thousands of ports.
    fn configured_ports(&self) -> BTreeSet<(&str, &[u16])> {
        self.ports.iter().map(|port| (port.interface.as_str(), port.vlans.as_slice())).collect()
    }

    /// Each interface has its untagged port, and each `[[port]]` is one.
    fn check_capacity(&self, found: &mut Found) {
        let untagged = self.interfaces.iter().map(|interface| (interface, [].as_slice()));
        let configured = self.ports.iter().map(|port| (&port.interface, port.vlans.as_slice()));
        let ports = untagged.chain(configured).collect::<BTreeSet<_>>().len();
        found.capacity("port", ports, "ports", self.capacity.ports);
        found.capacity("known client", self.known_clients.len(), "known_clients", self.capacity.known_clients);
    }

    fn check_actuators(&self, found: &mut Found) {
        for (name, class) in &self.classes {
            let key = KeyPath::from(["class", name, "actuators"]);
            for (i, actuator) in class.actuators.iter().enumerate() {
                let key = key.index(i);
                if class.actuators[..i].contains(actuator) {
                    found.add(key, ProblemKind::DuplicateActuator(*actuator));
                } else if !self.has_actuator(*actuator) {
                    found.add(key, ProblemKind::UnconfiguredActuator(*actuator));
                }
            }
        }
        if let Some(command) = &self.actuators.command {
            let absolute = command.argv.first().is_some_and(|program| program.starts_with('/'));
            if !absolute || command.argv.iter().any(|word| word.contains('\0')) {
                found.add(["actuator", "command", "argv"].into(), ProblemKind::Argv);
            }
        }
        if let Some(webhook) = &self.actuators.webhook
            && let Err(reason) = webhook.url.parse::<Endpoint>()
        {
            found.add(["actuator", "webhook", "url"].into(), ProblemKind::Url(reason));
        }
    }

    fn has_actuator(&self, name: ActuatorName) -> bool {
        match name {
            ActuatorName::LinkDown => true,
            ActuatorName::Command => self.actuators.command.is_some(),
            ActuatorName::Webhook => self.actuators.webhook.is_some(),
        }
    }
}

/// The numbers that a class has set.
fn class_numbers(name: &str, class: &Class) -> Vec<Number> {
    let numbers = [
        ("rate_pps", Some(class.rate_pps), 1..=MILLION),
        ("burst", Some(class.burst), 1..=MILLION),
        ("client_rate_pps", class.client_rate_pps, 1..=MILLION),
        ("client_burst", class.client_burst, 1..=MILLION),
        ("client_v6_rate_pps", class.client_v6_rate_pps, 1..=MILLION),
        ("client_v6_burst", class.client_v6_burst, 1..=MILLION),
        ("strangers_share_percent", class.strangers_share_percent, 1..=100),
        ("discover_share_percent", class.discover_share_percent, 1..=100),
        ("new_clients_per_s", class.new_clients_per_s, 1..=100_000),
    ];
    let set = numbers.into_iter().filter_map(|(key, value, range)| Some((["class", name, key].into(), value?, range)));
    set.collect()
}

/// Where a client is: an interface's untagged port, which is always there, or one that is configured.
fn check_place(found: &mut Found, ports: &BTreeSet<(&str, &[u16])>, key: &KeyPath, interface: &str, vlans: &[u16]) {
    found.interface(key.key("interface"), interface);
    let possible = found.vlans(&key.key("vlans"), vlans);
    // Whose pattern means the interface, too.
    let is_meant = |(word, of): &(&str, &[u16])| *of == vlans && is_pattern(word) && names(word, interface);
    // Whether two patterns have a name in common is not for us to find out.
    let can_tell = possible && !vlans.is_empty() && !is_pattern(interface);
    if can_tell && !ports.contains(&(interface, vlans)) && !ports.iter().any(is_meant) {
        found.add(key.key("vlans"), ProblemKind::NoSuchPort(port_name(interface, vlans)));
    }
}

/// The problems found so far.
struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, key: KeyPath, kind: ProblemKind) {
        self.0.push(Problem { line: None, key, kind });
    }

    fn number(&mut self, key: KeyPath, value: u32, range: &RangeInclusive<u32>) {
        if !range.contains(&value) {
            self.add(key, ProblemKind::OutOfRange { value, min: *range.start(), max: *range.end() });
        }
    }

    fn interface(&mut self, key: KeyPath, name: &str) {
        if !is_interface_name(name) {
            self.add(key, ProblemKind::InterfaceName(name.to_owned()));
        }
    }

    /// True: they can be the VLANs of a port.
    fn vlans(&mut self, key: &KeyPath, vlans: &[u16]) -> bool {
        let before = self.0.len();
        if vlans.len() > 2 {
            self.add(key.clone(), ProblemKind::TooManyVlans(vlans.len()));
        }
        for (i, vlan) in vlans.iter().enumerate().filter(|(_, vlan)| !(1..4095).contains(*vlan)) {
            self.add(key.index(i), ProblemKind::VlanId(*vlan));
        }
        self.0.len() == before
    }

    fn unicast(&mut self, client: &KeyPath, mac: Mac) {
        if !mac.is_unicast() {
            self.add(client.key("mac"), ProblemKind::NotUnicast(mac));
        }
    }

    fn capacity(&mut self, one: &'static str, wanted: usize, key: &'static str, capacity: u32) {
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        if wanted > capacity.into() {
            self.add(["capacity", key].into(), ProblemKind::OverCapacity { wanted, one, key, capacity });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Allow, Command, KnownClient, Port, Webhook},
        mac::Mac,
    };

    fn problems(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.validate().iter().map(Problem::to_string).collect()
    }

    fn port(interface: &str, vlans: &[u16]) -> Port {
        Port { interface: interface.into(), vlans: vlans.into(), class: None, mode: None }
    }

    fn allow(vlans: &[u16], mac: Option<[u8; 6]>) -> Allow {
        Allow { interface: "eth0".into(), vlans: vlans.into(), mac: mac.map(Mac) }
    }

    fn known(mac: [u8; 6]) -> KnownClient {
        KnownClient { interface: "eth0".into(), vlans: vec![], mac: Mac(mac) }
    }

    #[test]
    fn each_number_has_its_range() {
        let rejected = |change: fn(&mut Config)| {
            let problems = problems(change);
            assert_eq!(problems.len(), 1, "{problems:?}");
            problems[0].clone()
        };
        assert_eq!(
            rejected(|c| c.limits.client_rate_pps = 0),
            "limits.client_rate_pps: 0 is out of range, use 1 to 1,000,000"
        );
        assert!(rejected(|c| c.limits.client_burst = 1_000_001).starts_with("limits.client_burst: 1,000,001 "));
        assert!(rejected(|c| c.limits.strangers_share_percent = 101).contains("1 to 100"));
        assert!(rejected(|c| c.limits.new_clients_per_s = 0).contains("1 to 100,000"));
        assert!(rejected(|c| c.detection.offender_windows = 0).contains("1 to 3,600"));
        assert!(rejected(|c| c.detection.recover_after_s = 86_401).contains("1 to 86,400"));
        assert!(rejected(|c| c.detection.remember_s = 604_801).contains("0 to 604,800"));
        assert!(rejected(|c| c.audit.max_bytes = 9_999).contains("10,000 to 1,000,000,000"));
        assert!(rejected(|c| c.audit.keep = 0).contains("1 to 100"));
        assert!(rejected(|c| c.capacity.ports = 4_097).contains("1 to 4,096"));
        assert!(rejected(|c| c.capacity.known_clients = 0).contains("1 to 1,000,000"));
        assert!(rejected(|c| c.capacity.strangers = 1_023).contains("1,024 to 1,000,000"));
        assert_eq!(rejected(|c| c.host.rate_pps = 0), "host.rate_pps: 0 is out of range, use 1 to 1,000,000");
        assert!(rejected(|c| c.host.strangers_share_percent = 0).contains("1 to 100"));
        assert!(rejected(|c| c.learning.per_port_per_minute = 0).contains("1 to 1,000"));
        assert!(rejected(|c| c.learning.forget_after_s = 59).contains("60 to 31,536,000"));
        assert_eq!(
            rejected(|c| _ = c.classes.insert("x".into(), Class::with_rate(0, 1))),
            "class.x.rate_pps: 0 is out of range, use 1 to 1,000,000"
        );
        let own = Class { discover_share_percent: Some(101), ..Class::with_rate(1, 1) };
        assert_eq!(
            problems(|c| _ = c.classes.insert("x".into(), own)),
            ["class.x.discover_share_percent: 101 is out of range, use 1 to 100"]
        );
        let command = |timeout_s| Command { argv: vec!["/bin/true".into()], timeout_s };
        assert_eq!(
            problems(|c| c.actuators.command = Some(command(301))),
            ["actuator.command.timeout_s: 301 is out of range, use 1 to 300"]
        );
        assert!(problems(|c| c.actuators.command = Some(command(300))).is_empty());
        let webhook = Webhook { url: "http://noc/".into(), secret_file: None, timeout_s: 0, attempts: 11 };
        assert_eq!(
            problems(|c| c.actuators.webhook = Some(webhook)),
            [
                "actuator.webhook.timeout_s: 0 is out of range, use 1 to 60",
                "actuator.webhook.attempts: 11 is out of range, use 1 to 10"
            ]
        );
        assert!(problems(|c| c.detection.remember_s = 0).is_empty());
    }

    #[test]
    fn every_number_is_checked() {
        fn count(value: &serde_json::Value) -> usize {
            match value {
                serde_json::Value::Number(_) => 1,
                serde_json::Value::Object(table) => table.values().map(count).sum(),
                // VLAN ids are checked on their own.
                _ => 0,
            }
        }
        let exemplar = keys::exemplar();
        assert_eq!(exemplar.numbers().len(), count(&serde_json::to_value(&exemplar).unwrap()));
    }

    #[test]
    fn vlans_are_two_at_most_and_real() {
        let problems = problems(|c| c.ports = vec![port("eth0", &[0, 4095]), port("eth0", &[1, 4094, 2])]);
        assert_eq!(
            problems,
            [
                "port[0].vlans[0]: 0 is not a VLAN id, use 1 to 4094",
                "port[0].vlans[1]: 4095 is not a VLAN id, use 1 to 4094",
                "port[1].vlans: 3 VLAN ids are too many, use at most two, outer first",
            ]
        );
    }

    #[test]
    fn nothing_is_configured_twice() {
        let problems = problems(|c| {
            c.interfaces = vec!["eth0".into(), "eth1".into(), "eth0".into()];
            c.ports = vec![port("eth0", &[1]), port("eth0", &[2]), port("eth0", &[1])];
            c.known_clients = vec![known([2; 6]), known([4; 6]), known([2; 6])];
            c.allowed = vec![allow(&[], None), allow(&[], Some([2; 6])), allow(&[], Some([2; 6])), allow(&[], None)];
        });
        assert_eq!(
            problems,
            [
                "interfaces[2]: `eth0` is listed twice, remove one",
                "port[2]: port eth0.1 is configured already, at port[0]: remove one",
                "known_client[2]: client 02:02:02:02:02:02 on eth0 is listed already, at known_client[0]: remove one",
                "allow[2]: client 02:02:02:02:02:02 on eth0 is allowed already, at allow[1]: remove one",
                "allow[3]: everybody on eth0 is allowed already, at allow[0]: remove one",
            ]
        );
    }

    #[test]
    fn clients_are_on_ports_that_there_are() {
        let mut client = known([2; 6]);
        client.vlans = vec![100, 20];
        let problems = problems(|c| {
            c.ports = vec![port("eth0", &[100])];
            c.known_clients = vec![client];
            c.allowed = vec![allow(&[100], None), allow(&[], Some([2; 6])), allow(&[7], None), allow(&[5000], None)];
        });
        assert_eq!(
            problems,
            [
                "known_client[0].vlans: there is no port eth0.100.20, add a [[port]] with these VLANs",
                "allow[2].vlans: there is no port eth0.7, add a [[port]] with these VLANs",
                "allow[3].vlans[0]: 5000 is not a VLAN id, use 1 to 4094",
            ]
        );
    }

    #[test]
    fn there_are_not_more_allowed_clients_than_the_kernel_has_room_for() {
        let mac = |i: usize| Some([2, 0, 0, 0, (i >> 8) as u8, i as u8]);
        let fit: Vec<Allow> = (0..2048).map(|i| allow(&[], mac(i))).chain([allow(&[], None)]).collect();
        assert!(problems(|c| c.allowed = fit.clone()).is_empty());
        let one_more = [fit, vec![allow(&[], mac(4096))]].concat();
        assert_eq!(
            problems(|c| c.allowed = one_more),
            ["allow: 2,049 clients are too many, use at most 2,048, or allow whole ports"]
        );
    }

    #[test]
    fn classes_must_exist() {
        let problems = problems(|c| {
            c.default_class = "metals".into();
            c.ports = vec![Port { class: Some("zzz".into()), ..port("eth0", &[]) }];
        });
        assert_eq!(
            problems,
            [
                "default_class: there is no class `metals`, did you mean `metal`?",
                "port[0].class: there is no class `zzz`"
            ]
        );
    }

    #[test]
    fn clients_have_unicast_macs() {
        let problems = problems(|c| {
            c.known_clients = vec![known([0; 6]), known([1, 0, 0, 0, 0, 1]), known([2; 6])];
            c.allowed = vec![allow(&[], Some([0xff; 6])), allow(&[], None)];
        });
        assert_eq!(
            problems,
            [
                "known_client[0].mac: 00:00:00:00:00:00 cannot be a client's MAC, use a unicast address",
                "known_client[1].mac: 01:00:00:00:00:01 cannot be a client's MAC, use a unicast address",
                "allow[0].mac: ff:ff:ff:ff:ff:ff cannot be a client's MAC, use a unicast address",
            ]
        );
    }

    #[test]
    fn a_class_names_actuators_that_there_are_once() {
        let class = |actuators: &[ActuatorName]| Class { actuators: actuators.into(), ..Class::with_rate(1, 1) };
        let problems = problems(|c| {
            _ = c.classes.insert("x".into(), class(&[ActuatorName::LinkDown, ActuatorName::LinkDown]));
            _ = c.classes.insert("y".into(), class(&[ActuatorName::Webhook]));
        });
        assert_eq!(
            problems,
            [
                "class.x.actuators[1]: `link_down` is listed twice, remove one",
                "class.y.actuators[0]: nothing says what `webhook` is to do, add a table [actuator.webhook]",
            ]
        );
    }

    #[test]
    fn an_actuator_must_be_able_to_act() {
        let argv = |argv: &[&str]| {
            let argv = argv.iter().map(|word| (*word).to_owned()).collect();
            problems(|c| c.actuators.command = Some(Command { argv, timeout_s: 1 }))
        };
        let sentence =
            "actuator.command.argv: the first word must be the absolute path of a program, no word may hold NUL";
        assert_eq!([argv(&[]), argv(&["sh"]), argv(&["/bin/sh", "a\0b"])], [[sentence], [sentence], [sentence]]);
        assert!(argv(&["/bin/sh", "-c", ""]).is_empty());
        let webhook = Webhook { url: "https://noc/".into(), secret_file: None, timeout_s: 1, attempts: 1 };
        let refused = problems(|c| c.actuators.webhook = Some(webhook));
        assert!(refused[0].starts_with("actuator.webhook.url: https is not spoken here"), "{refused:?}");
    }

    #[test]
    fn tables_must_be_large_enough() {
        let problems = problems(|c| {
            c.capacity.ports = 2;
            c.capacity.known_clients = 1;
            c.interfaces = vec!["eth0".into(), "eth1".into()];
            c.ports = vec![port("eth0", &[]), port("eth0", &[5])];
            c.known_clients = vec![known([2; 6]), known([4; 6])];
        });
        assert_eq!(
            problems,
            [
                "capacity.ports: 3 ports do not fit, raise capacity.ports (now 2) or configure fewer",
                "capacity.known_clients: 2 known clients do not fit, raise capacity.known_clients (now 1) or configure \
                 fewer",
            ]
        );
    }

    #[test]
    fn names_and_paths_must_be_possible() {
        let bad = ["", "a name", "x/y", "sixteen-letters-", ".."];
        assert_eq!(problems(|c| c.interfaces = bad.map(String::from).into()).len(), bad.len());
        assert!(problems(|c| c.interfaces = vec!["fifteen-letters".into(), "eth0.100".into()]).is_empty());
        assert_eq!(problems(|c| c.socket = "".into()), ["socket: a socket's path has 1 to 107 bytes, this one has 0"]);
        assert_eq!(problems(|c| c.socket = "s".repeat(108).into()).len(), 1);
        assert_eq!(problems(|c| c.state_dir = "".into()), ["state_dir: this is no folder's path, name one"]);
        assert_eq!(problems(|c| c.pin_dir = "".into()), ["pin_dir: this is no folder's path, name one"]);
    }

    #[test]
    fn ports_are_named_after_interface_and_vlans() {
        assert_eq!([&[][..], &[100], &[100, 20]].map(|v| port_name("eth0", v)), ["eth0", "eth0.100", "eth0.100.20"]);
    }
}
