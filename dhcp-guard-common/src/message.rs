//! The DHCP message behind the UDP header: its type, and who sent it.
//!
//! Nothing here can make a packet less DHCP: a message that is cut short or nonsense has [`MessageType::None`] and is its
//! sender's all the same.

use crate::{
    parse::{Dhcp, Family, Frame, Towards},
    verdict::MessageType,
};

/// Offsets in a BOOTP message, RFC 951 section 3.
mod bootp {
    pub(super) const GIADDR: usize = 24;
    pub(super) const CHADDR: usize = 28;
    pub(super) const SNAME: usize = 44;
    pub(super) const FILE: usize = 108;
    pub(super) const OPTIONS: usize = 236;
}

/// Offsets in a relay-forward message, RFC 8415 section 9.
mod relay_forward {
    pub(super) const LINK: usize = 2;
    pub(super) const PEER: usize = 18;
    pub(super) const LEN: usize = 34;
    pub(super) const TYPE: u8 = 12;
}

/// Marks the options field as DHCP's, RFC 2131 section 3.
const MAGIC_COOKIE: [u16; 2] = [0x6382_u16.to_be(), 0x5363_u16.to_be()];

/// Option codes and their values, RFC 2132.
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const END: u8 = 255;
    /// Values of [`OVERLOAD`], section 9.3: bit 0 the `file` field holds options, bit 1 the `sname` field does.
    pub(super) const OVERLOAD_FILE: u8 = 1;
    pub(super) const OVERLOAD_SNAME: u8 = 2;
}

/// How many options are looked at, in each field, before the message type counts as missing. All clients known to us put
/// it first; a bound is what makes the walk acceptable in the kernel.
pub const MAX_OPTIONS: usize = 12;

/// What a DHCP packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type; see [`message_type`].
    pub kind: MessageType,
    /// Who sent it; see [`sender`].
    pub sender: Sender,
}

/// Reads both, which is cheaper than one after the other.
#[inline(always)]
pub fn read<F: Frame>(frame: &F, dhcp: &Dhcp) -> Message {
    match dhcp.family {
        Family::V4 => read_v4(frame, dhcp),
        Family::V6 => read_v6(frame, dhcp),
    }
}

/// The packet's message type.
///
/// DHCPv4: option 53, in the options field or, as RFC 2131 section 4.1 has it, in `file` and then `sname` if the overload
/// option in front says that these hold options. A field's first one counts, as for dnsmasq. A field has none if there is
/// none among its first [`MAX_OPTIONS`] options (a pad is one), if it is not one byte long, or if the field or the packet
/// ends before it does. [`MessageType::None`] if no field has one.
///
/// DHCPv6: the first byte.
#[inline(always)]
pub fn message_type<F: Frame>(frame: &F, dhcp: &Dhcp) -> MessageType {
    read(frame, dhcp).kind
}

/// Whether a packet is a server's word for a client: sent to one, or to the relay that is to pass it on (BOOTREPLY,
/// RFC 951 section 3; Relay-reply, RFC 8415 section 7.3).
#[inline(always)]
pub fn is_reply<F: Frame>(frame: &F, dhcp: &Dhcp) -> bool {
    const BOOTREPLY: u8 = 2;
    const RELAY_REPLY: u8 = 13;
    let reply = match (dhcp.towards, dhcp.family) {
        (Towards::Client, _) => return true,
        (Towards::Server, Family::V4) => BOOTREPLY,
        (Towards::Server, Family::V6) => RELAY_REPLY,
    };
    frame.byte(dhcp.payload) == Some(reply)
}

/// Who sent a packet.
///
/// A relay sends for many clients from one MAC address. So a DHCPv4 message with a gateway address belongs to the gateway
/// and the hardware address in it, a DHCPv6 relay-forward to its link and peer addresses (of the outermost relay, where
/// several are in a row). What is sent towards a client is its Ethernet source's.
#[inline(always)]
pub fn sender<F: Frame>(frame: &F, dhcp: &Dhcp) -> Sender {
    read(frame, dhcp).sender
}

/// The words of a BOOTP message that are read, and what it must be long enough for: the gateway address begins the first,
/// the client's hardware address ends the second, so that nothing behind it is asked for; the third is the cookie, and
/// nearly always the message type with its code and length.
const V4_WORDS: [usize; 3] = [bootp::GIADDR, bootp::CHADDR - 2, bootp::OPTIONS];
const V4_LEN: usize = bootp::OPTIONS + 8;

#[inline(always)]
fn read_v4<F: Frame>(frame: &F, dhcp: &Dhcp) -> Message {
    if let Some([giaddr, chaddr, options]) = frame.longs::<3, V4_LEN>(dhcp.payload, V4_WORDS) {
        let kind = first_type(options).unwrap_or_else(|| frame.walk_options(dhcp.payload));
        return Message { kind: MessageType::from_wire_v4(kind), sender: sender_v4(dhcp, giaddr, chaddr) };
    }
    // Cut short, or with nothing behind the message type.
    let words = frame.longs::<2, { bootp::CHADDR + 6 }>(dhcp.payload, [V4_WORDS[0], V4_WORDS[1]]);
    Message {
        kind: MessageType::from_wire_v4(frame.walk_options(dhcp.payload)),
        sender: match words {
            Some([giaddr, chaddr]) => sender_v4(dhcp, giaddr, chaddr),
            None => Sender::direct(dhcp.source, false),
        },
    }
}

/// The value of option 53, if it is the first option: cookie, code, length, value, and a byte of whatever follows.
#[inline(always)]
const fn first_type(options: u64) -> Option<u8> {
    const FIRST: u64 = {
        let [[a, b], [c, d]] = [MAGIC_COOKIE[0].to_ne_bytes(), MAGIC_COOKIE[1].to_ne_bytes()];
        u64::from_ne_bytes([a, b, c, d, option::MESSAGE_TYPE, 1, 0, 0])
    };
    if options << 16 == FIRST << 16 { Some((options >> 48) as u8) } else { None }
}

#[inline(always)]
fn sender_v4(dhcp: &Dhcp, begins_with_giaddr: u64, ends_with_chaddr: u64) -> Sender {
    let chaddr = ends_with_chaddr >> 16;
    // What goes to a client comes from a server or a relay, and names the client's hardware address and perhaps a
    // gateway's: neither is the sender's.
    if dhcp.towards == Towards::Client {
        return Sender::direct(dhcp.source, false);
    }
    match begins_with_giaddr as u32 {
        0 => Sender::direct(dhcp.source, chaddr != dhcp.source),
        giaddr => Sender { relay: Sender::RELAY_V4 | u64::from(giaddr), client: chaddr, chaddr_differs: false },
    }
}

#[inline(always)]
fn read_v6<F: Frame>(frame: &F, dhcp: &Dhcp) -> Message {
    let direct = Sender::direct(dhcp.source, false);
    let Some(kind) = frame.byte(dhcp.payload) else { return Message { kind: MessageType::None, sender: direct } };
    let is_relayed = kind == relay_forward::TYPE && dhcp.towards == Towards::Server;
    let sender = if is_relayed { relayed_v6(frame, dhcp).unwrap_or(direct) } else { direct };
    Message { kind: MessageType::from_wire_v6(kind), sender }
}

/// The client of a relay-forward message; `None` if that is cut short.
#[inline(always)]
fn relayed_v6<F: Frame>(frame: &F, dhcp: &Dhcp) -> Option<Sender> {
    let words = [relay_forward::LINK, relay_forward::LINK + 8, relay_forward::PEER + 8];
    let [link_high, link_low, peer_low] = frame.longs::<3, { relay_forward::LEN }>(dhcp.payload, words)?;
    let link = link_high.rotate_left(17) ^ link_low;
    Some(Sender { relay: Sender::RELAY_V6 | link, client: peer_low, chaddr_differs: false })
}

/// The value of option 53; 0 for none. See [`message_type`] for where it may be.
#[inline(always)]
pub fn walk_options<F: Frame>(frame: &F, payload: usize) -> u8 {
    let Some(cookie) = frame.words::<2>(payload + bootp::OPTIONS) else { return 0 };
    if cookie != MAGIC_COOKIE {
        return 0;
    }
    let options = scan(frame, payload + bootp::OPTIONS + size_of_val(&MAGIC_COOKIE), usize::MAX);
    if options.message_type != 0 || options.overload == 0 {
        return options.message_type;
    }
    if options.overload & option::OVERLOAD_FILE != 0 {
        let file = scan(frame, payload + bootp::FILE, payload + bootp::OPTIONS);
        if file.message_type != 0 {
            return file.message_type;
        }
    }
    if options.overload & option::OVERLOAD_SNAME != 0 {
        return scan(frame, payload + bootp::SNAME, payload + bootp::FILE).message_type;
    }
    0
}

/// What a field of options says; 0 for what it does not.
#[derive(Clone, Copy, Default)]
struct Found {
    message_type: u8,
    overload: u8,
}

/// Walks the options from byte `at` to the message type, to `end`, or to the end of the frame.
#[inline(always)]
fn scan<F: Frame>(frame: &F, mut at: usize, end: usize) -> Found {
    let mut found = Found::default();
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            return found;
        }
        let Some(code) = frame.byte(at) else { return found };
        if code == option::PAD {
            at += 1;
            continue;
        }
        if code == option::END {
            return found;
        }
        let Some(len) = frame.byte(at + 1) else { return found };
        if code == option::MESSAGE_TYPE || code == option::OVERLOAD {
            // What lies behind the end of its field is no part of an option.
            let value = if len == 1 && at + 2 < end { frame.byte(at + 2).unwrap_or(0) } else { 0 };
            if code == option::MESSAGE_TYPE {
                found.message_type = value;
                return found;
            }
            found.overload = value;
        }
        at += 2 + usize::from(len);
    }
    found
}

/// Who sent a packet, for the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// 0: the client itself, on this link. Else the relay that passed it on: [`Sender::RELAY_V4`] with the gateway address
    /// (giaddr) as it stands in memory, or [`Sender::RELAY_V6`] with the link address folded into the remaining bits.
    pub relay: u64,
    /// The client behind a relay: its hardware address (chaddr), or the lower half of the DHCPv6 peer
    /// address. Directly: the Ethernet source address. MAC addresses as [`MacWord`](crate::parse::MacWord).
    pub client: u64,
    /// The message, towards a server, names another hardware address than the frame it came in.
    pub chaddr_differs: bool,
}

impl Sender {
    /// Set in [`Sender::relay`] for a DHCPv4 relay.
    pub const RELAY_V4: u64 = 1 << 32;
    /// Set in [`Sender::relay`] for a DHCPv6 relay.
    pub const RELAY_V6: u64 = 1 << 63;

    #[inline(always)]
    const fn direct(source: u64, chaddr_differs: bool) -> Self {
        Self { relay: 0, client: source, chaddr_differs }
    }
}
