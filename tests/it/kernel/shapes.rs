//! Frames that only the tests of the rules need.

use std::net::{Ipv4Addr, Ipv6Addr};

use dhcproto::v4::MessageType;
use tests::{
    mac::Mac,
    packets::{Frame, client_frame, message_v4, offer, solicit},
};

/// Message types of RFC 8415, section 7.3.
const ADVERTISE: u8 = 2;
const RENEW: u8 = 5;
const RELAY_FORWARD: u8 = 12;
const RELAY_REPLY: u8 = 13;
/// Option "relay message", RFC 8415 section 21.10.
const RELAY_MESSAGE: u16 = 9;

/// A DISCOVER that names `chaddr` in a frame of `source`.
pub(super) fn spoofed(source: Mac, chaddr: Mac) -> Frame {
    client_frame(&message_v4(MessageType::Discover, chaddr), source)
}

/// A DISCOVER of `chaddr` that the relay with this address passes on.
pub(super) fn relayed(relay: Mac, gateway: Ipv4Addr, chaddr: Mac) -> Frame {
    let mut message = message_v4(MessageType::Discover, chaddr);
    message.set_giaddr(gateway);
    let mut frame = client_frame(&message, relay);
    frame.source_port = 67;
    frame
}

/// A DHCPv6 Renew.
pub(super) fn renew(mac: Mac) -> Frame {
    let mut frame = solicit(mac);
    frame.payload[0] = RENEW;
    frame
}

/// A DHCPv6 Advertise of a server, to a client.
pub(super) fn advertise(server: Mac) -> Frame {
    let mut frame = solicit(server);
    frame.payload[0] = ADVERTISE;
    (frame.source_port, frame.destination_port) = (547, 546);
    frame
}

/// A Solicit of `client` in a Relay-forward of `relay`, RFC 8415 section 9.
pub(super) fn relay_forward(relay: Mac, link: Ipv6Addr, client: Mac, peer: Ipv6Addr) -> Frame {
    let inner = solicit(client).payload;
    let len = u16::try_from(inner.len()).expect("a Solicit is short");
    let header = [&[RELAY_FORWARD, 0][..], &link.octets(), &peer.octets()].concat();
    let option = [&RELAY_MESSAGE.to_be_bytes()[..], &len.to_be_bytes(), &inner].concat();
    Frame::multicast_v6(relay, (547, 547), [header, option].concat())
}

/// An OFFER for `client` that a server sends to the relay with this address.
pub(super) fn relayed_offer(server: Mac, gateway: Ipv4Addr, client: Mac) -> Frame {
    let mut frame = offer(server, client, gateway);
    (frame.source_port, frame.destination_port) = (67, 67);
    frame
}

/// A Relay-reply of a server, for a client behind a relay.
pub(super) fn relay_reply(server: Mac) -> Frame {
    let mut frame = relay_forward(server, Ipv6Addr::LOCALHOST, server, Ipv6Addr::LOCALHOST);
    frame.payload[0] = RELAY_REPLY;
    frame
}

/// A datagram that is not DHCP: a query to a name server.
pub(super) fn name_query(mac: Mac) -> Frame {
    Frame::broadcast_v4(mac, (40_000, 53), vec![0; 24])
}

/// An ARP request: RFC 826, for 10.0.0.1.
pub(super) fn arp(mac: Mac) -> Vec<u8> {
    let addresses = [&mac.0[..], &[10, 0, 0, 9], &[0; 6], &[10, 0, 0, 1]].concat();
    [&[0xff; 6][..], &mac.0, &[0x08, 0x06], &[0, 1, 8, 0, 6, 4, 0, 1], &addresses].concat()
}
