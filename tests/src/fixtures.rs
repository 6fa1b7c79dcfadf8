//! Frames and what the guard must make of them. The same list is run through the parser on the host and through the
//! program in the kernel.
//!
//! The expectations are written down here from the standards and from where the independent builder put things, not
//! computed by the code under test.

use dhcp_guard_common::{
    parse::{Towards, Vlans},
    verdict::MessageType,
};
use dhcproto::v4::MessageType as Kind;
use std::net::Ipv4Addr;

use crate::{
    mac::Mac,
    packets::{Frame, Network, Tag, client_frame, discover, message_v4, offer, request, solicit},
};

/// What the guard must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// None of its business: passes.
    NotDhcp,
    /// DHCP.
    Dhcp {
        /// To a server or to a client.
        towards: Towards,
        /// Its VLANs.
        vlans: Vlans,
        /// Its type.
        message: MessageType,
    },
}

/// A frame and its expectation.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// What it is.
    pub name: String,
    /// The frame.
    pub bytes: Vec<u8>,
    /// What the guard must make of it.
    pub expected: Expected,
}

/// Who sends all of them.
pub const SENDER: Mac = Mac([2, 0, 0, 0x5e, 0x10, 0x01]);
const UDP_HEADER: usize = 8;
/// Fixed header 236 bytes, magic cookie 4, option code, length, value: RFC 2131 section 2.
const MESSAGE_TYPE_END: usize = 236 + 4 + 3;

/// All fixtures.
#[must_use]
pub fn all() -> Vec<Fixture> {
    [messages(), vlans(), ip_headers(), fragments(), options(), look_alikes(), truncated()].concat()
}

fn fixture(name: impl Into<String>, bytes: Vec<u8>, expected: Expected) -> Fixture {
    Fixture { name: name.into(), bytes, expected }
}

/// To a server, untagged.
fn client(message: MessageType) -> Expected {
    tagged(message, 0, 0)
}

fn tagged(message: MessageType, outer: u16, inner: u16) -> Expected {
    Expected::Dhcp { towards: Towards::Server, vlans: Vlans { outer, inner }, message }
}

fn to_client(message: MessageType) -> Expected {
    Expected::Dhcp { towards: Towards::Client, vlans: Vlans::default(), message }
}

/// Every message type, in both directions.
fn messages() -> Vec<Fixture> {
    let kinds = [
        (Kind::Discover, MessageType::Discover),
        (Kind::Offer, MessageType::Offer),
        (Kind::Request, MessageType::Request),
        (Kind::Decline, MessageType::Decline),
        (Kind::Ack, MessageType::Ack),
        (Kind::Nak, MessageType::Nak),
        (Kind::Release, MessageType::Release),
        (Kind::Inform, MessageType::Inform),
        (Kind::ForceRenew, MessageType::Other),
        (Kind::LeaseQuery, MessageType::Other),
    ];
    let mut fixtures: Vec<Fixture> = kinds
        .into_iter()
        .map(|(kind, message)| {
            let frame = client_frame(&message_v4(kind, SENDER), SENDER);
            fixture(format!("{message:?} ({kind:?}) to port 67"), frame.bytes(), client(message))
        })
        .collect();
    let address = Ipv4Addr::new(10, 0, 0, 9);
    fixtures.push(fixture(
        "REQUEST of a rebooting client",
        request(SENDER, address).bytes(),
        client(MessageType::Request),
    ));
    fixtures.push(fixture(
        "OFFER to port 68",
        offer(SENDER, Mac::machine(1), address).bytes(),
        to_client(MessageType::Offer),
    ));
    let mut relayed = discover(SENDER);
    relayed.source_port = 67;
    fixtures.push(fixture("DISCOVER from a relay, 67 to 67", relayed.bytes(), client(MessageType::Discover)));
    let mut unicast = discover(SENDER);
    unicast.source_port = 40_000;
    unicast.destination = Mac::machine(3);
    fixtures.push(fixture("DISCOVER from an odd source port, unicast", unicast.bytes(), client(MessageType::Discover)));
    fixtures
}

fn vlans() -> Vec<Fixture> {
    let old_qinq = |id| Tag { tpid: 0x9100, id };
    let cases: [(&str, &[Tag], (u16, u16)); 9] = [
        ("802.1Q", &[Tag::c(100)], (100, 0)),
        ("802.1ad", &[Tag::s(100)], (100, 0)),
        ("0x9100", &[old_qinq(100)], (100, 0)),
        ("802.1ad and 802.1Q", &[Tag::s(100), Tag::c(20)], (100, 20)),
        ("802.1Q twice", &[Tag::c(100), Tag::c(20)], (100, 20)),
        ("0x9100 and 802.1Q", &[old_qinq(100), Tag::c(20)], (100, 20)),
        ("the highest id", &[Tag::c(4094)], (4094, 0)),
        ("a priority tag", &[Tag::c(0)], (0, 0)),
        ("a priority tag around a VLAN", &[Tag::s(0), Tag::c(20)], (20, 0)),
    ];
    let mut fixtures: Vec<Fixture> = cases
        .into_iter()
        .map(|(name, tags, (outer, inner))| {
            let expected = tagged(MessageType::Discover, outer, inner);
            fixture(format!("tagged: {name}"), discover(SENDER).tagged(tags).bytes(), expected)
        })
        .collect();
    let three = discover(SENDER).tagged(&[Tag::s(1), Tag::c(2), Tag::c(3)]);
    fixtures.push(fixture("tagged: three times is once too often", three.bytes(), Expected::NotDhcp));
    // Priority 7 and the drop-eligible bit stand in the same word as the id.
    let mut priority = discover(SENDER).tagged(&[Tag::c(100)]).bytes();
    priority[14] |= 0xf0;
    fixtures.push(fixture("tagged: with priority bits", priority, tagged(MessageType::Discover, 100, 0)));
    fixtures
}

fn ip_headers() -> Vec<Fixture> {
    let mut fixtures: Vec<Fixture> = (0..=10)
        .map(|words| {
            // "No operation", option type 1.
            let frame = discover(SENDER).with_ip_options(&vec![1; 4 * words]);
            fixture(format!("IPv4 with {words} words of options"), frame.bytes(), client(MessageType::Discover))
        })
        .collect();
    let tagged_frame = discover(SENDER).with_ip_options(&[1; 40]).tagged(&[Tag::s(7), Tag::c(8)]);
    fixtures.push(fixture(
        "IPv4 with 10 words of options under two tags",
        tagged_frame.bytes(),
        tagged(MessageType::Discover, 7, 8),
    ));
    for words in 0..5 {
        let mut bytes = discover(SENDER).bytes();
        bytes[14] = 0x40 | words;
        fixtures.push(fixture(format!("IPv4 header length of {words} words"), bytes, Expected::NotDhcp));
    }
    for version in [0, 3, 5, 6, 15] {
        let mut bytes = discover(SENDER).bytes();
        bytes[14] = version << 4 | 5;
        fixtures.push(fixture(format!("IP version {version} under ethertype IPv4"), bytes, Expected::NotDhcp));
    }
    // Total length: too short for the UDP header it would need; just enough; less than the frame holds.
    for (total, expected) in [
        (0, Expected::NotDhcp),
        (20, Expected::NotDhcp),
        (27, Expected::NotDhcp),
        (28, client(MessageType::Discover)),
        (100, client(MessageType::Discover)),
    ] {
        let mut bytes = discover(SENDER).bytes();
        bytes[16..18].copy_from_slice(&u16::to_be_bytes(total));
        fixtures.push(fixture(format!("IPv4 total length {total}"), bytes, expected));
    }
    fixtures
}

fn fragments() -> Vec<Fixture> {
    let fragment = |offset: u16, more: bool| {
        let mut frame = discover(SENDER);
        if let Network::V4 { fragment_offset, more_fragments, .. } = &mut frame.network {
            (*fragment_offset, *more_fragments) = (offset, more);
        }
        frame.bytes()
    };
    let mut do_not_fragment = discover(SENDER).bytes();
    do_not_fragment[20] |= 0x40;
    vec![
        fixture("first fragment", fragment(0, true), client(MessageType::Discover)),
        fixture("second fragment", fragment(1, true), Expected::NotDhcp),
        fixture("last fragment", fragment(185, false), Expected::NotDhcp),
        fixture("last possible fragment", fragment(0x1fff, false), Expected::NotDhcp),
        fixture("do not fragment", do_not_fragment, client(MessageType::Discover)),
    ]
}

/// The message with its options replaced by these bytes.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut frame = discover(SENDER);
    frame.payload.truncate(240);
    frame.payload.extend_from_slice(options);
    frame.payload.resize(frame.payload.len().max(300), 0);
    frame.bytes()
}

fn options() -> Vec<Fixture> {
    // Host name (12) of two bytes.
    let host_name = [12, 2, b'd', b'g'];
    let after = |count: usize| [host_name.repeat(count), vec![53, 1, 3, 255]].concat();
    let mut no_cookie = discover(SENDER);
    no_cookie.payload[236..240].fill(0);
    let mut bootp = discover(SENDER);
    bootp.payload.truncate(236);
    let none = client(MessageType::None);
    vec![
        fixture("message type after padding", with_options(&[0, 0, 0, 53, 1, 3, 255]), client(MessageType::Request)),
        fixture("message type after 7 options", with_options(&after(7)), client(MessageType::Request)),
        fixture("message type after 8 options is not looked for", with_options(&after(8)), none),
        fixture(
            "message type after an option of 255 bytes",
            with_options(&[&[43, 255], &[7; 255][..], &[53, 1, 3, 255]].concat()),
            client(MessageType::Request),
        ),
        fixture("no message type, end", with_options(&[255, 53, 1, 3]), none),
        fixture("message type 0", with_options(&[53, 1, 0, 255]), none),
        fixture("message type 255", with_options(&[53, 1, 255, 255]), client(MessageType::Other)),
        fixture("message type of two bytes", with_options(&[53, 2, 1, 1, 255]), none),
        fixture("message type of no bytes", with_options(&[53, 0, 255]), none),
        fixture("an option that ends behind the frame", with_options(&[12, 250]), none),
        fixture("no magic cookie", no_cookie.bytes(), none),
        fixture("BOOTP without options", bootp.bytes(), none),
        fixture(
            "an empty datagram to port 67",
            {
                let mut f = discover(SENDER);
                f.payload.clear();
                f.bytes()
            },
            none,
        ),
    ]
}

fn look_alikes() -> Vec<Fixture> {
    let port = |port: u16| {
        let mut frame = discover(SENDER);
        frame.destination_port = port;
        frame.bytes()
    };
    let protocol = |protocol: u8| {
        let mut bytes = discover(SENDER).bytes();
        bytes[23] = protocol;
        bytes
    };
    let ethertype = |ethertype: u16| {
        let mut bytes = discover(SENDER).bytes();
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        bytes
    };
    let mut from_server_port = discover(SENDER);
    (from_server_port.source_port, from_server_port.destination_port) = (67, 53);
    // 0x4300 is port 67 read in the wrong byte order.
    let ports = [0, 53, 66, 69, 546, 547, 0x4300, 0x4400, 67 + 0x100, 68 + 0x100];
    let mut fixtures: Vec<Fixture> =
        ports.into_iter().map(|p| fixture(format!("UDP to port {p}"), port(p), Expected::NotDhcp)).collect();
    for p in [0, 1, 6, 16, 18, 132] {
        fixtures.push(fixture(format!("IP protocol {p} with DHCP's bytes"), protocol(p), Expected::NotDhcp));
    }
    for e in [0x0000, 0x0806, 0x0008, 0x86dd, 0x8847, 0x8864, 0x0156, 0xffff, 0x9200] {
        fixtures.push(fixture(format!("ethertype {e:#06x} with DHCP's bytes"), ethertype(e), Expected::NotDhcp));
    }
    fixtures.push(fixture("UDP from port 67 to port 53", from_server_port.bytes(), Expected::NotDhcp));
    fixtures.push(fixture("DHCPv6", solicit(SENDER).bytes(), Expected::NotDhcp));
    fixtures
}

/// Each kind of header cut at every byte, from the shortest frame that there is.
fn truncated() -> Vec<Fixture> {
    let frames: [(&str, Frame, (u16, u16), usize); 4] = [
        ("DISCOVER", discover(SENDER), (0, 0), 0),
        ("DISCOVER with IPv4 options", discover(SENDER).with_ip_options(&[1; 40]), (0, 0), 40),
        ("DISCOVER under a tag", discover(SENDER).tagged(&[Tag::c(100)]), (100, 0), 0),
        ("DISCOVER under two tags", discover(SENDER).tagged(&[Tag::s(100), Tag::c(20)]), (100, 20), 0),
    ];
    let mut fixtures = Vec::new();
    for (name, frame, (outer, inner), ip_options) in frames {
        let bytes = frame.bytes();
        let udp = frame.link_len() + 20 + ip_options;
        // The ports are the first four bytes of the UDP header.
        let (ports_end, type_end) = (udp + 4, udp + UDP_HEADER + MESSAGE_TYPE_END);
        for len in 14..bytes.len() {
            let expected = match len {
                _ if len < ports_end => Expected::NotDhcp,
                _ if len < type_end => tagged(MessageType::None, outer, inner),
                _ => tagged(MessageType::Discover, outer, inner),
            };
            fixtures.push(fixture(format!("{name}, cut after {len} bytes"), bytes[..len].to_vec(), expected));
        }
    }
    fixtures
}
