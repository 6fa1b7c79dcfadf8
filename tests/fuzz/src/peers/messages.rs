//! The message as `dhcproto` reads it.

use dhcp_guard_common::{
    message::MAX_OPTIONS,
    parse::{Family, Towards},
    verdict::MessageType,
};
use dhcproto::{Decodable as _, Decoder, v4, v6};

use super::Difference;
use crate::reference::{self, Packet, Sender};

/// The same, or a difference that is meant to be.
///
/// # Panics
/// If it is neither.
#[must_use]
pub fn compare(ours: &Packet, message: &[u8]) -> Option<Difference> {
    match ours.family {
        Family::V4 => compare_v4(ours, message),
        Family::V6 => compare_v6(ours, message),
    }
}

fn compare_v4(ours: &Packet, message: &[u8]) -> Option<Difference> {
    let Ok(theirs) = v4::Message::decode(&mut Decoder::new(message)) else {
        assert!(message.len() < 240, "dhcproto decodes whatever is long enough");
        assert_eq!(ours.message, MessageType::None, "no options, no type");
        return None;
    };
    compare_sender_v4(ours, &theirs);
    let their_type = theirs.opts().msg_type().map(u8::from);
    if ours.message == their_type.map_or(MessageType::None, MessageType::from_wire_v4) {
        return None;
    }
    let Some(field) = reference::options_field(message) else {
        assert_eq!(ours.message, MessageType::None, "no options, no type");
        return Some(Difference::NoCookie);
    };
    let reason = reason(ours.message, their_type, field);
    assert!(reason.is_some(), "our parser: {:?}; dhcproto: {their_type:?}; options {field:?}", ours.message);
    reason
}

fn compare_sender_v4(ours: &Packet, theirs: &v4::Message) {
    // Theirs is as long as `hlen` says (and must not be asked for if that is over 16); ours are the six bytes of an
    // Ethernet address.
    if theirs.hlen() != 6 {
        return;
    }
    let chaddr = theirs.chaddr();
    let direct = |chaddr_differs| Sender::Direct { source: ours.source, chaddr_differs };
    let expected = match theirs.giaddr().octets() {
        _ if ours.towards == Towards::Client => direct(false),
        [0, 0, 0, 0] => direct(chaddr != ours.source),
        giaddr => Sender::RelayV4 { giaddr, chaddr: chaddr.try_into().unwrap_or_default() },
    };
    assert_eq!(ours.sender, expected, "our parser on the left, dhcproto on the right");
}

/// Why the two types differ, where they may.
fn reason(ours: MessageType, theirs: Option<u8>, field: &[u8]) -> Option<Difference> {
    let options = reference::options_in(field);
    let sees_none = ours == MessageType::None;
    let is_overloaded = options.iter().take(MAX_OPTIONS).any(|option| option.code == 52);
    let mut types = options.iter().enumerate().filter(|(_, option)| option.code == 53);
    let (place, value) = types.next().map_or((0, None), |(place, option)| (place, option.value));
    let is_readable = place < MAX_OPTIONS && matches!(value, Some([1..=255]));
    let reasons = [
        (Difference::Overload, is_overloaded && !is_readable),
        (Difference::SeveralTypes, types.next().is_some()),
        (Difference::LongType, sees_none && value.is_some_and(|value| value.len() > 1)),
        (Difference::ManyOptions, sees_none && place >= MAX_OPTIONS),
        (Difference::StopsEarly, theirs.is_none() && stops_early(field)),
    ];
    reasons.into_iter().find_map(|(reason, holds)| holds.then_some(reason))
}

/// Whether dhcproto stops at an option in front of the message type.
fn stops_early(field: &[u8]) -> bool {
    let mut decoder = Decoder::new(field);
    loop {
        match v4::DhcpOption::decode(&mut decoder) {
            Err(_) => return true,
            Ok(v4::DhcpOption::End | v4::DhcpOption::MessageType(_)) => return false,
            Ok(_) => {}
        }
    }
}

fn compare_v6(ours: &Packet, message: &[u8]) -> Option<Difference> {
    let direct = Sender::Direct { source: ours.source, chaddr_differs: false };
    if ours.towards == Towards::Server
        && message.first() == Some(&12)
        && let Ok(theirs) = v6::RelayMessage::decode(&mut Decoder::new(message))
    {
        let expected = Sender::RelayV6 { link: theirs.link_addr().octets(), peer: theirs.peer_addr().octets() };
        assert_eq!(ours.sender, expected, "our parser on the left, dhcproto on the right");
    } else {
        assert_eq!(ours.sender, direct, "no relay-forward");
    }
    let Ok(theirs) = v6::Message::decode(&mut Decoder::new(message)) else {
        assert!(message.len() < 4, "dhcproto decodes whatever is long enough");
        return (!message.is_empty()).then_some(Difference::CutHeaderV6);
    };
    assert_eq!(ours.message, MessageType::from_wire_v6(theirs.msg_type().into()), "dhcproto: {:?}", theirs.msg_type());
    None
}
