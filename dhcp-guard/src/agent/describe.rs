//! The sentences of events.

use dhcp_guard_common::layout::{
    EVENT_CLIENT_OVER_LIMIT, EVENT_HOST_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, EVENT_ROGUE_SERVER, EVENT_UNKNOWN_VLAN,
    Event as KernelEvent,
};

use super::plan::Port;
use crate::{
    config::{Detection, port_name},
    engine::Change,
    model::{EventKind, Mode},
    who::Who,
};

/// The VLANs of the frame that an event is about, outer first.
#[must_use]
pub fn vlans_of(event: &KernelEvent) -> Vec<u16> {
    [event.port.outer_vlan, event.port.inner_vlan].into_iter().filter(|vlan| *vlan != 0).collect()
}

/// The sentence for a kernel event; None for one that this version does not know.
#[must_use]
pub fn kernel_event(
    event: &KernelEvent,
    port: &Port,
    who: Who,
    drops_rogue_servers: bool,
) -> Option<(EventKind, String)> {
    let name = &port.name;
    let done = match port.rules.mode {
        Mode::Enforce => "is dropped",
        Mode::Monitor => "would be dropped (monitor mode)",
    };
    Some(match event.kind {
        EVENT_CLIENT_OVER_LIMIT => {
            (EventKind::ClientOverLimit, format!("{who} on port {name} is over its limit: the excess {done}"))
        }
        EVENT_PORT_OVER_LIMIT => (
            EventKind::PortOverLimit,
            format!("port {name} is over what it, or strangers on it, may send: the excess {done}; latest from {who}"),
        ),
        EVENT_ROGUE_SERVER => {
            let done = if drops_rogue_servers { done } else { "passes" };
            let message =
                format!("{who} on port {name} sends as a DHCP server, and the port is not trusted: it {done}");
            (EventKind::RogueServer, message)
        }
        EVENT_UNKNOWN_VLAN => {
            let tagged = port_name(&port.interface, &vlans_of(event));
            let message = format!(
                "DHCP from {who} arrives as {tagged}, which is no port of its own: counted for port {name}; add a \
                 [[port]] to the configuration to give it its own limits"
            );
            (EventKind::UnknownVlan, message)
        }
        EVENT_HOST_OVER_LIMIT => (
            EventKind::HostOverLimit,
            format!(
                "the host's untrusted ports, or strangers on them, are over what they may send together: the excess \
                 {done}; latest from {who} on port {name}"
            ),
        ),
        _ => return None,
    })
}

/// The sentence for somebody who became an offender or recovered; `who`: none for the port as a whole.
#[must_use]
pub fn change(change: Change, port: &Port, who: Option<Who>, detection: &Detection) -> (EventKind, String) {
    let (name, rules) = (&port.name, &port.rules);
    let subject = who.map_or_else(|| "the port as a whole".to_owned(), |who| who.to_string());
    match change {
        Change::Offends => {
            let limit = match who {
                Some(_) => format!("limit of {} pps (DHCPv6: {} pps)", rules.client_v4.0, rules.client_v6.0),
                None => format!("limit of {} pps, or strangers over their {}", rules.total.0, rules.strangers.0),
            };
            let windows = detection.offender_windows;
            let what = format!("has been over its {limit}, in {windows} windows of a second running");
            (EventKind::OffenderFound, format!("{subject} on port {name} {what}"))
        }
        Change::Recovers => {
            let quiet = detection.recover_after_s;
            (EventKind::OffenderRecovered, format!("{subject} on port {name} has kept to its limit for {quiet} s"))
        }
    }
}

#[cfg(test)]
mod tests {
    use dhcp_guard_common::layout::PortKey;

    use super::*;
    use crate::{config::Config, mac::Mac};

    const WHO: Who = Who::Direct(Mac([2, 0, 0, 0, 0, 1]));

    fn port(mode: Mode) -> Port {
        let mut rules = Config::default().rules_of("eth0", &[]);
        rules.mode = mode;
        Port {
            slot: 1,
            ifindex: 3,
            interface: "eth0".into(),
            vlans: vec![],
            name: "eth0".into(),
            rules,
            allowed: false,
        }
    }

    fn event(kind: u32) -> KernelEvent {
        let port = PortKey { ifindex: 3, outer_vlan: 100, inner_vlan: 20 };
        KernelEvent { kind, slot: 1, at: 0, client: 0, port }
    }

    #[test]
    fn a_rogue_server_s_event_says_what_becomes_of_it() {
        let sentence = |mode, drops| {
            let (kind, message) = kernel_event(&event(EVENT_ROGUE_SERVER), &port(mode), WHO, drops).unwrap();
            assert_eq!(kind, EventKind::RogueServer);
            message.rsplit_once(": ").map(|(_, end)| end.to_owned()).unwrap()
        };
        assert_eq!(sentence(Mode::Enforce, true), "it is dropped");
        assert_eq!(sentence(Mode::Monitor, true), "it would be dropped (monitor mode)");
        assert_eq!(sentence(Mode::Enforce, false), "it passes");
    }

    #[test]
    fn every_event_has_a_sentence_and_unknown_ones_have_none() {
        for kind in EVENT_CLIENT_OVER_LIMIT..=EVENT_HOST_OVER_LIMIT {
            let (_, message) = kernel_event(&event(kind), &port(Mode::Enforce), WHO, false).unwrap();
            assert!(message.contains("02:00:00:00:00:01"), "{message}");
        }
        assert_eq!(kernel_event(&event(EVENT_HOST_OVER_LIMIT + 1), &port(Mode::Enforce), WHO, false), None);
        let (_, message) = kernel_event(&event(EVENT_UNKNOWN_VLAN), &port(Mode::Enforce), WHO, false).unwrap();
        assert!(message.contains("arrives as eth0.100.20,"), "{message}");
    }

    #[test]
    fn an_offender_s_event_names_the_limits_of_its_port() {
        let detection = Config::default().detection;
        let (kind, message) = change(Change::Offends, &port(Mode::Enforce), Some(WHO), &detection);
        assert_eq!(kind, EventKind::OffenderFound);
        assert!(message.contains("limit of 2 pps (DHCPv6: 1 pps), in 3 windows"), "{message}");
        let (_, message) = change(Change::Offends, &port(Mode::Enforce), None, &detection);
        assert!(message.contains("limit of 50 pps, or strangers over their 25,"), "{message}");
    }
}
