//! The DHCP message behind the UDP header: its type, and who sent it.
//!
//! Nothing here can make a packet less DHCP: a message that is cut short or nonsense has [`MessageType::None`] and is its
//! sender's all the same.

use crate::{
    parse::{Dhcp, Family, Frame},
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
    match dhcp.family {
        Family::V4 => MessageType::from_wire_v4(type_v4(frame, dhcp.payload)),
        Family::V6 => frame.byte(dhcp.payload).map_or(MessageType::None, MessageType::from_wire_v6),
    }
}

/// The value of option 53; 0 for none.
#[inline(always)]
fn type_v4<F: Frame>(frame: &F, payload: usize) -> u8 {
    // Nearly always it is the first option: cookie, code, length, value, and the first byte of whatever follows.
    const FIRST: u64 = {
        let [[a, b], [c, d]] = [MAGIC_COOKIE[0].to_ne_bytes(), MAGIC_COOKIE[1].to_ne_bytes()];
        u64::from_ne_bytes([a, b, c, d, option::MESSAGE_TYPE, 1, 0, 0])
    };
    match frame.long(payload + bootp::OPTIONS) {
        Some(word) if word << 16 == FIRST << 16 => (word >> 48) as u8,
        _ => frame.walk_options(payload),
    }
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
    /// The message names another hardware address than the frame it came in.
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

/// Who sent a packet towards a server.
///
/// A relay sends for many clients from one MAC address. So a DHCPv4 message with a gateway address belongs to the gateway
/// and the hardware address in it, a DHCPv6 relay-forward to its link and peer addresses (of the outermost relay, where
/// several are in a row).
#[inline(always)]
pub fn sender<F: Frame>(frame: &F, dhcp: &Dhcp) -> Sender {
    match dhcp.family {
        Family::V4 => sender_v4(frame, dhcp),
        Family::V6 => sender_v6(frame, dhcp),
    }
}

#[inline(always)]
fn sender_v4<F: Frame>(frame: &F, dhcp: &Dhcp) -> Sender {
    // The gateway's address, and the client's hardware address right behind it. The word that ends with the latter is
    // read, not the one that begins with it, so that no byte behind it is asked for.
    let (Some(giaddr_and_more), Some(ends_with_chaddr)) =
        (frame.long(dhcp.payload + bootp::GIADDR), frame.long(dhcp.payload + bootp::CHADDR - 2))
    else {
        return Sender::direct(dhcp.source, false);
    };
    let chaddr = ends_with_chaddr >> 16;
    match giaddr_and_more as u32 {
        0 => Sender::direct(dhcp.source, chaddr != dhcp.source),
        giaddr => Sender { relay: Sender::RELAY_V4 | u64::from(giaddr), client: chaddr, chaddr_differs: false },
    }
}

#[inline(always)]
fn sender_v6<F: Frame>(frame: &F, dhcp: &Dhcp) -> Sender {
    let direct = Sender::direct(dhcp.source, false);
    if frame.byte(dhcp.payload) != Some(relay_forward::TYPE) {
        return direct;
    }
    let long = |at| frame.long(dhcp.payload + at);
    let (Some(link_high), Some(link_low), Some(peer_low)) =
        (long(relay_forward::LINK), long(relay_forward::LINK + 8), long(relay_forward::PEER + 8))
    else {
        return direct;
    };
    let link = link_high.rotate_left(17) ^ link_low;
    Sender { relay: Sender::RELAY_V6 | link, client: peer_low, chaddr_differs: false }
}
