//! Who a client is, in the words of people: its MAC, and the relay it is behind.

use std::{
    collections::HashMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use dhcp_guard_common::{
    layout::{ClientKey, ClientState, mac_of_word},
    message::Sender,
};

use serde::{Deserialize, Serialize};

use crate::{dataplane::Snapshot, mac::Mac};

/// What a relayed client's key is a hash of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Behind {
    /// [`Sender::relay`].
    pub relay: u64,
    /// [`Sender::client`].
    pub client: u64,
}

/// The relayed clients that were read, by key.
#[derive(Clone, Debug, Default)]
pub struct Relayed(HashMap<ClientKey, Behind>);

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// It sends for itself, from this MAC.
    Direct(Mac),
    /// Behind the DHCPv4 relay with this gateway address (giaddr), with this hardware address (chaddr).
    BehindV4(Ipv4Addr, Mac),
    /// Behind a DHCPv6 relay, with this lower half of its address.
    BehindV6([u8; 8]),
    /// Behind some relay; not read yet.
    BehindSome,
}

impl Relayed {
    /// Adds those of a reading, and lets go of those that `is_tracked` does not have any more.
    pub fn update(&mut self, snapshot: &Snapshot, is_tracked: impl Fn(ClientKey) -> bool) {
        self.0.retain(|key, _| is_tracked(*key));
        let relayed = snapshot.clients.iter().filter(|client| client.key.is_relayed());
        self.0.extend(relayed.map(|client| (client.key, Behind::of(&client.state))));
    }

    /// What this key is a hash of, if it was read.
    #[must_use]
    pub fn behind(&self, key: ClientKey) -> Option<Behind> {
        self.0.get(&key).copied()
    }

    /// Who has this key.
    #[must_use]
    pub fn who(&self, key: ClientKey) -> Who {
        if !key.is_relayed() {
            return Who::Direct(Mac(key.mac()));
        }
        self.0.get(&key).map_or(Who::BehindSome, |behind| behind.who())
    }
}

impl Behind {
    fn of(state: &ClientState) -> Self {
        Self { relay: state.relay, client: state.client }
    }

    /// The same in the words of people.
    #[must_use]
    pub fn who(self) -> Who {
        if self.relay & Sender::RELAY_V6 != 0 {
            return Who::BehindV6(self.client.to_ne_bytes());
        }
        // As it stands in memory, so its bytes are in the order of the wire.
        let gateway = (self.relay & u64::from(u32::MAX)) as u32;
        Who::BehindV4(Ipv4Addr::from(gateway.to_ne_bytes()), Mac(mac_of_word(self.client)))
    }
}

impl Who {
    /// Its MAC, as far as it can be told: behind a DHCPv6 relay only from an address that was made of it (EUI-64, RFC 4291
    /// appendix A).
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        match *self {
            Self::Direct(mac) | Self::BehindV4(_, mac) => Some(mac),
            Self::BehindV6([a, b, c, 0xff, 0xfe, d, e, f]) => Some(Mac([a ^ 2, b, c, d, e, f])),
            Self::BehindV6(_) | Self::BehindSome => None,
        }
    }

    /// Its MAC, if its own frames say so. Whoever claims to be a relay can name any machine as its client.
    #[must_use]
    pub fn source(&self) -> Option<Mac> {
        match *self {
            Self::Direct(mac) => Some(mac),
            Self::BehindV4(..) | Self::BehindV6(_) | Self::BehindSome => None,
        }
    }

    /// Its relay: the gateway address, or `dhcpv6`; none: it sends for itself.
    #[must_use]
    pub fn relay(&self) -> Option<String> {
        match self {
            Self::Direct(_) => None,
            Self::BehindV4(gateway, _) => Some(gateway.to_string()),
            Self::BehindV6(_) => Some("dhcpv6".to_owned()),
            Self::BehindSome => Some("unknown".to_owned()),
        }
    }

    /// For DHCPv6 through a relay: the lower half of its address there, as `::213:57ff:fe9b:dffe`.
    #[must_use]
    pub fn peer(&self) -> Option<String> {
        match self {
            Self::BehindV6(half) => {
                let [a, b, c, d, e, f, g, h] = *half;
                Some(Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h]).to_string())
            }
            _ => None,
        }
    }
}

/// For sentences: `02:13:57:9b:df:fe behind relay 10.0.0.1`.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(mac) => mac.fmt(f),
            Self::BehindV4(gateway, mac) => write!(f, "{mac} behind relay {gateway}"),
            Self::BehindV6(_) => match (self.mac(), self.peer()) {
                (Some(mac), _) => write!(f, "{mac} behind a DHCPv6 relay"),
                (None, peer) => write!(f, "{} behind a DHCPv6 relay", peer.unwrap_or_default()),
            },
            Self::BehindSome => f.write_str("a client behind a relay"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dhcp_guard_common::{hash::Seeds, layout::Troubles};
    use jiff::Timestamp;

    use super::*;
    use crate::dataplane::{clock::Moment, snapshot::ClientSample};

    const MAC: [u8; 6] = [0x02, 0x13, 0x57, 0x9b, 0xdf, 0xfe];

    fn sender(relay: u64, client: u64) -> Sender {
        Sender { relay, client, chaddr_differs: false }
    }

    fn v4() -> Sender {
        sender(Sender::RELAY_V4 | u64::from(u32::from_ne_bytes([10, 0, 0, 1])), ClientKey::from_mac(0, MAC).0)
    }

    fn v6(half: [u8; 8]) -> Sender {
        sender(Sender::RELAY_V6 | 0x1234_5678_9abc, u64::from_ne_bytes(half))
    }

    /// The sender's key, and what is read of it.
    fn read(sender: Sender) -> (ClientKey, Snapshot) {
        let key = ClientKey::of(sender, Seeds::new([3, 5])).on(1);
        let state = ClientState { relay: sender.relay, client: sender.client, ..ClientState::default() };
        let moment = Moment { wall: Timestamp::UNIX_EPOCH, monotonic: Duration::ZERO, ticks: 0, ticks_per_s: 250 };
        let snapshot = Snapshot {
            moment,
            ports: vec![],
            distinct: vec![],
            received: HashMap::new(),
            replies: vec![],
            server_messages: 0,
            clients: vec![ClientSample { key, known: false, state }],
            troubles: Troubles::default(),
        };
        (key, snapshot)
    }

    fn who(sender: Sender) -> Who {
        let (key, snapshot) = read(sender);
        let mut relayed = Relayed::default();
        relayed.update(&snapshot, |_| true);
        relayed.who(key)
    }

    #[test]
    fn a_client_that_sends_for_itself_is_its_mac() {
        let who = Relayed::default().who(ClientKey::from_mac(1, MAC));
        assert_eq!((who.mac(), who.relay(), who.peer()), (Some(Mac(MAC)), None, None));
        assert_eq!(who.to_string(), "02:13:57:9b:df:fe");
    }

    #[test]
    fn a_client_behind_a_dhcpv4_relay_is_its_hardware_address() {
        let who = who(v4());
        assert_eq!((who.mac(), who.relay().as_deref(), who.peer()), (Some(Mac(MAC)), Some("10.0.0.1"), None));
        assert_eq!(who.to_string(), "02:13:57:9b:df:fe behind relay 10.0.0.1");
    }

    #[test]
    fn a_client_behind_a_dhcpv6_relay_is_its_address_and_the_mac_in_it() {
        let who_eui = who(v6([0x00, 0x13, 0x57, 0xff, 0xfe, 0x9b, 0xdf, 0xfe]));
        assert_eq!((who_eui.mac(), who_eui.relay().as_deref()), (Some(Mac(MAC)), Some("dhcpv6")));
        assert_eq!(who_eui.peer().as_deref(), Some("::13:57ff:fe9b:dffe"));
        assert_eq!(who_eui.to_string(), "02:13:57:9b:df:fe behind a DHCPv6 relay");
        let private = who(v6([0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4]));
        assert_eq!(private.mac(), None);
        assert_eq!(private.to_string(), "::dead:beef:102:304 behind a DHCPv6 relay");
    }

    #[test]
    fn relayed_clients_are_remembered_while_they_are_tracked() {
        let (key, snapshot) = read(v4());
        let mut relayed = Relayed::default();
        assert_eq!(relayed.who(key), Who::BehindSome);
        relayed.update(&snapshot, |_| true);
        let empty = Snapshot { clients: vec![], ..snapshot };
        relayed.update(&empty, |tracked| tracked == key);
        assert_ne!(relayed.who(key), Who::BehindSome);
        relayed.update(&empty, |_| false);
        assert_eq!(relayed.who(key), Who::BehindSome);
    }
}
