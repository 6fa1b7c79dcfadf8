//! The frame walk: from the first byte of an Ethernet frame to "this is DHCP, from this MAC, under these VLANs".
//!
//! DHCP is IPv4 UDP to port 67 or 68, under up to two VLAN tags, with any IPv4 options, unless it is a later fragment
//! (which carries no ports). Anything that is not positively that is [`None`], and passes the guard untouched:
//! odd ethertypes, short headers, wrong versions, lengths that do not add up. A packet *to a DHCP port* with an
//! unreadable payload is DHCP all the same, with [`MessageType::None`], or the limits could be dodged by cutting it short.

use network_types::{
    eth::EtherType,
    ip::{IpProto, Ipv4Hdr},
    udp::UdpHdr,
    vlan::VlanHdr,
};

use crate::verdict::MessageType;

/// Bytes of a frame, read with bounds checks. The kernel reads packet memory, tests read a slice.
pub trait Frame {
    /// `N` 16-bit words as they stand in memory (network order untouched), starting at byte `at`, which must be even.
    /// None if the frame ends before the last of them.
    fn words<const N: usize>(&self, at: usize) -> Option<[u16; N]>;
    /// The byte at `at`; None if the frame ends before it.
    fn byte(&self, at: usize) -> Option<u8>;
}

impl Frame for &[u8] {
    fn words<const N: usize>(&self, at: usize) -> Option<[u16; N]> {
        let bytes = self.get(at..at + 2 * N)?;
        let mut words = [0; N];
        for (word, pair) in words.iter_mut().zip(bytes.chunks_exact(2)) {
            *word = u16::from_ne_bytes([pair[0], pair[1]]);
        }
        Some(words)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.get(at).copied()
    }
}

/// A MAC address as the three words it consists of in the frame.
pub type MacWords = [u16; 3];

/// The VLAN ids a frame was tagged with. 0 is "no tag": a priority tag (id 0) belongs to the untagged port,
/// IEEE 802.1Q-2022 clause 6.9.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vlans {
    /// The tag next to the MAC addresses: 1 to 4094, or 0.
    pub outer: u16,
    /// The second tag: 1 to 4094, or 0.
    pub inner: u16,
}

impl Vlans {
    /// A priority tag (id 0) outside says nothing about the VLAN: the tag inside does.
    #[inline(always)]
    const fn without_priority_tag(self) -> Self {
        if self.outer == 0 { Self { outer: self.inner, inner: 0 } } else { self }
    }
}

/// Which side of DHCP the packet is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// To port 67: from a client or a relay.
    Server,
    /// To port 68: from a server or a relay.
    Client,
}

/// A DHCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dhcp {
    /// Ethernet source address.
    pub source: MacWords,
    /// VLAN tags.
    pub vlans: Vlans,
    /// Whom it is for.
    pub towards: Towards,
    /// Byte offset of the UDP payload, where the BOOTP header starts.
    pub payload: usize,
}

const IPV4: u16 = EtherType::Ipv4 as u16;
const VLAN_ID_MASK: u16 = 0x0fff;
const ETHERNET_WORDS: usize = network_types::eth::EthHdr::LEN / 2;
const ETHERTYPE_WORD: usize = ETHERNET_WORDS - 1;
/// Bytes 0–9 of the IPv4 header hold all that the walk reads: version, lengths, fragment, protocol.
const IPV4_WORDS: usize = 5;
const IPV4_MIN_LEN: usize = Ipv4Hdr::LEN;
/// The fragment offset without the flags; a first or only fragment has 0.
const FRAGMENT_OFFSET: u16 = 0x1fff_u16.to_be();
const PORT_SERVER: u16 = 67_u16.to_be();
const PORT_CLIENT: u16 = 68_u16.to_be();

/// 802.1Q, 802.1ad and the old QinQ ethertype.
#[inline(always)]
const fn is_vlan_tag(ethertype: u16) -> bool {
    ethertype == EtherType::Ieee8021q as u16
        || ethertype == EtherType::Ieee8021ad as u16
        || ethertype == EtherType::Ieee8021QinQ1 as u16
}

/// Walks a frame. `None`: not DHCP.
#[inline(always)]
pub fn walk<F: Frame>(frame: &F) -> Option<Dhcp> {
    let eth: [u16; ETHERNET_WORDS] = frame.words(0)?;
    let mut ethertype = eth[ETHERTYPE_WORD];
    let mut at = network_types::eth::EthHdr::LEN;
    let mut vlans = Vlans::default();
    if ethertype != IPV4 {
        if !is_vlan_tag(ethertype) {
            return None;
        }
        let tag: [u16; 2] = frame.words(at)?;
        vlans.outer = u16::from_be(tag[0]) & VLAN_ID_MASK;
        ethertype = tag[1];
        at += VlanHdr::LEN;
        if is_vlan_tag(ethertype) {
            let tag: [u16; 2] = frame.words(at)?;
            vlans.inner = u16::from_be(tag[0]) & VLAN_ID_MASK;
            ethertype = tag[1];
            at += VlanHdr::LEN;
        }
        if ethertype != IPV4 {
            return None;
        }
    }
    let (towards, payload) = walk_ipv4(frame, at)?;
    Some(Dhcp { source: source(frame)?, vlans: vlans.without_priority_tag(), towards, payload })
}

/// Read last: nearly all frames are not DHCP, and need no source address.
#[inline(always)]
fn source<F: Frame>(frame: &F) -> Option<MacWords> {
    frame.words(size_of::<MacWords>())
}

/// IPv4 and UDP headers from byte `at`: whom it is for, and where the UDP payload starts.
///
/// The cheapest way to "no" comes first: protocol, then port. Whether the headers are sound is only asked of what looks
/// like DHCP by then.
#[inline(always)]
fn walk_ipv4<F: Frame>(frame: &F, at: usize) -> Option<(Towards, usize)> {
    let ip: [u16; IPV4_WORDS] = frame.words(at)?;
    let [total_len, fragment, ttl_and_protocol] = [ip[1], ip[3], ip[4]];
    if ttl_and_protocol.to_ne_bytes()[1] != IpProto::Udp as u8 {
        return None;
    }
    let version_and_length = ip[0].to_ne_bytes()[0];
    let header_len = usize::from(version_and_length & 0x0f) * 4;
    let udp = at + header_len;
    let ports: [u16; 2] = frame.words(udp)?;
    let towards = match ports[1] {
        PORT_SERVER => Towards::Server,
        PORT_CLIENT => Towards::Client,
        _ => return None,
    };
    let sound = version_and_length >> 4 == 4
        && header_len >= IPV4_MIN_LEN
        && fragment & FRAGMENT_OFFSET == 0
        && usize::from(u16::from_be(total_len)) >= header_len + UdpHdr::LEN;
    if sound { Some((towards, udp + UdpHdr::LEN)) } else { None }
}

/// The fixed part of a BOOTP message, RFC 951 section 3.
const BOOTP_LEN: usize = 236;
/// Marks the options field as DHCP's, RFC 2131 section 3.
const MAGIC_COOKIE: [u16; 2] = [0x6382_u16.to_be(), 0x5363_u16.to_be()];
const OPTION_PAD: u8 = 0;
const OPTION_MESSAGE_TYPE: u8 = 53;
const OPTION_END: u8 = 255;
/// How many options are looked at before the message type counts as missing. All clients known to us put it first;
/// a bound is what makes the walk acceptable in the kernel.
pub const MAX_OPTIONS: usize = 8;

/// Reads the DHCP message type from the UDP payload that starts at byte `payload`.
///
/// [`MessageType::None`] if there is none among the first [`MAX_OPTIONS`] options or the packet ends before it.
#[inline(always)]
pub fn message_type<F: Frame>(frame: &F, payload: usize) -> MessageType {
    read_message_type(frame, payload).unwrap_or(MessageType::None)
}

#[inline(always)]
fn read_message_type<F: Frame>(frame: &F, payload: usize) -> Option<MessageType> {
    let cookie: [u16; 2] = frame.words(payload + BOOTP_LEN)?;
    if cookie != MAGIC_COOKIE {
        return None;
    }
    let mut at = payload + BOOTP_LEN + size_of_val(&cookie);
    for _ in 0..MAX_OPTIONS {
        match frame.byte(at)? {
            OPTION_PAD => at += 1,
            OPTION_END => return None,
            OPTION_MESSAGE_TYPE => {
                return if frame.byte(at + 1)? == 1 { frame.byte(at + 2).map(MessageType::from_wire) } else { None };
            }
            _ => at += 2 + usize::from(frame.byte(at + 1)?),
        }
    }
    None
}
