//! Parsers that are not ours, run on the same bytes: `etherparse` on the headers, `dhcproto` on the message.
//!
//! They serve another purpose and differ from ours by design. Each such difference has a name here and a reason why ours
//! is as it is; any other makes the comparison panic.

pub mod headers;
pub mod messages;

use crate::reference::Packet;

/// A difference that is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// They step over a third tag or MACsec. No port of ours has three VLAN ids, so it cannot be policed.
    ThirdTag,
    /// They go by the version in the IP header alone. Its receiver goes by the ethertype and drops what disagrees.
    VersionAndEthertype,
    /// They step over an authentication header in IPv4. DHCP clients cannot have a key before they have an address.
    AuthenticatedV4,
    /// They step over any number of extension headers. The kernel wants a bound.
    ManyExtensions,
    /// They take the end of the frame for the end of a packet whose IP length is less than its headers (or 0, which may be
    /// a jumbogram, RFC 2675). Its receiver drops it, and no DHCP message is over 64 KiB.
    LengthBelowHeaders,
    /// They refuse hop-by-hop options behind another header, RFC 8200 section 4.1. Who does not must not be flooded.
    LateHopByHop,
    /// They refuse an authentication header shorter than its fixed part. As [`Difference::LateHopByHop`].
    ShortAuthentication,
    /// They want the whole UDP header in the frame. To us its ports are enough, or cutting frames would dodge the limits.
    CutUdpHeader,
    /// They end the message where the UDP header says. We read to the end of the frame, which costs less; what is read
    /// there can only be what the sender put there.
    BehindTheDatagram,
    /// They do not look at the magic cookie. Without it, the bytes are the vendor's (RFC 951), not options.
    NoCookie,
    /// They do not look into the fields that the overload option names, RFC 2131 section 4.1.
    Overload,
    /// Of several message types they take the last, or join them (RFC 3396). We take the first, as dnsmasq does.
    SeveralTypes,
    /// They take the first byte of a message type that is not one byte long. It breaks RFC 2132 section 9.6.
    LongType,
    /// They take a message type behind any number of options. The kernel wants a bound.
    ManyOptions,
    /// They stop at the first option whose value they do not like. We step over whatever has a length.
    StopsEarly,
    /// They want DHCPv6's whole header. To us the first byte is enough.
    CutHeaderV6,
}

impl Difference {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::ThirdTag,
        Self::VersionAndEthertype,
        Self::AuthenticatedV4,
        Self::ManyExtensions,
        Self::LengthBelowHeaders,
        Self::LateHopByHop,
        Self::ShortAuthentication,
        Self::CutUdpHeader,
        Self::BehindTheDatagram,
        Self::NoCookie,
        Self::Overload,
        Self::SeveralTypes,
        Self::LongType,
        Self::ManyOptions,
        Self::StopsEarly,
        Self::CutHeaderV6,
    ];
}

/// Compares what our parser saw with what the others see; the differences that are meant to be.
///
/// # Panics
/// If there is any other difference.
#[must_use]
pub fn compare(frame: &[u8], ours: Option<&Packet>) -> Vec<Difference> {
    let theirs = headers::read(frame);
    let mut differences: Vec<_> = headers::compare(ours, &theirs).into_iter().collect();
    let Some(ours) = ours else { return differences };
    let message = frame.get(ours.payload..).unwrap_or_default();
    if theirs.datagram.as_ref().is_some_and(|datagram| datagram.message.len() < message.len()) {
        differences.push(Difference::BehindTheDatagram);
    }
    differences.extend(messages::compare(ours, message));
    differences
}
