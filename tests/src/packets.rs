//! Frames, built by stacks that are not ours: `etherparse` for the headers, `dhcproto` for the messages.
//!
//! ```
//! use tests::{mac::Mac, packets::{Tag, discover}};
//! let frame = discover(Mac::machine(0)).tagged(&[Tag::s(100), Tag::c(20)]).bytes();
//! assert_eq!(frame[12..14], [0x88, 0xa8]);
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use dhcproto::{Encodable as _, v4, v6};
use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, SingleVlanHeader, UdpHeader, VlanId,
    VlanPcp,
};

pub use fuzz::shapes::headers::Extension;
use fuzz::shapes::headers::in_front_of;

use crate::mac::Mac;

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Protocol identifier: 0x8100, 0x88a8, 0x9100.
    pub tpid: u16,
    /// VLAN id, 12 bits.
    pub id: u16,
}

impl Tag {
    /// A customer tag (802.1Q).
    #[must_use]
    pub const fn c(id: u16) -> Self {
        Self { tpid: 0x8100, id }
    }

    /// A service tag (802.1ad).
    #[must_use]
    pub const fn s(id: u16) -> Self {
        Self { tpid: 0x88a8, id }
    }
}

/// The network layer.
#[derive(Clone, Debug)]
pub enum Network {
    /// IPv4.
    V4 {
        /// Source address.
        source: Ipv4Addr,
        /// Destination address.
        destination: Ipv4Addr,
        /// Raw options, a multiple of four bytes, 40 at most.
        options: Vec<u8>,
        /// Fragment offset in units of eight bytes.
        fragment_offset: u16,
        /// Whether more fragments follow.
        more_fragments: bool,
    },
    /// IPv6.
    V6 {
        /// Source address.
        source: Ipv6Addr,
        /// Destination address.
        destination: Ipv6Addr,
        /// Extension headers.
        extensions: Vec<Extension>,
    },
}

/// A UDP datagram in a frame. Every field can be changed before [`Frame::bytes`].
#[derive(Clone, Debug)]
pub struct Frame {
    /// Source MAC.
    pub source: Mac,
    /// Destination MAC.
    pub destination: Mac,
    /// VLAN tags, the outer one first.
    pub tags: Vec<Tag>,
    /// IPv4 or IPv6.
    pub network: Network,
    /// UDP source port.
    pub source_port: u16,
    /// UDP destination port.
    pub destination_port: u16,
    /// Whether UDP carries a checksum; without, the payload may be changed in place (IPv4 allows it).
    pub checksum: bool,
    /// What UDP carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// An IPv4 broadcast from a machine without an address.
    #[must_use]
    pub fn broadcast_v4(source: Mac, (source_port, destination_port): (u16, u16), payload: Vec<u8>) -> Self {
        let network = Network::V4 {
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::BROADCAST,
            options: Vec::new(),
            fragment_offset: 0,
            more_fragments: false,
        };
        let destination = Mac::BROADCAST;
        Self { source, destination, tags: Vec::new(), network, source_port, destination_port, checksum: true, payload }
    }

    /// An IPv6 multicast to all DHCP servers and relays (RFC 8415, 7.1).
    #[must_use]
    pub fn multicast_v6(source: Mac, (source_port, destination_port): (u16, u16), payload: Vec<u8>) -> Self {
        let network = Network::V6 {
            source: link_local(source),
            destination: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
            extensions: Vec::new(),
        };
        let destination = Mac([0x33, 0x33, 0, 1, 0, 2]);
        Self { source, destination, tags: Vec::new(), network, source_port, destination_port, checksum: true, payload }
    }

    /// The frame with these VLAN tags, the outer one first.
    #[must_use]
    pub fn tagged(mut self, tags: &[Tag]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    /// The frame with these IPv4 options.
    ///
    /// # Panics
    /// If the frame is IPv6.
    #[must_use]
    pub fn with_ip_options(mut self, bytes: &[u8]) -> Self {
        let Network::V4 { options, .. } = &mut self.network else { panic!("IPv6 has no options") };
        *options = bytes.to_vec();
        self
    }

    /// The frame with these IPv6 extension headers.
    ///
    /// # Panics
    /// If the frame is IPv4.
    #[must_use]
    pub fn with_extensions(mut self, headers: &[Extension]) -> Self {
        let Network::V6 { extensions, .. } = &mut self.network else { panic!("IPv4 has no extension headers") };
        *extensions = headers.to_vec();
        self
    }

    /// Length of the link-layer header, in bytes.
    #[must_use]
    pub fn link_len(&self) -> usize {
        Ethernet2Header::LEN + self.tags.len() * SingleVlanHeader::LEN
    }

    /// The bytes on the wire.
    ///
    /// # Panics
    /// If a field does not fit its place in the header (a VLAN id over 4095, options that are not a multiple of four
    /// bytes, a payload over 64 KiB): these are mistakes of the test.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.link_len() + 128 + self.payload.len());
        self.write_link(&mut bytes);
        match &self.network {
            Network::V4 { .. } => self.write_v4(&mut bytes),
            Network::V6 { .. } => self.write_v6(&mut bytes),
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    fn write_link(&self, bytes: &mut Vec<u8>) {
        let inner = match self.network {
            Network::V4 { .. } => EtherType::IPV4,
            Network::V6 { .. } => EtherType::IPV6,
        };
        // Each header names the one that follows.
        let mut types = self.tags.iter().map(|tag| EtherType(tag.tpid)).chain([inner]);
        let mut next_type = || types.next().expect("one type more than tags");
        let ethernet =
            Ethernet2Header { source: self.source.0, destination: self.destination.0, ether_type: next_type() };
        bytes.extend_from_slice(&ethernet.to_bytes());
        for tag in &self.tags {
            let vlan_id = VlanId::try_new(tag.id).expect("a VLAN id of 12 bits");
            let header = SingleVlanHeader {
                pcp: VlanPcp::ZERO,
                drop_eligible_indicator: false,
                vlan_id,
                ether_type: next_type(),
            };
            bytes.extend_from_slice(&header.to_bytes());
        }
    }

    fn write_v4(&self, bytes: &mut Vec<u8>) {
        let Network::V4 { source, destination, options, fragment_offset, more_fragments } = &self.network else {
            return;
        };
        let payload_len = u16::try_from(UdpHeader::LEN + self.payload.len()).expect("a payload of less than 64 KiB");
        let mut ip = Ipv4Header::new(payload_len, 64, IpNumber::UDP, source.octets(), destination.octets())
            .expect("a payload of less than 64 KiB");
        ip.options = options[..].try_into().expect("IPv4 options in words of four bytes, 40 at most");
        ip.set_payload_len(usize::from(payload_len)).expect("a payload of less than 64 KiB");
        ip.dont_fragment = false;
        ip.fragment_offset = IpFragOffset::try_new(*fragment_offset).expect("a fragment offset of 13 bits");
        ip.more_fragments = *more_fragments;
        ip.header_checksum = ip.calc_header_checksum();
        let ports = (self.source_port, self.destination_port);
        let udp = if self.checksum {
            UdpHeader::with_ipv4_checksum(ports.0, ports.1, &ip, &self.payload)
        } else {
            UdpHeader::without_ipv4_checksum(ports.0, ports.1, self.payload.len())
        };
        bytes.extend_from_slice(&ip.to_bytes());
        bytes.extend_from_slice(&udp.expect("a payload of less than 64 KiB").to_bytes());
    }

    fn write_v6(&self, bytes: &mut Vec<u8>) {
        let Network::V6 { source, destination, extensions } = &self.network else { return };
        let (next_header, extensions) = in_front_of(IpNumber::UDP, extensions);
        let mut ip = Ipv6Header {
            next_header,
            hop_limit: 1,
            source: source.octets(),
            destination: destination.octets(),
            ..Ipv6Header::default()
        };
        ip.set_payload_length(extensions.len() + UdpHeader::LEN + self.payload.len())
            .expect("a payload of less than 64 KiB");
        let udp = UdpHeader::with_ipv6_checksum(self.source_port, self.destination_port, &ip, &self.payload);
        bytes.extend_from_slice(&ip.to_bytes());
        bytes.extend_from_slice(&extensions);
        bytes.extend_from_slice(&udp.expect("a payload of less than 64 KiB").to_bytes());
    }
}

/// How far into a DHCPv4 message the transaction id is, in bytes (RFC 2131, figure 1).
pub const XID_IN_MESSAGE: usize = 4;
/// The relay's address.
pub const GIADDR_IN_MESSAGE: usize = 24;
/// The client hardware address.
pub const CHADDR_IN_MESSAGE: usize = 28;
/// The message type: in what [`message_v4`] makes, the value of the first option after the magic cookie.
pub const TYPE_IN_MESSAGE: usize = 242;
/// BOOTP's 300 bytes, which DHCP clients pad to (RFC 1542, 2.1).
const MIN_MESSAGE: usize = 300;

/// A DHCPv4 message as a client would send it, to be changed before [`client_frame`].
#[must_use]
pub fn message_v4(kind: v4::MessageType, mac: Mac) -> v4::Message {
    let mut message = v4::Message::default();
    message.set_chaddr(&mac.0).set_xid(0x4447_0001);
    let options = message.opts_mut();
    options.insert(v4::DhcpOption::MessageType(kind));
    options.insert(v4::DhcpOption::ParameterRequestList(vec![
        v4::OptionCode::SubnetMask,
        v4::OptionCode::Router,
        v4::OptionCode::DomainNameServer,
    ]));
    message
}

/// Encoded and padded to BOOTP's minimum.
#[must_use]
pub fn encode_v4(message: &v4::Message) -> Vec<u8> {
    let mut payload = message.to_vec().expect("a message that dhcproto made can be encoded");
    payload.resize(payload.len().max(MIN_MESSAGE), 0);
    payload
}

/// A client's message to all servers.
#[must_use]
pub fn client_frame(message: &v4::Message, source: Mac) -> Frame {
    Frame::broadcast_v4(source, (68, 67), encode_v4(message))
}

/// A DHCPDISCOVER, broadcast by `mac`.
#[must_use]
pub fn discover(mac: Mac) -> Frame {
    client_frame(&message_v4(v4::MessageType::Discover, mac), mac)
}

/// A DHCPREQUEST of a machine that reboots and wants its address again.
#[must_use]
pub fn request(mac: Mac, address: Ipv4Addr) -> Frame {
    let mut message = message_v4(v4::MessageType::Request, mac);
    message.opts_mut().insert(v4::DhcpOption::RequestedIpAddress(address));
    client_frame(&message, mac)
}

/// A DHCPOFFER that `server` broadcasts to `client`: on a port of machines, the sign of a rogue server.
#[must_use]
pub fn offer(server: Mac, client: Mac, address: Ipv4Addr) -> Frame {
    let mut message = message_v4(v4::MessageType::Offer, client);
    message.set_opcode(v4::Opcode::BootReply).set_yiaddr(address);
    Frame::broadcast_v4(server, (67, 68), encode_v4(&message))
}

/// A DHCPv6 Solicit of `mac`.
#[must_use]
pub fn solicit(mac: Mac) -> Frame {
    let mut message = v6::Message::new_with_id(v6::MessageType::Solicit, [1, 2, 3]);
    // DUID-LL (type 3) of an Ethernet (hardware type 1) address: RFC 8415, 11.4.
    let duid = [&[0, 3, 0, 1][..], &mac.0].concat();
    message.opts_mut().insert(v6::DhcpOption::ClientId(duid));
    let payload = message.to_vec().expect("a message that dhcproto made can be encoded");
    Frame::multicast_v6(mac, (546, 547), payload)
}

/// The address a machine gives itself (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn a_discover_is_what_it_says() {
        let mac = Mac::machine(6);
        let frame = discover(mac).tagged(&[Tag::s(100), Tag::c(20)]).with_ip_options(&[0x94, 4, 0, 0]);
        let bytes = frame.bytes();
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        assert_eq!(packet.vlan_ids().iter().map(|id| id.value()).collect::<Vec<_>>(), [100, 20]);
        let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("not IPv4") };
        assert_eq!(ip.header().ihl(), 6);
        let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP") };
        assert_eq!((udp.source_port(), udp.destination_port(), udp.payload().len()), (68, 67, 300));
        assert_eq!(udp.payload()[CHADDR_IN_MESSAGE..][..6], mac.0);
    }

    #[test]
    fn the_fields_of_a_message_are_where_the_flood_writes_them() {
        let mut message = message_v4(v4::MessageType::Inform, Mac::machine(6));
        message.set_giaddr([10, 77, 1, 2]);
        let payload = encode_v4(&message);
        assert_eq!(payload[XID_IN_MESSAGE..][..4], message.xid().to_be_bytes());
        assert_eq!(payload[GIADDR_IN_MESSAGE..][..4], [10, 77, 1, 2]);
        assert_eq!(payload[TYPE_IN_MESSAGE - 2..][..3], [53, 1, 8]);
    }

    #[test]
    fn a_solicit_is_what_it_says() {
        let bytes = solicit(Mac::machine(0)).bytes();
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP") };
        assert_eq!(udp.destination_port(), 547);
    }
}
