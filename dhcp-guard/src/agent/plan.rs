//! From the configuration and the interfaces that exist to ports with slots and limits.

use dhcp_guard_common::{layout::PortKey, parse::Vlans};

use crate::{
    config::{Config, port_name},
    dataplane::{HostSpec, Policy, PortSpec, Spec, interface::Interface, load::slot_of},
    model::Mode,
};

/// A port as the agent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its slot in the maps.
    pub slot: u32,
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// Interface name.
    pub interface: String,
    /// VLAN ids, outer first.
    pub vlans: Vec<u16>,
    /// Interface and VLANs, joined by dots.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Only the port's own limit applies.
    pub trusted: bool,
    /// Enforce or monitor.
    pub mode: Mode,
    /// Packets a second.
    pub rate_pps: u32,
    /// Packets in a burst.
    pub burst: u32,
    /// Packets a second of strangers together.
    pub strangers_pps: u32,
}

/// Everything that is guarded.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The interfaces, in the configuration's order.
    pub interfaces: Vec<Interface>,
    /// The ports, in the order of their slots.
    pub ports: Vec<Port>,
    /// What the data plane needs to know of it.
    pub spec: Spec,
}

impl Plan {
    /// Each interface's default port first, then the configured ones on VLANs.
    #[must_use]
    pub fn new(config: &Config, interfaces: Vec<Interface>, debug_kernel: bool) -> Self {
        let mut ports = Vec::new();
        for interface in &interfaces {
            add_port(&mut ports, config, interface, &[]);
        }
        for port in config.ports.iter().filter(|port| !port.vlans.is_empty()) {
            if let Some(interface) = interfaces.iter().find(|i| i.name == port.interface) {
                add_port(&mut ports, config, interface, &port.vlans);
            }
        }
        let known_clients = config
            .known_clients
            .iter()
            .filter_map(|client| {
                let port = ports.iter().find(|p| p.interface == client.interface && p.vlans == client.vlans)?;
                Some((key_of(port), client.mac.0))
            })
            .collect();
        let spec = Spec {
            policy: Policy {
                ports: ports.iter().map(|port| port_spec(config, port)).collect(),
                host: HostSpec::default(),
            },
            known_clients,
            allowed_clients: Vec::new(),
            port_capacity: config.capacity.ports,
            known_capacity: config.capacity.known_clients,
            stranger_capacity: config.capacity.strangers,
            debug_kernel,
        };
        Self { interfaces, ports, spec }
    }

    /// The port in a slot.
    #[must_use]
    pub fn port(&self, slot: u32) -> Option<&Port> {
        let first = self.ports.first()?.slot;
        self.ports.get(usize::try_from(slot.checked_sub(first)?).ok()?)
    }
}

fn add_port(ports: &mut Vec<Port>, config: &Config, interface: &Interface, vlans: &[u16]) {
    let (class_name, class) = config.class_of(&interface.name, vlans);
    ports.push(Port {
        slot: slot_of(ports.len()),
        ifindex: interface.ifindex,
        interface: interface.name.clone(),
        vlans: vlans.to_vec(),
        name: port_name(&interface.name, vlans),
        class: class_name.to_owned(),
        trusted: class.trusted,
        mode: config.mode_of(&interface.name, vlans),
        rate_pps: class.rate_pps,
        burst: class.burst,
        strangers_pps: strangers_share(config, class.rate_pps),
    });
}

/// The strangers' part of a rate or a burst, rounded up: never nothing.
fn strangers_share(config: &Config, whole: u32) -> u32 {
    let share = u64::from(whole) * u64::from(config.limits.strangers_share_percent);
    u32::try_from(share.div_ceil(100)).unwrap_or(whole)
}

fn key_of(port: &Port) -> PortKey {
    let vlan = |place: usize| port.vlans.get(place).copied().unwrap_or(0);
    PortKey::new(port.ifindex, Vlans { outer: vlan(0), inner: vlan(1) })
}

fn port_spec(config: &Config, port: &Port) -> PortSpec {
    let limits = &config.limits;
    PortSpec {
        key: key_of(port),
        total: (port.rate_pps, port.burst),
        strangers: (port.strangers_pps, strangers_share(config, port.burst)),
        new_clients: (limits.new_clients_per_s, limits.new_clients_per_s),
        discover: None,
        client_v4: (limits.client_rate_pps, limits.client_burst),
        client_v6: (limits.client_rate_pps, limits.client_burst),
        trusted: port.trusted,
        monitor: port.mode == Mode::Monitor,
        allowed: false,
        drop_chaddr_mismatch: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn interface(name: &str, ifindex: u32) -> Interface {
        Interface { name: name.into(), ifindex, up: true, xdp_program: None }
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
        let names: Vec<_> = plan.ports.iter().map(|p| (p.slot, p.name.as_str(), p.class.as_str())).collect();
        assert_eq!(names, [(1, "eth0", "metal"), (2, "eth1", "metal"), (3, "eth1.100.20", "vm")]);
        assert_eq!(plan.port(3).map(|p| p.name.as_str()), Some("eth1.100.20"));
        assert_eq!((plan.port(0), plan.port(4)), (None, None));
        let vm = &plan.spec.policy.ports[2];
        assert_eq!(vm.key, PortKey { ifindex: 7, outer_vlan: 100, inner_vlan: 20 });
        assert_eq!((vm.total, vm.strangers, vm.client_v4), ((10, 50), (5, 25), (2, 20)));
        assert_eq!((vm.monitor, plan.spec.policy.ports[0].monitor), (true, false));
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
            mac: crate::mac::Mac([2, 0, 0, 0, 0, last]),
        };
        config.known_clients = vec![client("eth0", &[100], 1), client("elsewhere", &[], 2), client("eth1", &[], 3)];
        let plan = Plan::new(&config, vec![interface("eth0", 3), interface("eth1", 7)], false);
        let trusted: Vec<_> =
            plan.ports.iter().zip(&plan.spec.policy.ports).map(|(p, s)| (p.trusted, s.trusted)).collect();
        assert_eq!(trusted, [(false, false), (false, false), (true, true)]);
        let key = |ifindex, outer_vlan| PortKey { ifindex, outer_vlan, inner_vlan: 0 };
        assert_eq!(plan.spec.known_clients, [(key(3, 100), [2, 0, 0, 0, 0, 1]), (key(7, 0), [2, 0, 0, 0, 0, 3])]);
    }
}
