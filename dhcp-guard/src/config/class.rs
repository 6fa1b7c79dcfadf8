//! Port classes: what a kind of port may send, and what it has of its own instead of the general limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{ActuatorName, AutoQuarantine};
use crate::model::Mode;

/// A port class. What is an option here and not set is as in [`Limits`](super::Limits), or as the agent's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// DHCP packets a second that the port may send; 1 to 1,000,000.
    pub rate_pps: u32,
    /// And in one burst; 1 to 1,000,000.
    pub burst: u32,
    /// DHCP servers, relays, uplinks towards them: only the port's own limit applies.
    #[serde(default)]
    pub trusted: bool,
    /// Enforce or monitor.
    pub mode: Option<Mode>,
    /// DHCPv4 packets a second that one client may send; 1 to 1,000,000.
    pub client_rate_pps: Option<u32>,
    /// And in one burst; 1 to 1,000,000.
    pub client_burst: Option<u32>,
    /// DHCPv6 packets a second that one client may send; 1 to 1,000,000.
    pub client_v6_rate_pps: Option<u32>,
    /// And in one burst; 1 to 1,000,000.
    pub client_v6_burst: Option<u32>,
    /// What strangers together may take of the port's limit; 1 to 100.
    pub strangers_share_percent: Option<u32>,
    /// What DISCOVERs and Solicits may take of the port's limit; 1 to 100, 100: all of it.
    pub discover_share_percent: Option<u32>,
    /// New MACs a second that are counted one by one; 1 to 100,000.
    pub new_clients_per_s: Option<u32>,
    /// Drop a message that names another hardware address than the frame it came in.
    #[serde(default)]
    pub drop_chaddr_mismatch: bool,
    /// What automatic quarantine may do here.
    #[serde(default)]
    pub quarantine: AutoQuarantine,
    /// What a quarantine sets in motion beside the data plane.
    #[serde(default)]
    pub actuators: Vec<ActuatorName>,
}

impl Class {
    pub(super) fn with_rate(rate_pps: u32, burst: u32) -> Self {
        Self { rate_pps, burst, ..Self::default() }
    }

    /// For virtual machines: libvirt's limit for DHCP.
    pub(super) fn vm() -> Self {
        Self::with_rate(10, 50)
    }

    /// For physical machines: 250 nested virtual machines booting at once stay below it.
    pub(super) fn metal() -> Self {
        Self::with_rate(50, 250)
    }

    /// For DHCP servers and relays, which aggregate many clients.
    pub(super) fn trusted() -> Self {
        Self { trusted: true, ..Self::with_rate(1000, 1000) }
    }

    /// For one machine that should send next to nothing.
    ///
    /// Such a machine has one MAC, so its hardware address is the frame's, and a difference is a forgery. A boot takes two
    /// or three programs in turn (firmware, loader, system) with a DISCOVER and a REQUEST each and a retry or two: ten
    /// packets, within the burst of 10 of one client; later it renews, hours apart. With DISCOVERs held to half, its
    /// renewals get through while it loops in looking for a server.
    pub(super) fn strict() -> Self {
        Self {
            client_rate_pps: Some(1),
            client_burst: Some(10),
            client_v6_rate_pps: Some(1),
            client_v6_burst: Some(10),
            discover_share_percent: Some(50),
            drop_chaddr_mismatch: true,
            ..Self::with_rate(5, 20)
        }
    }

    /// Which keys a trusted class has set in vain: nothing but its own limit applies, and no quarantine is automatic.
    pub(super) fn without_effect(&self) -> Vec<&'static str> {
        if !self.trusted {
            return Vec::new();
        }
        let keys = [
            ("client_rate_pps", self.client_rate_pps.is_some()),
            ("client_burst", self.client_burst.is_some()),
            ("client_v6_rate_pps", self.client_v6_rate_pps.is_some()),
            ("client_v6_burst", self.client_v6_burst.is_some()),
            ("strangers_share_percent", self.strangers_share_percent.is_some()),
            ("discover_share_percent", self.discover_share_percent.is_some()),
            ("new_clients_per_s", self.new_clients_per_s.is_some()),
            ("drop_chaddr_mismatch", self.drop_chaddr_mismatch),
            ("quarantine", self.quarantine == AutoQuarantine::Isolate),
        ];
        keys.into_iter().filter(|(_, set)| *set).map(|(key, _)| key).collect()
    }
}

pub(super) fn built_in() -> BTreeMap<String, Class> {
    let classes =
        [("vm", Class::vm()), ("metal", Class::metal()), ("strict", Class::strict()), ("trusted", Class::trusted())];
    classes.map(|(name, class)| (name.to_owned(), class)).into()
}

/// The built-in classes, and over them those of the file.
pub(super) fn over_built_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Class>, D::Error> {
    let mut classes = built_in();
    classes.extend(BTreeMap::<String, Class>::deserialize(deserializer)?);
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_classes_are_these() {
        let classes = built_in();
        assert_eq!(classes.keys().collect::<Vec<_>>(), ["metal", "strict", "trusted", "vm"]);
        let of = |name: &str| (classes[name].rate_pps, classes[name].burst, classes[name].trusted);
        assert_eq!(
            ["vm", "metal", "strict", "trusted"].map(of),
            [(10, 50, false), (50, 250, false), (5, 20, false), (1000, 1000, true)]
        );
        assert!(classes.values().all(|class| class.mode.is_none() && class.without_effect().is_empty()));
    }

    #[test]
    fn strict_alone_drops_forged_hardware_addresses() {
        let strict: Vec<_> = built_in().into_iter().filter(|(_, class)| class.drop_chaddr_mismatch).collect();
        assert_eq!(strict, [("strict".to_owned(), Class::strict())]);
    }

    #[test]
    fn what_a_trusted_class_sets_in_vain_is_named() {
        let mut class = Class { client_burst: Some(3), drop_chaddr_mismatch: true, ..Class::trusted() };
        assert_eq!(class.without_effect(), ["client_burst", "drop_chaddr_mismatch"]);
        class.quarantine = AutoQuarantine::Isolate;
        assert_eq!(class.without_effect(), ["client_burst", "drop_chaddr_mismatch", "quarantine"]);
        class.trusted = false;
        assert!(class.without_effect().is_empty());
    }
}
