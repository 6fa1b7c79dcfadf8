//! The headers as `etherparse` reads them.

use dhcp_guard_common::parse::{Family, MAX_EXTENSIONS, Towards};
use etherparse::{
    Ipv6ExtensionSlice, Ipv6ExtensionsSlice, LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice, UdpSlice,
    err::{ip_auth, ipv6_exts, packet::SliceError},
    ip_number,
};

use super::Difference;
use crate::reference::Packet;

/// What they make of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// A datagram to a DHCP port, if that is what they see.
    pub datagram: Option<Datagram<'a>>,
    /// Where they cannot help differing from us.
    by_design: Vec<Difference>,
}

/// A datagram to a DHCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    source: [u8; 6],
    vlans: (u16, u16),
    family: Family,
    towards: Towards,
    payload: usize,
    /// What it carries, within the lengths that its headers give.
    pub message: &'a [u8],
}

/// Reads a frame, with fallbacks for lengths that do not add up.
#[must_use]
pub fn read(frame: &[u8]) -> Headers<'_> {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return Headers::default() };
    let mut headers = Headers { datagram: None, by_design: by_design(&packet) };
    // They stop at fragments, and we judge a first one: from here on, what they would do with it otherwise.
    let (Some(ip), None) = (packet.ip_payload(), in_front_of_udp(&packet)) else { return headers };
    if ip.ip_number != ip_number::UDP || is_later_fragment(&packet) {
        return headers;
    }
    let Ok(udp) = UdpSlice::from_slice_lax(ip.payload) else {
        headers.by_design.extend(ports_are_there(ip.payload).then_some(Difference::CutUdpHeader));
        return headers;
    };
    let payload = udp.payload().as_ptr() as usize - frame.as_ptr() as usize;
    headers.datagram = datagram(&packet, udp.destination_port(), payload, udp.payload());
    headers
}

fn datagram<'a>(packet: &LaxSlicedPacket<'_>, port: u16, payload: usize, message: &'a [u8]) -> Option<Datagram<'a>> {
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { return None };
    let (family, towards) = match (packet.net.as_ref()?, port) {
        (LaxNetSlice::Ipv4(_), 67) => (Family::V4, Towards::Server),
        (LaxNetSlice::Ipv4(_), 68) => (Family::V4, Towards::Client),
        (LaxNetSlice::Ipv6(_), 547) => (Family::V6, Towards::Server),
        (LaxNetSlice::Ipv6(_), 546) => (Family::V6, Towards::Client),
        _ => return None,
    };
    // Priority tags (id 0) name no VLAN.
    let vlans = match packet.vlan_ids().iter().map(|id| id.value()).collect::<Vec<_>>()[..] {
        [] => (0, 0),
        [id] | [0, id] => (id, 0),
        [outer, inner, ..] => (outer, inner),
    };
    Some(Datagram { source: ethernet.source(), vlans, family, towards, payload, message })
}

/// Why they stopped in front of UDP, if they did.
fn in_front_of_udp<'p>(packet: &'p LaxSlicedPacket<'_>) -> Option<&'p SliceError> {
    // Behind the IP headers they try to read UDP themselves; that is done again below.
    let is_udp = packet.ip_payload().is_some_and(|ip| ip.ip_number == ip_number::UDP);
    packet.stop_err.as_ref().map(|(error, _)| error).filter(|_| !is_udp)
}

fn is_later_fragment(packet: &LaxSlicedPacket<'_>) -> bool {
    match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => ip.header().fragments_offset().value() != 0,
        Some(LaxNetSlice::Ipv6(ip)) => each(ip.extensions()).any(|extension| match extension {
            Ipv6ExtensionSlice::Fragment(fragment) => fragment.fragment_offset().value() != 0,
            _ => false,
        }),
        _ => false,
    }
}

/// The extension headers one by one. Only where all of them could be sliced: etherparse 0.21.0 reads out of bounds behind
/// the last one that it could.
fn each<'a>(extensions: &Ipv6ExtensionsSlice<'a>) -> impl Iterator<Item = Ipv6ExtensionSlice<'a>> + use<'a> {
    extensions.clone().into_iter()
}

/// Where the frame is cut behind the ports but before the end of the UDP header.
fn ports_are_there(udp: &[u8]) -> bool {
    udp.len() >= 4
}

/// What about this packet they are known to see in another way.
fn by_design(packet: &LaxSlicedPacket<'_>) -> Vec<Difference> {
    let tags = &packet.link_exts;
    let mut found = Vec::new();
    let mut note = |is_so: bool, difference| found.extend(is_so.then_some(difference));
    let is_macsec = tags.iter().any(|tag| matches!(tag, LaxLinkExtSlice::Macsec(_)));
    note(tags.len() > 2 || is_macsec, Difference::ThirdTag);
    let ethertype = packet.ether_payload().map(|payload| payload.ether_type.0);
    match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            note(ethertype == Some(0x86dd), Difference::VersionAndEthertype);
            note(ip.extensions().auth.is_some(), Difference::AuthenticatedV4);
            let too_short = ip.header().total_len() < u16::from(ip.header().ihl()) * 4;
            note(too_short, Difference::LengthBelowHeaders);
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            note(ethertype == Some(0x0800), Difference::VersionAndEthertype);
            let all_sliced = in_front_of_udp(packet).is_none();
            note(all_sliced && each(ip.extensions()).count() > MAX_EXTENSIONS, Difference::ManyExtensions);
            note(ip.header().payload_length() == 0, Difference::LengthBelowHeaders);
        }
        _ => {}
    }
    match &packet.stop_err {
        Some((SliceError::Ipv6Exts(ipv6_exts::HeaderError::HopByHopNotAtStart), _)) => {
            found.push(Difference::LateHopByHop);
        }
        Some((SliceError::Ipv6Exts(ipv6_exts::HeaderError::IpAuth(ip_auth::HeaderError::ZeroPayloadLen)), _)) => {
            found.push(Difference::ShortAuthentication);
        }
        _ => {}
    }
    found
}

impl Difference {
    /// Who sees DHCP and who does not, where this is the reason: ours does (true), or they do.
    const fn ours_sees_dhcp(self) -> bool {
        matches!(self, Self::LateHopByHop | Self::ShortAuthentication | Self::CutUdpHeader)
    }
}

/// The same, or a difference that is meant to be.
///
/// # Panics
/// If it is neither.
#[must_use]
pub fn compare(ours: Option<&Packet>, theirs: &Headers<'_>) -> Option<Difference> {
    let seen = |packet: &Packet| (packet.source, packet.vlans, packet.family, packet.towards, packet.payload);
    let ours = ours.map(seen);
    let expected = theirs.datagram.as_ref().map(|d| (d.source, d.vlans, d.family, d.towards, d.payload));
    if ours == expected {
        return None;
    }
    let reason = theirs.by_design.iter().find(|difference| match (ours, expected) {
        (Some(_), Some(_)) | (None, None) => false,
        (ours, _) => difference.ours_sees_dhcp() == ours.is_some(),
    });
    let Some(reason) = reason else { panic!("our parser: {ours:?}; etherparse: {expected:?}, {:?}", theirs.by_design) };
    Some(*reason)
}
