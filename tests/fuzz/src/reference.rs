//! A second parser, written from the standards and from what `dhcp_guard_common` promises, as plainly as it can be: it
//! cuts slices, collects options into lists, and knows nothing about the verifier or about nanoseconds.

use dhcp_guard_common::{
    message::MAX_OPTIONS,
    parse::{Family, MAX_EXTENSIONS, Towards},
    verdict::MessageType,
};

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet source address.
    pub source: [u8; 6],
    /// Outer and inner VLAN id.
    pub vlans: (u16, u16),
    /// DHCPv4 or DHCPv6.
    pub family: Family,
    /// Whom it is for.
    pub towards: Towards,
    /// Where the DHCP message starts.
    pub payload: usize,
    /// Its type.
    pub message: MessageType,
    /// Who sent it.
    pub sender: Sender,
}

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The machine whose frame it is.
    Direct {
        /// Ethernet source address.
        source: [u8; 6],
        /// The message names another hardware address, and is one to a server.
        chaddr_differs: bool,
    },
    /// A client behind a DHCPv4 relay.
    RelayV4 {
        /// The relay, RFC 2131 section 2.
        giaddr: [u8; 4],
        /// The client.
        chaddr: [u8; 6],
    },
    /// A client behind a DHCPv6 relay, RFC 8415 section 9.
    RelayV6 {
        /// The client's link.
        link: [u8; 16],
        /// The client.
        peer: [u8; 16],
    },
}

/// The first bytes of a slice and the rest of it.
fn split<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    Some((*head, rest))
}

/// A number of two bytes, the high one first.
fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Reads a frame; `None` if it is not DHCP.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Packet> {
    let Link { source, vlans, ethertype, network } = link(frame)?;
    let (family, towards, message) = match ethertype {
        0x0800 => ipv4(network)?,
        0x86dd => ipv6(network)?,
        _ => return None,
    };
    // The UDP header may be cut short behind its ports, and the message then starts behind the end of the frame.
    let payload = network.as_ptr() as usize - frame.as_ptr() as usize + message;
    let bytes = frame.get(payload..).unwrap_or_default();
    let (message, sender) = match family {
        Family::V4 => (message_type_v4(bytes), sender_v4(source, towards, bytes)),
        Family::V6 => (message_type_v6(bytes), sender_v6(source, towards, bytes)),
    };
    Some(Packet { source, vlans, family, towards, payload, message, sender })
}

/// The link layer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// Ethernet source address.
    pub source: [u8; 6],
    /// Outer and inner VLAN id.
    pub vlans: (u16, u16),
    /// What follows, and its bytes.
    ethertype: u16,
    network: &'a [u8],
}

/// IEEE 802.3 clause 3, IEEE 802.1Q clause 9.
#[must_use]
pub fn link(frame: &[u8]) -> Option<Link<'_>> {
    let (_destination, rest) = split::<6>(frame)?;
    let (source, rest) = split::<6>(rest)?;
    let (ethertype, mut rest) = split::<2>(rest)?;
    let mut ethertype = u16::from_be_bytes(ethertype);
    let mut ids = Vec::new();
    while ids.len() < 2 && [0x8100, 0x88a8, 0x9100].contains(&ethertype) {
        let (tag, behind) = split::<4>(rest)?;
        ids.push(u16::from_be_bytes([tag[0], tag[1]]) % 4096);
        (ethertype, rest) = (u16::from_be_bytes([tag[2], tag[3]]), behind);
    }
    // A tag with id 0 carries a priority and no VLAN.
    let vlans = match ids[..] {
        [] | [0] | [0, 0] => (0, 0),
        [id] | [0, id] => (id, 0),
        [outer, inner, ..] => (outer, inner),
    };
    Some(Link { source, vlans, ethertype, network: rest })
}

/// RFC 791 section 3.1: family, direction, and how far into the packet the message starts.
fn ipv4(packet: &[u8]) -> Option<(Family, Towards, usize)> {
    let (first, _) = split::<20>(packet)?;
    let header_len = usize::from(first[0] % 16) * 4;
    let total_len = usize::from(number(packet, 2)?);
    let fragment_offset = number(packet, 6)? % 0x2000;
    let is_udp = first[9] == 17;
    if first[0] / 16 != 4 || header_len < 20 || !is_udp || fragment_offset != 0 || total_len < header_len + 8 {
        return None;
    }
    let towards = match number(packet, header_len + 2)? {
        67 => Towards::Server,
        68 => Towards::Client,
        _ => return None,
    };
    Some((Family::V4, towards, header_len + 8))
}

/// RFC 8200 sections 3 and 4.
fn ipv6(packet: &[u8]) -> Option<(Family, Towards, usize)> {
    let (first, _) = split::<40>(packet)?;
    let (mut next, mut at) = (first[6], 40);
    let mut stepped_over = 0;
    while next != 17 {
        let (header, _) = split::<4>(packet.get(at..)?)?;
        let length = usize::from(header[1]);
        let size = match next {
            // Hop-by-hop, routing, destination options: units of eight bytes, the first not counted.
            0 | 43 | 60 => 8 + 8 * length,
            // Authentication, RFC 4302 section 2.2: units of four bytes, the first two not counted.
            51 => 8 + 4 * length,
            // Fragment, section 4.5: only the first one starts with the UDP header.
            44 if number(packet, at + 2)? / 8 == 0 => 8,
            _ => return None,
        };
        stepped_over += 1;
        if stepped_over > MAX_EXTENSIONS {
            return None;
        }
        (next, at) = (header[0], at + size);
    }
    let room = usize::from(number(packet, 4)?);
    if first[0] / 16 != 6 || room < at - 40 + 8 {
        return None;
    }
    let towards = match number(packet, at + 2)? {
        547 => Towards::Server,
        546 => Towards::Client,
        _ => return None,
    };
    Some((Family::V6, towards, at + 8))
}

/// RFC 8415 section 8.
fn message_type_v6(message: &[u8]) -> MessageType {
    message.first().map_or(MessageType::None, |first| MessageType::from_wire_v6(*first))
}

/// Option 53, RFC 2132 section 9.6, wherever RFC 2131 section 4.1 lets it be.
fn message_type_v4(message: &[u8]) -> MessageType {
    let Some(options) = options_field(message) else { return MessageType::None };
    let options = seen_in(options);
    // The walk ends at the message type, so an overload option behind it is not seen; nor would it be needed.
    let before_type = options.iter().take_while(|option| option.code != 53);
    let overload = one_byte(before_type.filter(|option| option.code == 52).last()).unwrap_or(0);
    let mut fields = vec![options];
    // 1: in `file`; 2: in `sname`; 3: in both, `file` first.
    if overload % 2 == 1 {
        fields.push(seen_in(&message[108..236]));
    }
    if overload / 2 % 2 == 1 {
        fields.push(seen_in(&message[44..108]));
    }
    let value = fields
        .iter()
        .map(|options| one_byte(options.iter().find(|option| option.code == 53)).unwrap_or(0))
        .find(|value| *value != 0);
    MessageType::from_wire_v4(value.unwrap_or(0))
}

/// What stands behind the magic cookie, RFC 2131 section 3.
#[must_use]
pub fn options_field(message: &[u8]) -> Option<&[u8]> {
    message.get(236..)?.strip_prefix(&[99, 130, 83, 99])
}

/// An option as it stands in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpOption<'a> {
    /// Its code.
    pub code: u8,
    /// What it says; `None` if the field ends before it does.
    pub value: Option<&'a [u8]>,
}

/// Those of a field's options that are looked at.
fn seen_in(field: &[u8]) -> Vec<DhcpOption<'_>> {
    let mut options = options_in(field);
    options.truncate(MAX_OPTIONS);
    options
}

/// The options of a field, pads among them, to the end option or the end of the field.
#[must_use]
pub fn options_in(mut field: &[u8]) -> Vec<DhcpOption<'_>> {
    let mut options = Vec::new();
    loop {
        // RFC 2132 section 3.1 and 3.2: pad and end have no length.
        let (code, value, rest) = match field {
            [] | [255, ..] | [1..=254] => return options,
            [0, rest @ ..] => (0, Some(&[][..]), rest),
            [code, length, rest @ ..] => match rest.split_at_checked(usize::from(*length)) {
                Some((value, rest)) => (*code, Some(value), rest),
                None => (*code, None, &[][..]),
            },
        };
        options.push(DhcpOption { code, value });
        field = rest;
    }
}

/// The value of an option that has to be one byte long.
fn one_byte(option: Option<&DhcpOption<'_>>) -> Option<u8> {
    match option?.value? {
        [value] => Some(*value),
        _ => None,
    }
}

/// RFC 2131 section 2: the relay's address, and the client's hardware address behind it.
fn sender_v4(source: [u8; 6], towards: Towards, message: &[u8]) -> Sender {
    let addresses =
        message.get(24..).and_then(split::<4>).and_then(|(giaddr, rest)| Some((giaddr, split::<6>(rest)?.0)));
    match addresses {
        // A server's message names its client and that one's gateway, not itself.
        _ if towards == Towards::Client => Sender::Direct { source, chaddr_differs: false },
        None => Sender::Direct { source, chaddr_differs: false },
        Some(([0, 0, 0, 0], chaddr)) => Sender::Direct { source, chaddr_differs: chaddr != source },
        Some((giaddr, chaddr)) => Sender::RelayV4 { giaddr, chaddr },
    }
}

/// RFC 8415 section 9: type 12, hop count, link address, peer address.
fn sender_v6(source: [u8; 6], towards: Towards, message: &[u8]) -> Sender {
    let relayed = || {
        if towards == Towards::Client {
            return None;
        }
        let ([12, _hops], rest) = split::<2>(message)? else { return None };
        let (link, rest) = split::<16>(rest)?;
        let (peer, _) = split::<16>(rest)?;
        Some(Sender::RelayV6 { link, peer })
    };
    relayed().unwrap_or(Sender::Direct { source, chaddr_differs: false })
}
