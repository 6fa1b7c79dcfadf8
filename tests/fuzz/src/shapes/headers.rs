//! Everything in front of a DHCP message, written by `etherparse`.

use dhcp_guard_common::parse::{Family, Towards};
use etherparse::{
    EtherType, Ethernet2Header, IpAuthHeader, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header,
    Ipv6RawExtHeader, SingleVlanHeader, UdpHeader, VlanId,
};

/// Who sends all of them.
pub const SENDER: [u8; 6] = [2, 0, 0, 0x5e, 0x10, 1];

/// A VLAN tag: protocol identifier and id.
pub type Tag = (u16, u16);

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options, so many bytes longer than eight.
    HopByHop(usize),
    /// Routing, so many bytes longer than eight.
    Routing(usize),
    /// Destination options, so many bytes longer than eight.
    Destination(usize),
    /// A fragment: its offset in units of eight bytes, and whether more follow.
    Fragment(u16, bool),
    /// Authentication, with an integrity check value of so many bytes.
    Authentication(usize),
}

/// The network layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4 {
        /// Bytes of options: a multiple of four, 40 at most.
        options: usize,
        /// Fragment offset in units of eight bytes, and whether more fragments follow.
        fragment: (u16, bool),
    },
    /// IPv6 with these extension headers.
    V6(Vec<Extension>),
}

/// A datagram in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// VLAN tags, the outer one first.
    pub tags: Vec<Tag>,
    /// IPv4 or IPv6.
    pub network: Network,
    /// UDP destination port.
    pub port: u16,
    /// What UDP carries.
    pub payload: Vec<u8>,
}

impl Shape {
    /// A message with nothing special about it.
    #[must_use]
    pub fn plain(family: Family, towards: Towards, payload: &[u8]) -> Self {
        let network = match family {
            Family::V4 => Network::V4 { options: 0, fragment: (0, false) },
            Family::V6 => Network::V6(Vec::new()),
        };
        let port = match (family, towards) {
            (Family::V4, Towards::Server) => 67,
            (Family::V4, Towards::Client) => 68,
            (Family::V6, Towards::Server) => 547,
            (Family::V6, Towards::Client) => 546,
        };
        Self { tags: Vec::new(), network, port, payload: payload.to_vec() }
    }

    /// The bytes on the wire.
    ///
    /// # Panics
    /// If a field does not fit its place in a header.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.link();
        let udp_len = UdpHeader::LEN + self.payload.len();
        match &self.network {
            Network::V4 { options, fragment } => bytes.extend(ipv4(*options, *fragment, udp_len)),
            Network::V6(extensions) => bytes.extend(ipv6(extensions, udp_len)),
        }
        let udp = UdpHeader::without_ipv4_checksum(self.port ^ 1, self.port, self.payload.len());
        bytes.extend(udp.expect("a payload of less than 64 KiB").to_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn link(&self) -> Vec<u8> {
        let network = match self.network {
            Network::V4 { .. } => EtherType::IPV4,
            Network::V6(_) => EtherType::IPV6,
        };
        // Each header names the one behind it.
        let mut types = self.tags.iter().map(|(tpid, _)| EtherType(*tpid)).chain([network]);
        let mut ether_type = || types.next().expect("one type more than tags");
        let ethernet = Ethernet2Header { source: SENDER, destination: [0xff; 6], ether_type: ether_type() };
        let mut bytes = ethernet.to_bytes().to_vec();
        for (_, id) in &self.tags {
            let vlan_id = VlanId::try_new(*id).expect("a VLAN id of 12 bits");
            let tag = SingleVlanHeader { vlan_id, ether_type: ether_type(), ..SingleVlanHeader::default() };
            bytes.extend(tag.to_bytes());
        }
        bytes
    }
}

fn ipv4(options: usize, (offset, more): (u16, bool), payload: usize) -> Vec<u8> {
    let payload = u16::try_from(payload).expect("a payload of less than 64 KiB");
    let mut ip = Ipv4Header::new(payload, 64, IpNumber::UDP, [0; 4], [255; 4]).expect("a payload of less than 64 KiB");
    // "No operation", option type 1.
    ip.options = vec![1; options][..].try_into().expect("IPv4 options in words of four bytes, 40 at most");
    ip.set_payload_len(payload.into()).expect("a payload of less than 64 KiB");
    ip.dont_fragment = false;
    ip.fragment_offset = IpFragOffset::try_new(offset).expect("a fragment offset of 13 bits");
    ip.more_fragments = more;
    ip.to_bytes().to_vec()
}

fn ipv6(extensions: &[Extension], payload: usize) -> Vec<u8> {
    let (next_header, headers) = in_front_of(IpNumber::UDP, extensions);
    let mut ip = Ipv6Header { next_header, hop_limit: 1, ..Ipv6Header::default() };
    ip.set_payload_length(headers.len() + payload).expect("a payload of less than 64 KiB");
    [&ip.to_bytes()[..], &headers].concat()
}

/// Extension headers in front of this protocol: the number of the first one, and their bytes.
#[must_use]
pub fn in_front_of(protocol: IpNumber, extensions: &[Extension]) -> (IpNumber, Vec<u8>) {
    // Each names the one behind it.
    let numbers = extensions.iter().map(Extension::number).chain([protocol]);
    let headers = extensions.iter().zip(numbers.clone().skip(1)).flat_map(|(e, next)| e.bytes(next)).collect();
    (numbers.clone().next().unwrap_or(protocol), headers)
}

impl Extension {
    const fn number(&self) -> IpNumber {
        match self {
            Self::HopByHop(_) => IpNumber::IPV6_HEADER_HOP_BY_HOP,
            Self::Routing(_) => IpNumber::IPV6_ROUTE_HEADER,
            Self::Destination(_) => IpNumber::IPV6_DESTINATION_OPTIONS,
            Self::Fragment(..) => IpNumber::IPV6_FRAGMENTATION_HEADER,
            Self::Authentication(_) => IpNumber::AUTHENTICATION_HEADER,
        }
    }

    fn bytes(&self, next: IpNumber) -> Vec<u8> {
        match *self {
            Self::HopByHop(more) | Self::Routing(more) | Self::Destination(more) => {
                // Zeros: padding (RFC 8200 section 4.2), or routing type 0 with no segments left.
                let header = Ipv6RawExtHeader::new_raw(next, &vec![0; 6 + more]);
                header.expect("a length that is a multiple of eight").to_bytes().to_vec()
            }
            Self::Fragment(offset, more) => {
                let offset = IpFragOffset::try_new(offset).expect("a fragment offset of 13 bits");
                Ipv6FragmentHeader::new(next, offset, more, 7).to_bytes().to_vec()
            }
            Self::Authentication(len) => {
                let header = IpAuthHeader::new(next, 1, 2, &vec![3; len]);
                header.expect("a length that is a multiple of four").to_bytes().to_vec()
            }
        }
    }
}
