//! The frame walk: from the first byte of an Ethernet frame to "this is DHCP, from this MAC, under these VLANs".
//!
//! DHCP is IPv4 UDP to port 67 or 68, or IPv6 UDP to port 547 or 546, under up to two VLAN tags, with any IPv4 options
//! or up to [`MAX_EXTENSIONS`] IPv6 extension headers, unless it is a later fragment (which carries no ports). Anything
//! that is not positively that is [`None`], and passes the guard untouched: odd ethertypes, short headers, wrong versions,
//! lengths that do not add up. A packet *to a DHCP port* with an unreadable payload is DHCP all the same (see
//! [`crate::message`]), or the limits could be dodged by cutting it short.

use network_types::{
    eth::EtherType,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
    vlan::VlanHdr,
};

use crate::message;

/// Bytes of a frame, read with bounds checks. The kernel reads packet memory, tests read a slice.
pub trait Frame {
    /// `N` 16-bit words as they stand in memory (network order untouched), starting at byte `at`, which must be even.
    /// None if the frame ends before the last of them.
    fn words<const N: usize>(&self, at: usize) -> Option<[u16; N]>;
    /// The byte at `at`; None if the frame ends before it.
    fn byte(&self, at: usize) -> Option<u8>;
    /// `LEN` bytes from byte `at`, of which the eight at each of these offsets are read, as they stand in memory; None if
    /// the frame ends before the last of the `LEN`. All offsets must be at least eight below `LEN`.
    fn longs<const N: usize, const LEN: usize>(&self, at: usize, offsets: [usize; N]) -> Option<[u64; N]>;

    /// The eight bytes from byte `at`, as they stand in memory; None if the frame ends before the last.
    #[inline(always)]
    fn long(&self, at: usize) -> Option<u64> {
        self.longs::<1, 8>(at, [0]).map(|[word]| word)
    }

    /// [`skip_extensions`]. The kernel's implementation puts this walk, and the next one, behind the call of a function
    /// that the verifier looks at by itself: what comes after is not looked at again for each way through the walk.
    #[inline(always)]
    fn skip_extensions(&self, kind: u8, at: usize) -> Option<usize>
    where
        Self: Sized,
    {
        skip_extensions(self, kind, at)
    }

    /// [`walk_options`](message::walk_options).
    #[inline(always)]
    fn walk_options(&self, payload: usize) -> u8
    where
        Self: Sized,
    {
        message::walk_options(self, payload)
    }
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

    fn longs<const N: usize, const LEN: usize>(&self, at: usize, offsets: [usize; N]) -> Option<[u64; N]> {
        let bytes = self.get(at..at + LEN)?;
        let mut words = [0; N];
        for (word, offset) in words.iter_mut().zip(offsets) {
            *word = u64::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?);
        }
        Some(words)
    }
}

/// A MAC address in the lower 48 bits of a word, as it stands in memory: on a little-endian machine, which all are that
/// this runs on, its first byte is the lowest. The upper 16 bits are 0.
pub type MacWord = u64;
/// The bits of a word that a MAC address has.
pub const MAC_BITS: u64 = (1 << 48) - 1;
const _: () = assert!(cfg!(target_endian = "little"), "MAC addresses are taken from the lower end of a word");

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
    /// To port 67 or 547: from a client or a relay.
    Server,
    /// To port 68 or 546: from a server or a relay.
    Client,
}

/// DHCP for IPv4 (RFC 2131) or for IPv6 (RFC 8415).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// DHCPv4, and BOOTP.
    V4,
    /// DHCPv6.
    V6,
}

/// A DHCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dhcp {
    /// Ethernet source address.
    pub source: MacWord,
    /// VLAN tags.
    pub vlans: Vlans,
    /// DHCPv4 or DHCPv6.
    pub family: Family,
    /// Whom it is for.
    pub towards: Towards,
    /// Byte offset of the UDP payload, where the DHCP message starts.
    pub payload: usize,
}

const IPV4: u16 = EtherType::Ipv4 as u16;
const IPV6: u16 = EtherType::Ipv6 as u16;
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
/// RFC 8415 section 7.2.
const PORT_SERVER_V6: u16 = 547_u16.to_be();
const PORT_CLIENT_V6: u16 = 546_u16.to_be();
/// Where the IPv6 header says what follows.
const IPV6_NEXT_HEADER: usize = 6;
/// Bytes 0–7 of the IPv6 header: version, payload length, next header.
const IPV6_WORDS: usize = 4;
/// How many IPv6 extension headers are stepped over before the frame counts as not DHCP. RFC 8200 section 4.1 names six
/// that may stand in front of UDP in its recommended order; a bound is what makes the walk acceptable in the kernel.
pub const MAX_EXTENSIONS: usize = 8;
/// The fragment offset in a fragment extension header, RFC 8200 section 4.5.
const FRAGMENT_OFFSET_V6: u16 = 0xfff8_u16.to_be();

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
    may_be_dhcp(frame).and_then(|link| finish(frame, link))
}

/// The same for a frame whose outermost tag the kernel may have taken off and keeps beside it: `tag` answers the control
/// information of that one. It is only asked about what is DHCP.
#[inline(always)]
pub fn walk_under<F: Frame>(frame: &F, tag: impl FnOnce() -> Option<u16>) -> Option<Dhcp> {
    let link = may_be_dhcp(frame)?;
    let dhcp = finish(frame, link)?;
    match tag() {
        None => Some(dhcp),
        // With the one beside it these are three.
        Some(_) if link.at == AFTER_TAGS => None,
        tag => Some(Dhcp { vlans: vlans_under(frame, link, tag)?, ..dhcp }),
    }
}

/// The first half of [`walk`], which is all that nearly every frame needs: `None` if this cannot be DHCP. It reads as
/// little as it can, keeps as little as it can, and is not to be asked for more.
#[inline(always)]
pub fn may_be_dhcp<F: Frame>(frame: &F) -> Option<Link> {
    glance(frame).flatten()
}

/// The same, but tells what cannot be DHCP (`Some(None)`) from what ends before that can be told (`None`).
#[inline(always)]
pub fn glance<F: Frame>(frame: &F) -> Option<Option<Link>> {
    let link = read_link(frame)?;
    let is_candidate = match link.ethertype {
        IPV4 => may_be_v4(frame, link.at)?,
        IPV6 => may_be_v6(frame, link.at)?,
        _ => false,
    };
    Some(is_candidate.then_some(link))
}

/// The second half of [`walk`]: whether it is DHCP, and whose.
#[inline(always)]
pub fn finish<F: Frame>(frame: &F, link: Link) -> Option<Dhcp> {
    let (family, (towards, payload)) = match link.ethertype {
        IPV4 => (Family::V4, walk_ipv4(frame, link.at)?),
        _ => (Family::V6, walk_ipv6(frame, link.at)?),
    };
    Some(Dhcp { source: source(frame)?, vlans: vlans(frame, link)?, family, towards, payload })
}

/// Source address and VLANs of any frame; `None` if it ends before.
#[inline(always)]
pub fn link<F: Frame>(frame: &F) -> Option<(MacWord, Vlans)> {
    Some((source(frame)?, vlans(frame, read_link(frame)?)?))
}

/// The same under a tag beside the frame.
#[inline(always)]
pub fn link_under<F: Frame>(frame: &F, tag: Option<u16>) -> Option<(MacWord, Vlans)> {
    Some((source(frame)?, vlans_under(frame, read_link(frame)?, tag)?))
}

/// What the link layer says, but for the VLANs: these only matter for what is DHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The first ethertype that is no tag.
    ethertype: u16,
    /// Where that protocol's header starts, in bytes.
    at: usize,
}

/// Where the frame's first and second VLAN tag are, if it has them, and where its protocol starts then.
const TAG: usize = network_types::eth::EthHdr::LEN;
const SECOND_TAG: usize = TAG + VlanHdr::LEN;
const AFTER_TAGS: usize = SECOND_TAG + VlanHdr::LEN;

/// Steps over up to two VLAN tags.
#[inline(always)]
fn read_link<F: Frame>(frame: &F) -> Option<Link> {
    let eth: [u16; ETHERNET_WORDS] = frame.words(0)?;
    let ethertype = eth[ETHERTYPE_WORD];
    if !is_vlan_tag(ethertype) {
        return Some(Link { ethertype, at: TAG });
    }
    let [_, ethertype] = frame.words(TAG)?;
    if !is_vlan_tag(ethertype) {
        return Some(Link { ethertype, at: SECOND_TAG });
    }
    let [_, ethertype] = frame.words(SECOND_TAG)?;
    Some(Link { ethertype, at: AFTER_TAGS })
}

/// The VLANs of a frame.
#[inline(always)]
fn vlans<F: Frame>(frame: &F, link: Link) -> Option<Vlans> {
    if link.at == TAG {
        return Some(Vlans::default());
    }
    let [outer, _] = frame.words(TAG)?;
    let inner = if link.at == SECOND_TAG { 0 } else { frame.words::<2>(SECOND_TAG)?[0] };
    let id = |control| u16::from_be(control) & VLAN_ID_MASK;
    Some(Vlans { outer: id(outer), inner: id(inner) }.without_priority_tag())
}

/// The VLANs of a frame under a tag beside it. Of three tags, the outer two.
#[inline(always)]
fn vlans_under<F: Frame>(frame: &F, link: Link, tag: Option<u16>) -> Option<Vlans> {
    let Some(tag) = tag else { return vlans(frame, link) };
    let inner = if link.at == TAG { 0 } else { u16::from_be(frame.words::<2>(TAG)?[0]) };
    Some(Vlans { outer: tag & VLAN_ID_MASK, inner: inner & VLAN_ID_MASK }.without_priority_tag())
}

/// Whether IPv4 at byte `at` looks like UDP to a DHCP port: protocol, then port. Whether the headers are sound is only
/// asked of what does.
#[inline(always)]
fn may_be_v4<F: Frame>(frame: &F, at: usize) -> Option<bool> {
    let ip: [u16; IPV4_WORDS] = frame.words(at)?;
    if ip[4].to_ne_bytes()[1] != UDP {
        return Some(false);
    }
    let [_, port] = frame.words(at + ipv4_header_len(ip[0]))?;
    Some(port == PORT_SERVER || port == PORT_CLIENT)
}

/// The same for IPv6. What has extension headers may be anything.
#[inline(always)]
fn may_be_v6<F: Frame>(frame: &F, at: usize) -> Option<bool> {
    // One word and not the header: LLVM would put it together piece by piece.
    let [word] = frame.words(at + IPV6_NEXT_HEADER)?;
    let next_header = word.to_ne_bytes()[0];
    if next_header != UDP {
        return Some(is_extension(next_header));
    }
    let [_, port] = frame.words(at + Ipv6Hdr::LEN)?;
    Some(port == PORT_SERVER_V6 || port == PORT_CLIENT_V6)
}

/// The length of an IPv4 header in bytes, from its first word. May be less than a header has.
#[inline(always)]
fn ipv4_header_len(first: u16) -> usize {
    usize::from(first.to_ne_bytes()[0] & 0x0f) * 4
}

/// Read last: nearly all frames are not DHCP, and need no source address.
#[inline(always)]
fn source<F: Frame>(frame: &F) -> Option<MacWord> {
    // Behind the destination address; what comes with it is the ethertype.
    frame.long(6).map(|word| word & MAC_BITS)
}

/// IPv4 and UDP headers from byte `at`: whom it is for, and where the UDP payload starts.
#[inline(always)]
fn walk_ipv4<F: Frame>(frame: &F, at: usize) -> Option<(Towards, usize)> {
    let ip: [u16; IPV4_WORDS] = frame.words(at)?;
    let [total_len, fragment, ttl_and_protocol] = [ip[1], ip[3], ip[4]];
    let header_len = ipv4_header_len(ip[0]);
    let udp = at + header_len;
    let [_, port] = frame.words(udp)?;
    let towards = match port {
        PORT_SERVER => Towards::Server,
        PORT_CLIENT => Towards::Client,
        _ => return None,
    };
    let sound = ip[0].to_ne_bytes()[0] >> 4 == 4
        && ttl_and_protocol.to_ne_bytes()[1] == UDP
        && header_len >= IPV4_MIN_LEN
        && fragment & FRAGMENT_OFFSET == 0
        && usize::from(u16::from_be(total_len)) >= header_len + UdpHdr::LEN;
    if sound { Some((towards, udp + UdpHdr::LEN)) } else { None }
}

/// IPv6, extension and UDP headers from byte `at`: as [`walk_ipv4`].
#[inline(always)]
fn walk_ipv6<F: Frame>(frame: &F, at: usize) -> Option<(Towards, usize)> {
    let ip: [u16; IPV6_WORDS] = frame.words(at)?;
    let next_header = ip[3].to_ne_bytes()[0];
    let first = at + Ipv6Hdr::LEN;
    let udp = match next_header {
        UDP => first,
        kind if is_extension(kind) => frame.skip_extensions(kind, first)?,
        _ => return None,
    };
    let [_, port] = frame.words(udp)?;
    let towards = match port {
        PORT_SERVER_V6 => Towards::Server,
        PORT_CLIENT_V6 => Towards::Client,
        _ => return None,
    };
    let sound = ip[0].to_ne_bytes()[0] >> 4 == 6 && usize::from(u16::from_be(ip[2])) >= udp - first + UdpHdr::LEN;
    if sound { Some((towards, udp + UdpHdr::LEN)) } else { None }
}

/// Where the UDP header starts behind the extension header of type `kind` at byte `at`. `None`: no UDP, a later fragment,
/// or too many headers.
#[inline(always)]
pub fn skip_extensions<F: Frame>(frame: &F, mut kind: u8, mut at: usize) -> Option<usize> {
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(kind) {
            return None;
        }
        // All begin alike: next header, length; a fragment header's length is reserved, and its second word the offset.
        let header: [u16; 2] = frame.words(at)?;
        let [next, len] = header[0].to_ne_bytes();
        at += match kind {
            FRAGMENT if header[1] & FRAGMENT_OFFSET_V6 != 0 => return None,
            FRAGMENT => 8,
            // In words of four bytes less two, RFC 4302 section 2.2.
            AUTHENTICATION => (usize::from(len) + 2) * 4,
            // In words of eight bytes less one, RFC 8200 section 4.
            _ => (usize::from(len) + 1) * 8,
        };
        if next == UDP {
            return Some(at);
        }
        kind = next;
    }
    None
}

const UDP: u8 = IpProto::Udp as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;

/// Extension headers that may stand in front of UDP and can be stepped over.
#[inline(always)]
const fn is_extension(kind: u8) -> bool {
    kind == IpProto::HopOpt as u8
        || kind == IpProto::Ipv6Route as u8
        || kind == FRAGMENT
        || kind == AUTHENTICATION
        || kind == IpProto::Ipv6Opts as u8
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// An IPv4 header without options, UDP, to port 67.
    const DISCOVER: [u8; 28] =
        [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67, 0, 8, 0, 0];

    fn frame(tags: &[u16]) -> Vec<u8> {
        let tags = tags.iter().flat_map(|tag| [[0x81, 0], tag.to_be_bytes()]).flatten();
        [2; 12].into_iter().chain(tags).chain([8, 0]).chain(DISCOVER).collect()
    }

    #[test]
    fn a_tag_beside_the_frame_is_its_outermost() {
        let ids = |vlans: Vlans| (vlans.outer, vlans.inner);
        let under = |tag, tags: &[u16]| {
            let frame = frame(tags);
            let seen = walk_under(&frame.as_slice(), || tag).map(|dhcp| ids(dhcp.vlans));
            (seen, link_under(&frame.as_slice(), tag).map(|(_, vlans)| ids(vlans)))
        };
        let both = |vlans| (Some(vlans), Some(vlans));
        assert_eq!(under(None, &[20, 30]), both((20, 30)));
        assert_eq!(under(Some(100), &[]), both((100, 0)));
        assert_eq!(under(Some(100), &[20]), both((100, 20)));
        assert_eq!(under(Some(100), &[20, 30]), (None, Some((100, 20))), "three tags are not looked under");
        assert_eq!(under(Some(0), &[20]), both((20, 0)), "a priority tag says nothing");
        assert_eq!(under(Some(0), &[20, 0]), (None, Some((20, 0))), "but is one");
        assert_eq!(under(Some(0xe000 | 100), &[]), both((100, 0)), "the priority is no part of the id");
    }

    #[test]
    fn what_ends_too_early_is_told_from_what_is_something_else() {
        let discover = frame(&[]);
        assert!(glance(&discover.as_slice()).is_some_and(|link| link.is_some()));
        assert_eq!(glance(&&discover[..34]), None, "the ports are missing");
        assert_eq!(glance(&&discover[..13]), None);
        let mut tcp = discover;
        tcp[23] = 6;
        assert_eq!(glance(&&tcp[..34]), Some(None), "whatever the ports are");
    }
}
