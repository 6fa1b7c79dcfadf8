//! What comes in to a client: servers' replies, and questions about who has an address.

use std::{net::Ipv4Addr, time::Duration};

use dhcproto::{
    Decodable as _, Decoder,
    v4::{DhcpOption, Message, MessageType, OptionCode},
};
use etherparse::{
    ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacket, EtherType, LinkSlice, NetSlice, PacketBuilder,
    SlicedPacket, TransportSlice,
};

use crate::mac::Mac;

/// Where servers send replies to.
const CLIENT_PORT: u16 = 68;

/// A frame that means something to a client.
#[derive(Debug)]
pub(super) enum Heard {
    /// A server's message.
    Reply(Reply),
    /// Somebody looks for an address.
    WhoHas(WhoHas),
}

/// A server's message.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// The client's hardware address in the message.
    pub(super) to: Mac,
    pub(super) xid: u32,
    pub(super) kind: MessageType,
    /// What it gives the client.
    pub(super) address: Ipv4Addr,
    /// The server: its address, and that of its network card.
    pub(super) server: Ipv4Addr,
    pub(super) server_mac: Mac,
    /// How long a lease is good, when to renew it, when to ask any server.
    pub(super) lease: Duration,
    pub(super) renew: Duration,
    pub(super) rebind: Duration,
}

/// Somebody looks for an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct WhoHas {
    pub(super) address: Ipv4Addr,
    asker: ([u8; 6], [u8; 4]),
}

impl WhoHas {
    /// The answer of whoever has it.
    pub(super) fn answer(&self, mac: Mac) -> Vec<u8> {
        let (asker_mac, asker_address) = self.asker;
        let arp = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation::REPLY,
            &mac.0,
            &self.address.octets(),
            &asker_mac,
            &asker_address,
        );
        let arp = arp.expect("addresses of the right lengths");
        let builder = PacketBuilder::ethernet2(mac.0, asker_mac).arp(arp);
        let mut frame = Vec::with_capacity(64);
        builder.write(&mut frame).expect("writing to memory cannot fail");
        frame
    }
}

/// What a frame means to a client, if anything.
pub(super) fn read(frame: &[u8]) -> Option<Heard> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    if let Some(NetSlice::Arp(arp)) = &packet.net {
        let arp = ArpEthIpv4Packet::try_from(arp.to_packet()).ok()?;
        let question = WhoHas { address: arp.target_ipv4_addr(), asker: (arp.sender_mac, arp.sender_ipv4) };
        return (arp.operation == ArpOperation::REQUEST).then_some(Heard::WhoHas(question));
    }
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
    let Some(LinkSlice::Ethernet2(link)) = &packet.link else { return None };
    if udp.destination_port() != CLIENT_PORT {
        return None;
    }
    let message = Message::decode(&mut Decoder::new(udp.payload())).ok()?;
    reply(&message, Mac(link.source())).map(Heard::Reply)
}

fn reply(message: &Message, server_mac: Mac) -> Option<Reply> {
    let options = message.opts();
    let seconds = |code| match options.get(code)? {
        DhcpOption::AddressLeaseTime(seconds) | DhcpOption::Renewal(seconds) | DhcpOption::Rebinding(seconds) => {
            Some(Duration::from_secs((*seconds).into()))
        }
        _ => None,
    };
    let Some(DhcpOption::MessageType(kind)) = options.get(OptionCode::MessageType) else { return None };
    let Some(DhcpOption::ServerIdentifier(server)) = options.get(OptionCode::ServerIdentifier) else { return None };
    let lease = seconds(OptionCode::AddressLeaseTime).unwrap_or_default();
    Some(Reply {
        to: Mac(message.chaddr().try_into().ok()?),
        xid: message.xid(),
        kind: *kind,
        address: message.yiaddr(),
        server: *server,
        server_mac,
        lease,
        // RFC 2131, 4.4.5: the defaults.
        renew: seconds(OptionCode::Renewal).unwrap_or(lease / 2),
        rebind: seconds(OptionCode::Rebinding).unwrap_or(lease * 7 / 8),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::{Frame, discover, encode_v4, message_v4, offer};

    const SERVER: Mac = Mac([2, 0x77, 0, 0, 0, 1]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);

    #[test]
    fn a_server_s_message_is_read_and_a_client_s_is_not() {
        let mut message = message_v4(MessageType::Ack, Mac::machine(3));
        message.set_yiaddr(ADDRESS).set_xid(7);
        for option in [
            DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 77, 0, 1)),
            DhcpOption::AddressLeaseTime(120),
            DhcpOption::Renewal(15),
        ] {
            message.opts_mut().insert(option);
        }
        let frame = Frame::broadcast_v4(SERVER, (67, 68), encode_v4(&message)).bytes();
        let Some(Heard::Reply(reply)) = read(&frame) else { panic!() };
        assert_eq!((reply.to, reply.xid, reply.kind), (Mac::machine(3), 7, MessageType::Ack));
        assert_eq!((reply.address, reply.server_mac), (ADDRESS, SERVER));
        assert_eq!([reply.lease, reply.renew, reply.rebind].map(|time| time.as_secs()), [120, 15, 105]);
        assert!(read(&discover(SERVER).bytes()).is_none());
        assert!(read(&offer(SERVER, Mac::machine(3), ADDRESS).bytes()).is_none(), "from no server in particular");
        assert!(read(&frame[..40]).is_none());
    }

    #[test]
    fn whoever_has_an_address_says_so() {
        let ask = |operation| {
            let (asker, nobody) = ([10, 77, 0, 1], [0; 6]);
            let arp = ArpEthIpv4Packet {
                operation,
                sender_mac: SERVER.0,
                sender_ipv4: asker,
                target_mac: nobody,
                target_ipv4: ADDRESS.octets(),
            };
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2(SERVER.0, Mac::BROADCAST.0).arp(arp.to_arp_packet());
            builder.write(&mut frame).unwrap();
            frame
        };
        let Some(Heard::WhoHas(question)) = read(&ask(ArpOperation::REQUEST)) else { panic!() };
        assert_eq!(question.address, ADDRESS);
        let answer = question.answer(Mac::machine(3));
        let packet = SlicedPacket::from_ethernet(&answer).unwrap();
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!() };
        let arp = ArpEthIpv4Packet::try_from(arp.to_packet()).unwrap();
        assert_eq!((arp.operation, arp.sender_mac), (ArpOperation::REPLY, Mac::machine(3).0));
        assert_eq!((arp.sender_ipv4_addr(), arp.target_mac), (ADDRESS, SERVER.0));
        assert!(read(&answer).is_none());
    }
}
