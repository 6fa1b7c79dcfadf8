//! Frames that are none of the guard's business, as they make up nearly all traffic.

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, IpNumber, Ipv4Header, PacketBuilder, PacketBuilderStep,
    TcpHeader, VlanId,
};

use crate::{
    mac::Mac,
    packets::{Frame, Network},
};

const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SOURCE_V4: [u8; 4] = [10, 77, 0, 1];
const DESTINATION_V4: [u8; 4] = [10, 77, 0, 2];
const SOURCE_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DESTINATION_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// About the size of the DHCP frames, so that all figures are about frames of one size.
const PAYLOAD: &[u8] = &[0x5a; 288];
const TTL: u8 = 64;

/// A TCP segment over IPv4.
#[must_use]
pub fn tcp_v4() -> Vec<u8> {
    let ip = PacketBuilder::ethernet2(SOURCE, DESTINATION).ipv4(SOURCE_V4, DESTINATION_V4, TTL);
    written(ip.tcp(40_000, 443, 1, 65_535))
}

/// A TCP segment over IPv6.
#[must_use]
pub fn tcp_v6() -> Vec<u8> {
    let ip = PacketBuilder::ethernet2(SOURCE, DESTINATION).ipv6(SOURCE_V6, DESTINATION_V6, TTL);
    written(ip.tcp(40_000, 443, 1, 65_535))
}

/// A TCP segment over IPv4 under one VLAN tag (802.1Q).
///
/// # Panics
/// Never: the VLAN id has 12 bits.
#[must_use]
pub fn tcp_v4_tagged() -> Vec<u8> {
    let vlan = VlanId::try_new(100).expect("a VLAN id of 12 bits");
    let link = PacketBuilder::ethernet2(SOURCE, DESTINATION).single_vlan(vlan);
    written(link.ipv4(SOURCE_V4, DESTINATION_V4, TTL).tcp(40_000, 443, 1, 65_535))
}

/// A TCP segment over IPv4 under two VLAN tags (802.1ad, 802.1Q).
///
/// # Panics
/// Never: the VLAN ids have 12 bits.
#[must_use]
pub fn tcp_v4_double_tagged() -> Vec<u8> {
    let vlan = |id| VlanId::try_new(id).expect("a VLAN id of 12 bits");
    let link = PacketBuilder::ethernet2(SOURCE, DESTINATION).double_vlan(vlan(100), vlan(20));
    written(link.ipv4(SOURCE_V4, DESTINATION_V4, TTL).tcp(40_000, 443, 1, 65_535))
}

/// A TCP segment over IPv4 with an option in the IPv4 header (router alert, RFC 2113).
///
/// # Panics
/// Never: the sizes fit.
#[must_use]
pub fn tcp_v4_with_options() -> Vec<u8> {
    let length = u16::try_from(TcpHeader::MIN_LEN + PAYLOAD.len()).expect("less than 64 KiB");
    let mut ip = Ipv4Header::new(length, TTL, IpNumber::TCP, SOURCE_V4, DESTINATION_V4).expect("less than 64 KiB");
    ip.options = [0x94, 4, 0, 0].into();
    ip.set_payload_len(length.into()).expect("less than 64 KiB");
    let link = PacketBuilder::ethernet2(SOURCE, DESTINATION);
    written(link.ip(etherparse::IpHeaders::Ipv4(ip, Default::default())).tcp(40_000, 443, 1, 65_535))
}

/// A DNS query's headers: UDP over IPv4, to a port that is not DHCP's.
#[must_use]
pub fn udp_v4() -> Vec<u8> {
    let mut frame = Frame::broadcast_v4(Mac(SOURCE), (40_000, 53), PAYLOAD.to_vec());
    frame.destination = Mac(DESTINATION);
    if let Network::V4 { source, destination, .. } = &mut frame.network {
        (*source, *destination) = (SOURCE_V4.into(), DESTINATION_V4.into());
    }
    frame.bytes()
}

/// UDP over IPv6 to a port that is not DHCP's.
#[must_use]
pub fn udp_v6() -> Vec<u8> {
    let mut frame = Frame::multicast_v6(Mac(SOURCE), (40_000, 443), PAYLOAD.to_vec());
    frame.destination = Mac(DESTINATION);
    frame.bytes()
}

/// An ARP request, padded to Ethernet's 60 bytes.
///
/// # Panics
/// Never: the sizes of the addresses agree.
#[must_use]
pub fn arp() -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &SOURCE,
        &SOURCE_V4,
        &[0; 6],
        &DESTINATION_V4,
    )
    .expect("addresses of equal sizes");
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(SOURCE, Mac::BROADCAST.0).arp(packet).write(&mut bytes).expect("writing to memory");
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

fn written(segment: PacketBuilderStep<TcpHeader>) -> Vec<u8> {
    let mut bytes = Vec::new();
    segment.write(&mut bytes, PAYLOAD).expect("writing to memory");
    bytes
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn each_frame_is_what_its_name_says() {
        for (bytes, tags, options) in
            [(tcp_v4(), 0, 0), (tcp_v4_tagged(), 1, 0), (tcp_v4_double_tagged(), 2, 0), (tcp_v4_with_options(), 0, 4)]
        {
            let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
            assert_eq!(packet.vlan_ids().len(), tags);
            let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("not IPv4") };
            assert_eq!(ip.header().options().len(), options);
            assert!(matches!(packet.transport, Some(TransportSlice::Tcp(_))));
        }
        let bytes = tcp_v6();
        assert!(matches!(SlicedPacket::from_ethernet(&bytes).unwrap().net, Some(NetSlice::Ipv6(_))));
        let bytes = arp();
        assert!(matches!(SlicedPacket::from_ethernet(&bytes).unwrap().net, Some(NetSlice::Arp(_))));
        for (bytes, port) in [(udp_v4(), 53), (udp_v6(), 443)] {
            let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
            let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP") };
            assert_eq!(udp.destination_port(), port);
        }
    }
}
