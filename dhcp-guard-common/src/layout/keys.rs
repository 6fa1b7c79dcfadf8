//! Keys: ports and clients, each in one word, so that comparing and hashing are one step.

use super::MAX_PORTS;
use crate::{
    hash::{self, Seeds},
    message::Sender,
    parse::{MAC_BITS, MacWord, Vlans},
};

/// What is policed and quarantined: an interface and a VLAN stack.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// Outer VLAN id, 0 for none.
    pub outer_vlan: u16,
    /// Inner VLAN id, 0 for none.
    pub inner_vlan: u16,
}

impl PortKey {
    /// The port of frames with these tags on this interface.
    #[must_use]
    #[inline(always)]
    pub const fn new(ifindex: u32, vlans: Vlans) -> Self {
        Self { ifindex, outer_vlan: vlans.outer, inner_vlan: vlans.inner }
    }

    /// The port for frames whose VLANs have none of their own.
    #[must_use]
    #[inline(always)]
    pub const fn default_of(ifindex: u32) -> Self {
        Self { ifindex, outer_vlan: 0, inner_vlan: 0 }
    }

    /// The same in one word.
    #[must_use]
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.ifindex as u64 | (self.outer_vlan as u64) << 32 | (self.inner_vlan as u64) << 48
    }

    /// From [`PortKey::word`].
    #[must_use]
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { ifindex: word as u32, outer_vlan: (word >> 32) as u16, inner_vlan: (word >> 48) as u16 }
    }

    /// What the filter of listed keys knows the port by: no client has such a key, because slots end before.
    #[must_use]
    #[inline(always)]
    pub const fn listed_as(self) -> u64 {
        !self.word()
    }
}

/// A client: a port's slot and who sent it.
///
/// Bits 0 to 47 are the source MAC, first byte lowest; bits 48 to 61 the slot; bit 63 is set for a client behind a relay,
/// whose lower 48 bits are a hash of the relay's and the client's address (both are in
/// [`ClientState`](super::ClientState)). 0 is nobody.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u64);

const ID_BITS: u32 = 48;
const SLOT_BITS: u32 = 14;
const SLOT: u32 = (1 << SLOT_BITS) - 1;
const RELAYED: u64 = 1 << 63;

impl ClientKey {
    /// The client with source MAC `mac` on the port in `slot`. Only the low 14 bits of the slot count.
    #[must_use]
    #[inline(always)]
    pub const fn new(slot: u32, mac: MacWord) -> Self {
        Self(mac & MAC_BITS).on(slot)
    }

    /// The client that sent a packet, on no port yet.
    #[must_use]
    #[inline(always)]
    pub const fn of(sender: Sender, seeds: Seeds) -> Self {
        if sender.relay == 0 {
            return Self(sender.client & MAC_BITS);
        }
        let relay = hash::mix(sender.relay, seeds);
        Self(RELAYED | hash::mix(relay ^ sender.client, seeds) >> (64 - ID_BITS))
    }

    /// The same client on the port in `slot`, for a key that is on no port yet.
    #[must_use]
    #[inline(always)]
    pub const fn on(self, slot: u32) -> Self {
        Self(self.0 | ((slot & SLOT) as u64) << ID_BITS)
    }

    /// The slot of the client's port.
    #[must_use]
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 >> ID_BITS) as u32 & SLOT
    }

    /// Whether it is behind a relay: then [`ClientKey::mac`] is a hash.
    #[must_use]
    #[inline(always)]
    pub const fn is_relayed(self) -> bool {
        self.0 & RELAYED != 0
    }

    /// The client's source MAC in transmission order.
    #[must_use]
    pub const fn mac(self) -> [u8; 6] {
        mac_of_word(self.0)
    }

    /// The client with a MAC in transmission order.
    #[must_use]
    pub const fn from_mac(slot: u32, mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self::new(slot, u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

/// The bytes, in transmission order, of a MAC in a word.
#[must_use]
pub const fn mac_of_word(word: MacWord) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = word.to_ne_bytes();
    [a, b, c, d, e, f]
}

const _: () = {
    assert!(size_of::<PortKey>() == 8 && align_of::<PortKey>() == 8);
    assert!(size_of::<ClientKey>() == 8);
    assert!(MAX_PORTS <= SLOT, "a slot has 14 bits in ClientKey");
};

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: Seeds = Seeds::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);

    #[test]
    fn client_key_keeps_slot_and_mac() {
        let mac = [0x02, 0x13, 0x57, 0x9b, 0xdf, 0xfe];
        let key = ClientKey::from_mac(0x2bef, mac);
        assert_eq!((key.slot(), key.mac(), key.is_relayed()), (0x2bef, mac, false));
    }

    #[test]
    fn relayed_clients_differ_by_relay_and_by_client() {
        let key = |relay, client| ClientKey::of(Sender { relay, client, chaddr_differs: false }, SEEDS).on(7);
        let all = [key(Sender::RELAY_V4 | 1, 5), key(Sender::RELAY_V4 | 2, 5), key(Sender::RELAY_V4 | 1, 6), key(0, 5)];
        for (i, one) in all.iter().enumerate() {
            assert_eq!(one.slot(), 7);
            assert_eq!(one.is_relayed(), i < 3);
            assert!(all[i + 1..].iter().all(|other| other != one));
        }
    }

    #[test]
    fn a_port_in_a_word_is_no_client() {
        let port = PortKey { ifindex: 3, outer_vlan: 4094, inner_vlan: 20 };
        assert_eq!(port.word(), 3 | 4094 << 32 | 20 << 48);
        assert_eq!(PortKey::from_word(port.word()), port);
        assert!(ClientKey(port.listed_as()).slot() > MAX_PORTS);
    }
}
