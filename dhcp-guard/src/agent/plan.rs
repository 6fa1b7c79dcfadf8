//! From the configuration and the interfaces that exist to ports with slots and limits.

use std::collections::{HashMap, HashSet};

use dhcp_guard_common::{
    layout::{ClientKey, NO_PORT_SLOT, PortKey},
    parse::Vlans,
};

use crate::{
    config::{Config, Host, RogueServers, Rules, is_pattern, names, port_name, share},
    dataplane::{DataPlane, HostSpec, Policy, PortSpec, Spec, hook::Hook, interface::Interface, load::slot_of},
    governor::PortName,
    mac::Mac,
    model::Mode,
};

/// A port as the agent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its slot in the maps, see [`Plan::take_slots`].
    pub slot: u32,
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// Interface name.
    pub interface: String,
    /// VLAN ids, outer first.
    pub vlans: Vec<u16>,
    /// Interface and VLANs, joined by dots.
    pub name: String,
    /// Its class, mode and limits.
    pub rules: Rules,
    /// On the allowlist as a whole: everything passes.
    pub allowed: bool,
}

/// Everything that is guarded.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The interfaces, in the configuration's order.
    pub interfaces: Vec<Interface>,
    /// The ports: each interface's untagged one first. Their slots can be any, and have gaps.
    pub ports: Vec<Port>,
    /// The clients that the configuration makes known.
    pub configured: HashSet<ClientKey>,
    /// What the data plane needs to know of it.
    pub spec: Spec,
    /// Where the interfaces' frames are judged.
    pub hook: Hook,
    /// The places of the ports. There may be thousands of them, and of clients on them.
    by_name: HashMap<PortName, usize>,
    /// The same by slot.
    by_slot: HashMap<u32, usize>,
}

impl Plan {
    /// Each interface's default port first, then the configured ones on VLANs. Their slots are those that an empty data
    /// plane will give them; for any other one, see [`Plan::take_slots`].
    #[must_use]
    pub fn new(config: &Config, interfaces: Vec<Interface>, debug_kernel: bool) -> Self {
        let mut ports = Vec::new();
        for interface in &interfaces {
            add_port(&mut ports, config, interface, &[]);
        }
        // By pattern several interfaces may be meant, and by several patterns one.
        let mut tagged = HashSet::new();
        for port in config.ports.iter().filter(|port| !port.vlans.is_empty()) {
            for interface in interfaces.iter().filter(|interface| names(&port.interface, &interface.name)) {
                if tagged.insert((interface.ifindex, &port.vlans)) {
                    add_port(&mut ports, config, interface, &port.vlans);
                }
            }
        }
        let by_name: HashMap<PortName, usize> = ports.iter().map(Port::port_name).zip(0..).collect();
        let keys = |word: &str, vlans: &[u16]| -> Vec<PortKey> {
            if is_pattern(word) {
                let here = ports.iter().filter(|port| port.vlans == vlans && names(word, &port.interface));
                return here.map(Port::key).collect();
            }
            // There may be thousands of clients on thousands of ports.
            let name = PortName { interface: word.to_owned(), vlans: vlans.to_vec() };
            by_name.get(&name).and_then(|place| ports.get(*place)).map(Port::key).into_iter().collect()
        };
        let on = |word: &str, vlans: &[u16], mac: Mac| keys(word, vlans).into_iter().map(move |key| (key, mac.0));
        let known = config.known_clients.iter();
        let allowed = config.allowed.iter().filter_map(|allow| Some((allow, allow.mac?)));
        let spec = Spec {
            policy: Policy { ports: ports.iter().map(port_spec).collect(), host: host_spec(config, &ports) },
            known_clients: known.flat_map(|client| on(&client.interface, &client.vlans, client.mac)).collect(),
            allowed_clients: allowed.flat_map(|(allow, mac)| on(&allow.interface, &allow.vlans, mac)).collect(),
            port_capacity: config.capacity.ports,
            known_capacity: config.capacity.known_clients,
            stranger_capacity: config.capacity.strangers,
            debug_kernel,
        };
        let mut plan = Self { interfaces, ports, spec, hook: config.hook, by_name, ..Self::default() };
        plan.slots_changed();
        plan
    }

    /// Takes the slots that the data plane has given to the ports of this plan's policy. A port keeps its slot for as long
    /// as it is one, and slots are used again, so only the data plane knows.
    pub fn take_slots(&mut self, plane: &DataPlane) {
        self.take_slots_from(|key| plane.slot(key));
    }

    /// One without a slot is in the slot that nobody has.
    fn take_slots_from(&mut self, slot_of: impl Fn(PortKey) -> Option<u32>) {
        for port in &mut self.ports {
            port.slot = slot_of(port.key()).unwrap_or(NO_PORT_SLOT);
        }
        self.slots_changed();
    }

    /// Takes slots, and leaves out the ports that have none.
    pub fn keep_ports_in(&mut self, slot_of: impl Fn(PortKey) -> Option<u32>) {
        self.ports.retain(|port| slot_of(port.key()).is_some());
        self.by_name = self.ports.iter().map(Port::port_name).zip(0..).collect();
        self.take_slots_from(slot_of);
    }

    /// What follows from the slots.
    fn slots_changed(&mut self) {
        self.by_slot = self.ports.iter().map(|port| port.slot).zip(0..).collect();
        self.by_slot.remove(&NO_PORT_SLOT);
        let slots: HashMap<PortKey, u32> = self.ports.iter().map(|port| (port.key(), port.slot)).collect();
        let client = |(port, mac): &(PortKey, [u8; 6])| Some(ClientKey::from_mac(*slots.get(port)?, *mac));
        self.configured = self.spec.known_clients.iter().filter_map(client).collect();
    }

    /// Lets rogue servers pass, if they were to be dropped, while servers may be taken for rogues: when a trusted port is on
    /// VLANs whose tags its interface takes off before the guard sees them, the servers' messages arrive as those of the
    /// untagged port. Answers with a warning then.
    #[must_use]
    pub fn spare_hidden_servers(&mut self) -> Option<String> {
        let host = &mut self.spec.policy.host;
        let hiding = self.interfaces.iter().filter(|interface| interface.facts.hides_vlan_tags(self.hook));
        let hiding: HashSet<u32> = hiding.map(|interface| interface.ifindex).collect();
        let hides = |port: &&Port| port.rules.trusted && !port.vlans.is_empty() && hiding.contains(&port.ifindex);
        let hidden = self.ports.iter().find(hides).filter(|_| host.drop_rogue_servers)?;
        host.drop_rogue_servers = false;
        Some(format!(
            "rogue servers are reported and not dropped: port {} is trusted, but {} takes its VLAN tags off before the guard \
             sees them, so its servers cannot be told from rogues; switch that off with `ethtool -K {} rxvlan off`, or \
             guard it with `hook = \"tcx\"`",
            hidden.name, hidden.interface, hidden.interface
        ))
    }

    /// The port with this name.
    #[must_use]
    pub fn named(&self, name: &PortName) -> Option<&Port> {
        self.ports.get(*self.by_name.get(name)?)
    }

    /// The port in a slot.
    #[must_use]
    pub fn port(&self, slot: u32) -> Option<&Port> {
        self.ports.get(*self.by_slot.get(&slot)?)
    }
}

fn add_port(ports: &mut Vec<Port>, config: &Config, interface: &Interface, vlans: &[u16]) {
    let allows = |allow: &crate::config::Allow| allow.mac.is_none() && allow.is_on(&interface.name, vlans);
    ports.push(Port {
        slot: slot_of(ports.len()),
        ifindex: interface.ifindex,
        interface: interface.name.clone(),
        vlans: vlans.to_vec(),
        name: port_name(&interface.name, vlans),
        rules: config.rules_of(&interface.name, vlans),
        allowed: config.allowed.iter().any(allows),
    });
}

impl Port {
    fn key(&self) -> PortKey {
        let vlan = |place: usize| self.vlans.get(place).copied().unwrap_or(0);
        PortKey::new(self.ifindex, Vlans { outer: vlan(0), inner: vlan(1) })
    }
}

fn port_spec(port: &Port) -> PortSpec {
    let rules = &port.rules;
    PortSpec {
        key: port.key(),
        total: rules.total,
        strangers: rules.strangers,
        discover: rules.discover,
        new_clients: (rules.new_clients_per_s, rules.new_clients_per_s),
        client_v4: rules.client_v4,
        client_v6: rules.client_v6,
        trusted: rules.trusted,
        monitor: rules.mode == Mode::Monitor,
        allowed: port.allowed,
        drop_chaddr_mismatch: rules.drop_chaddr_mismatch,
    }
}

/// Rogue servers are dropped only where somebody said which ports are trusted: an uplink without configuration carries
/// the replies that the host and its guests live on. To be allowed is not to be trusted: an entry of the allowlist says
/// that someone is not to be policed, not that the servers are there and nowhere else.
fn host_spec(config: &Config, ports: &[Port]) -> HostSpec {
    let Host { rate_pps, burst, strangers_share_percent } = config.host;
    let total = (rate_pps, burst);
    HostSpec {
        limit: Some((total, share(total, strangers_share_percent))),
        drop_rogue_servers: config.rogue_servers == RogueServers::Drop && ports.iter().any(|port| port.rules.trusted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, dataplane::hook::Facts};

    fn interface(name: &str, ifindex: u32) -> Interface {
        Interface::bare(name, ifindex)
    }

    #[test]
    fn default_ports_come_first_and_vlans_keep_their_class() {
        let mut config = Config::default();
        config.ports = vec![
            config::Port {
                interface: "eth1".into(),
                vlans: vec![100, 20],
                class: Some("vm".into()),
                mode: Some(Mode::Monitor),
            },
            config::Port { interface: "elsewhere".into(), vlans: vec![5], class: None, mode: None },
        ];
        let plan = Plan::new(&config, vec![interface("eth0", 3), interface("eth1", 7)], false);
        let names: Vec<_> = plan.ports.iter().map(|p| (p.slot, p.name.as_str(), p.rules.class.as_str())).collect();
        assert_eq!(names, [(1, "eth0", "metal"), (2, "eth1", "metal"), (3, "eth1.100.20", "vm")]);
        assert_eq!(plan.port(3).map(|p| p.name.as_str()), Some("eth1.100.20"));
        assert_eq!((plan.port(0), plan.port(4)), (None, None));
        let vm = &plan.spec.policy.ports[2];
        assert_eq!(vm.key, PortKey { ifindex: 7, outer_vlan: 100, inner_vlan: 20 });
        assert_eq!((vm.total, vm.strangers, vm.discover), ((10, 50), (5, 25), None));
        assert_eq!((vm.client_v4, vm.client_v6, vm.new_clients), ((2, 20), (1, 20), (128, 128)));
        assert_eq!((vm.monitor, plan.spec.policy.ports[0].monitor), (true, false));
    }

    #[test]
    fn slots_are_the_data_planes_and_may_have_gaps() {
        let mut config = Config::default();
        let mac = Mac([2; 6]);
        config.known_clients = vec![config::KnownClient { interface: "tap1".into(), vlans: vec![], mac }];
        let mut plan =
            Plan::new(&config, vec![interface("tap0", 3), interface("tap1", 7), interface("tap2", 9)], false);
        let given = HashMap::from([(3, 40), (7, 2)]);
        plan.take_slots_from(|key| given.get(&key.ifindex).copied());
        let name = |slot| plan.port(slot).map(|port| port.name.as_str());
        assert_eq!([40, 2, 1, 3, NO_PORT_SLOT].map(name), [Some("tap0"), Some("tap1"), None, None, None]);
        assert_eq!(plan.configured, HashSet::from([ClientKey::from_mac(2, mac.0)]));
        let tap1 = PortName { interface: "tap1".into(), vlans: vec![] };
        assert_eq!(plan.named(&tap1).map(|port| port.slot), Some(2));
    }

    #[test]
    fn trusted_ports_and_known_clients_reach_the_data_plane() {
        let mut config = Config::default();
        config.ports = vec![config::Port {
            interface: "eth0".into(),
            vlans: vec![100],
            class: Some("trusted".into()),
            mode: None,
        }];
        let client = |interface: &str, vlans: &[u16], last| config::KnownClient {
            interface: interface.into(),
            vlans: vlans.to_vec(),
            mac: Mac([2, 0, 0, 0, 0, last]),
        };
        config.known_clients = vec![client("eth0", &[100], 1), client("elsewhere", &[], 2), client("eth1", &[], 3)];
        let plan = Plan::new(&config, vec![interface("eth0", 3), interface("eth1", 7)], false);
        let trusted: Vec<_> =
            plan.ports.iter().zip(&plan.spec.policy.ports).map(|(p, s)| (p.rules.trusted, s.trusted)).collect();
        assert_eq!(trusted, [(false, false), (false, false), (true, true)]);
        let key = |ifindex, outer_vlan| PortKey { ifindex, outer_vlan, inner_vlan: 0 };
        assert_eq!(plan.spec.known_clients, [(key(3, 100), [2, 0, 0, 0, 0, 1]), (key(7, 0), [2, 0, 0, 0, 0, 3])]);
        let configured = [ClientKey::from_mac(3, [2, 0, 0, 0, 0, 1]), ClientKey::from_mac(2, [2, 0, 0, 0, 0, 3])];
        assert_eq!(plan.configured, HashSet::from(configured));
    }

    #[test]
    fn the_classes_own_limits_reach_the_data_plane() {
        let config = Config { default_class: "strict".into(), ..Config::default() };
        let plan = Plan::new(&config, vec![interface("tap0", 3)], false);
        let strict = &plan.spec.policy.ports[0];
        assert_eq!((strict.total, strict.strangers, strict.discover), ((5, 20), (3, 10), Some((3, 10))));
        assert_eq!((strict.client_v4, strict.client_v6), ((1, 10), (1, 10)));
        assert!(strict.drop_chaddr_mismatch);
    }

    fn allow(interface: &str, mac: Option<[u8; 6]>) -> config::Allow {
        config::Allow { interface: interface.into(), vlans: vec![], mac: mac.map(Mac) }
    }

    #[test]
    fn allowed_ports_and_clients_reach_the_data_plane_and_nothing_else_is_allowed() {
        let allowed = vec![allow("eth1", None), allow("eth0", Some([2; 6])), allow("elsewhere", None)];
        let config = Config { allowed, ..Config::default() };
        let plan = Plan::new(&config, vec![interface("eth0", 3), interface("eth1", 7)], false);
        let allowed: Vec<_> = plan.spec.policy.ports.iter().map(|port| (port.key.ifindex, port.allowed)).collect();
        assert_eq!(allowed, [(3, false), (7, true)]);
        assert_eq!(plan.spec.allowed_clients, [(PortKey::default_of(3), [2; 6])]);
        assert!(plan.configured.is_empty(), "to be allowed is not to be known");
    }

    #[test]
    fn a_pattern_means_every_interface_that_matches_and_a_name_comes_before_it() {
        let text = "interfaces = ['tap*']
            [[port]]
            interface = 'tap*'
            class = 'vm'
            [[port]]
            interface = 'tap1'
            class = 'strict'
            [[port]]
            interface = 'tap?'
            vlans = [100]
            [[port]]
            interface = 'tap*'
            vlans = [100]
            [[known_client]]
            interface = 'tap*'
            mac = '02:00:00:00:00:01'
            [[known_client]]
            interface = 'tap0'
            vlans = [100]
            mac = '02:00:00:00:00:01'
            [[allow]]
            interface = '*'
            vlans = [100]";
        let config = Config::from_toml(text).unwrap();
        let plan = Plan::new(&config, vec![interface("tap0", 3), interface("tap1", 7)], false);
        let ports: Vec<_> = plan.ports.iter().map(|p| (p.name.as_str(), p.rules.class.as_str(), p.allowed)).collect();
        // A port of its own without a class has the default one.
        let expected = [
            ("tap0", "vm", false),
            ("tap1", "strict", false),
            ("tap0.100", "metal", true),
            ("tap1.100", "metal", true),
        ];
        assert_eq!(ports, expected);
        let known: Vec<_> = plan.spec.known_clients.iter().map(|(key, _)| (key.ifindex, key.outer_vlan)).collect();
        assert_eq!(known, [(3, 0), (7, 0), (3, 100)]);
    }

    #[test]
    fn the_host_has_a_budget() {
        let config = Config { host: Host { rate_pps: 9, burst: 30, strangers_share_percent: 50 }, ..Config::default() };
        let host = Plan::new(&config, vec![interface("eth0", 3)], false).spec.policy.host;
        assert_eq!(host.limit, Some(((9, 30), (5, 15))), "rounded up");
    }

    #[test]
    fn rogue_servers_are_dropped_once_a_guarded_port_is_trusted() {
        let mut config = Config::default();
        let drops =
            |config: &Config| Plan::new(config, vec![interface("eth0", 3)], false).spec.policy.host.drop_rogue_servers;
        assert!(!drops(&config), "nobody said where the servers are");
        config.allowed = vec![allow("eth0", Some([2; 6]))];
        assert!(!drops(&config), "nor does the allowlist");
        let trusted = |interface: &str| config::Port {
            interface: interface.into(),
            vlans: vec![100],
            class: Some("trusted".into()),
            mode: None,
        };
        config.ports = vec![trusted("elsewhere")];
        assert!(!drops(&config), "the trusted port is not guarded");
        config.ports.push(trusted("eth0"));
        assert!(drops(&config));
        config.rogue_servers = RogueServers::Report;
        assert!(!drops(&config));
    }

    #[test]
    fn servers_whose_vlan_tags_are_hidden_are_not_dropped_as_rogues() {
        let trusted = |vlans: &[u16]| config::Port {
            interface: "eth0".into(),
            vlans: vlans.into(),
            class: Some("trusted".into()),
            mode: None,
        };
        let facts = |strips_vlan_tags| Facts { strips_vlan_tags, has_tcx: true, ..Facts::default() };
        let interfaces = |stripping: &str| {
            let all = [interface("eth0", 3), interface("eth1", 7)].into_iter();
            all.map(|i| Interface { facts: facts(i.name == stripping), ..i }).collect::<Vec<_>>()
        };
        for (vlans, hook, stripping, drops) in [
            (&[100][..], Hook::Xdp, "eth0", false),
            (&[100][..], Hook::Xdp, "eth1", true),
            (&[][..], Hook::Xdp, "eth0", true),
            // It sees the tags.
            (&[100][..], Hook::Auto, "eth0", true),
        ] {
            let config = Config { ports: vec![trusted(vlans)], hook, ..Config::default() };
            let mut plan = Plan::new(&config, interfaces(stripping), false);
            let warning = plan.spare_hidden_servers();
            assert_eq!((warning.is_none(), plan.spec.policy.host.drop_rogue_servers), (drops, drops), "{vlans:?}");
        }
        let xdp = Config { hook: Hook::Xdp, ..Config::default() };
        assert_eq!(Plan::new(&xdp, interfaces("eth0"), false).spare_hidden_servers(), None, "nobody is trusted");
    }
}
