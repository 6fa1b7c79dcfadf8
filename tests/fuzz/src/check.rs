//! What must be true of any bytes. Every function panics if it is not.

use dhcp_guard_common::{
    message::{self, MAX_OPTIONS, Message},
    parse::{self, Dhcp, Family, MAX_EXTENSIONS, MacWord, Towards},
};

use crate::{
    peers,
    reference::{self, Packet, Sender},
    shapes::headers::Shape,
    watched::Watched,
};

/// Most reads of a walk: Ethernet and two tags, IP and UDP; then IP, extension headers and UDP, two tags, the source.
const WALK_READS: usize = 3 + 2 + 1 + MAX_EXTENSIONS + 1 + 2 + 1;
/// Most reads of a message: two of its words together; the cookie, and code, length and value of each option in three
/// fields.
const MESSAGE_READS: usize = 2 + 1 + 3 * 3 * MAX_OPTIONS;
/// Two tags, and IPv6 with nothing but the longest extension headers: 256 units of eight bytes.
const LAST_PAYLOAD: usize = 14 + 2 * 4 + 40 + MAX_EXTENSIONS * 256 * 8 + 8;

/// The parser reads this frame as the reference does, within its bounds, and as the other parsers do.
pub fn frame(bytes: &[u8]) {
    let seen = ours(bytes);
    assert_eq!(seen, reference::read(bytes), "the parser on the left, the reference on the right");
    let link = parse::link(&bytes).map(|(source, vlans)| (mac(source), (vlans.outer, vlans.inner)));
    assert_eq!(link, reference::link(bytes).map(|link| (link.source, link.vlans)), "link()");
    without_outer_tag(bytes);
    // What may differ has been told apart from what may not; which it was does not matter here.
    let _ = peers::compare(bytes, seen.as_ref());
}

/// The kernel may take the outermost tag out of a frame, which begins untagged then, and keep it beside: that changes
/// nothing about it but where its message starts.
fn without_outer_tag(bytes: &[u8]) {
    let Some((addresses, [0x81, 0x00, tag @ ..])) = bytes.split_at_checked(12) else { return };
    // Shorter ones have no protocol behind the tag; the kernel drops them.
    let Some((tag, rest)) = tag.split_first_chunk().filter(|(_, rest)| rest.len() >= 2) else { return };
    let tag = Some(u16::from_be_bytes(*tag));
    let untagged = [addresses, rest].concat();
    let seen = parse::walk_under(&untagged.as_slice(), || tag);
    let seen = seen.map(|dhcp| Dhcp { payload: dhcp.payload + 4, ..dhcp });
    assert_eq!(seen, parse::walk(&bytes), "with the outer tag beside it on the left, in it on the right");
    assert_eq!(parse::link_under(&untagged.as_slice(), tag), parse::link(&bytes), "the same for link()");
}

/// These bytes as a DHCP message of either family and in either direction, in a frame that says so.
pub fn payload(bytes: &[u8]) {
    for (family, towards) in [
        (Family::V4, Towards::Server),
        (Family::V4, Towards::Client),
        (Family::V6, Towards::Server),
        (Family::V6, Towards::Client),
    ] {
        let packet = Shape::plain(family, towards, bytes).bytes();
        frame(&packet);
        let seen = ours(&packet).map(|packet| (packet.family, packet.towards, packet.payload));
        let expected = (family, towards, packet.len() - bytes.len());
        assert_eq!(seen, Some(expected), "the frame around the message is DHCP");
    }
}

/// What the parser under test makes of a frame, in the words of the reference.
#[must_use]
pub fn ours(bytes: &[u8]) -> Option<Packet> {
    let watched = Watched::new(bytes);
    let dhcp = parse::walk(&watched);
    assert!(watched.reads() <= WALK_READS, "a walk has a bound");
    let dhcp = dhcp?;
    // The ports, which are the first half of the UDP header, are inside the frame; the message may begin behind it.
    assert!(dhcp.payload <= LAST_PAYLOAD && dhcp.payload <= bytes.len() + 4, "{} of {}", dhcp.payload, bytes.len());
    assert!(dhcp.vlans.outer < 4096 && dhcp.vlans.inner < 4096, "a VLAN id has 12 bits");
    assert!(dhcp.vlans.outer != 0 || dhcp.vlans.inner == 0, "no tag outside, one inside");
    let Message { kind, sender } = message::read(&watched, &dhcp);
    assert!(watched.reads() <= MESSAGE_READS, "reading a message has a bound");
    let source = mac(dhcp.source);
    let sender = unpacked(sender, bytes, source);
    let Dhcp { vlans, family, towards, payload, .. } = dhcp;
    Some(Packet { source, vlans: (vlans.outer, vlans.inner), family, towards, payload, message: kind, sender })
}

/// A MAC address as its bytes.
fn mac(word: MacWord) -> [u8; 6] {
    let [a, b, c, d, e, f, 0, 0] = word.to_le_bytes() else { panic!("{word:#x} is more than a MAC address") };
    [a, b, c, d, e, f]
}

/// A sender in the words of the reference. A relay's client cannot be read back out of ours: it is the reference's, after
/// making sure that it would be packed like this.
fn unpacked(seen: message::Sender, bytes: &[u8], source: [u8; 6]) -> Sender {
    let direct = Sender::Direct { source, chaddr_differs: seen.chaddr_differs };
    if seen == packed(direct) {
        return direct;
    }
    let Some(Packet { sender, .. }) = reference::read(bytes) else { panic!("{seen:?}, and no DHCP") };
    assert_eq!(seen, packed(sender), "the words of the parser on the left, of {sender:?} on the right");
    sender
}

/// The words that stand for a sender.
fn packed(sender: Sender) -> message::Sender {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    match sender {
        Sender::Direct { source, chaddr_differs } => {
            message::Sender { relay: 0, client: word(&source), chaddr_differs }
        }
        Sender::RelayV4 { giaddr, chaddr } => {
            message::Sender { relay: 1 << 32 | word(&giaddr), client: word(&chaddr), chaddr_differs: false }
        }
        Sender::RelayV6 { link, peer } => message::Sender {
            relay: 1 << 63 | (word(&link[..8]).rotate_left(17) ^ word(&link[8..])),
            client: word(&peer[8..]),
            chaddr_differs: false,
        },
    }
}
