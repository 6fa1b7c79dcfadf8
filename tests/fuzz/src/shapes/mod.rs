//! Frames of all kinds, from builders that are not ours: so that the parser and the tests cannot share a mistake.

pub mod headers;
pub mod messages;

use dhcp_guard_common::parse::{Family, Towards};

use self::{
    headers::{Extension, Network, Shape, Tag},
    messages::Named,
};

/// A frame around these bytes as a message to a server.
#[must_use]
pub fn around(family: Family, message: &[u8]) -> Vec<u8> {
    Shape::plain(family, Towards::Server, message).bytes()
}

/// Stacks of tags: none, one and two of each kind, priority tags, and one too many.
#[must_use]
pub fn tags() -> Vec<Vec<Tag>> {
    let kinds = [0x8100, 0x88a8, 0x9100];
    let mut stacks = vec![vec![]];
    for outer in kinds {
        stacks.extend([0, 1, 100, 4094, 4095].map(|id| vec![(outer, id)]));
        stacks.extend(kinds.map(|inner| vec![(outer, 100), (inner, 20)]));
    }
    stacks.extend([vec![(0x8100, 0), (0x8100, 20)], vec![(0x88a8, 100), (0x8100, 0)], vec![(0x8100, 0), (0x8100, 0)]]);
    stacks.push(vec![(0x88a8, 1), (0x8100, 2), (0x8100, 3)]);
    stacks
}

/// IPv4 with and without options, whole and in fragments.
#[must_use]
pub fn networks_v4() -> Vec<Network> {
    let fragments = [(0, false), (0, true), (1, true), (185, false), (0x1fff, true)];
    [0, 4, 20, 40]
        .iter()
        .flat_map(|options| fragments.map(|fragment| Network::V4 { options: *options, fragment }))
        .collect()
}

/// IPv6 with extension headers of all kinds, in several orders, and up to two more than are stepped over.
#[must_use]
pub fn networks_v6() -> Vec<Network> {
    use Extension::{Authentication, Destination, Fragment, HopByHop, Routing};
    let mut lists = vec![
        vec![],
        vec![HopByHop(0)],
        vec![HopByHop(8)],
        vec![Routing(16)],
        vec![Destination(24)],
        vec![Destination(2032)],
        vec![Authentication(0)],
        vec![Authentication(12)],
        vec![Authentication(1016)],
        vec![Fragment(0, false)],
        vec![Fragment(0, true)],
        vec![Fragment(1, true)],
        vec![Fragment(185, false)],
        // The order of RFC 8200 section 4.1, and others.
        vec![HopByHop(0), Destination(0), Routing(16), Fragment(0, true), Authentication(12), Destination(8)],
        vec![Routing(16), Authentication(4), Destination(0)],
        vec![Authentication(12), Fragment(0, true), Routing(0)],
        vec![Destination(0), Fragment(9, true), Destination(0)],
        vec![Fragment(0, true), Fragment(0, false)],
        vec![Fragment(0, true), Fragment(3, false)],
        // A place where it must not be.
        vec![Destination(0), HopByHop(0)],
    ];
    lists.extend([7, 8, 9, 10].map(|count| vec![Destination(0); count]));
    lists.extend([8, 9].map(|count| (0..count).map(|i| [Routing(0), Authentication(12)][i % 2]).collect()));
    lists.into_iter().map(Network::V6).collect()
}

/// Frames that break a rule in one place.
#[must_use]
pub fn odd() -> Vec<Named> {
    const IP: usize = 14;
    let [v4, v6] = [around(Family::V4, &messages::v4_of(1)), around(Family::V6, &messages::v6_of(1))];
    let changed = |frame: &[u8], at: usize, with: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at..at + with.len()].copy_from_slice(with);
        frame
    };
    // An authentication header (protocol 51) of 12 bytes, the next header (17, UDP) in its first.
    let mut authenticated = changed(&v4, IP + 9, &[51]);
    authenticated.splice(IP + 20..IP + 20, [17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    let short_authentication = Shape {
        network: Network::V6(vec![Extension::Authentication(0)]),
        ..Shape::plain(Family::V6, Towards::Server, &[1])
    }
    .bytes();
    let frames = [
        ("v4-authenticated", authenticated),
        ("v4-in-ethertype-v6", changed(&v4, 12, &[0x86, 0xdd])),
        ("v6-in-ethertype-v4", changed(&v6, 12, &[0x08, 0x00])),
        ("v4-version-5", changed(&v4, IP, &[0x55])),
        ("v6-version-7", changed(&v6, IP, &[0x70])),
        ("v4-header-of-16", changed(&v4, IP, &[0x44])),
        ("v4-length-0", changed(&v4, IP + 2, &[0, 0])),
        ("v4-length-27", changed(&v4, IP + 2, &[0, 27])),
        ("v4-length-28", changed(&v4, IP + 2, &[0, 28])),
        ("v6-length-0", changed(&v6, IP + 4, &[0, 0])),
        ("v6-length-7", changed(&v6, IP + 4, &[0, 7])),
        ("v6-length-8", changed(&v6, IP + 4, &[0, 8])),
        ("v6-authentication-length-0", changed(&short_authentication, IP + 41, &[0])),
        ("macsec", [&v4[..12], &[0x88, 0xe5, 0, 0, 0, 0, 0, 1], &v4[12..]].concat()),
    ];
    frames.map(|(name, frame)| (name.to_string(), frame)).to_vec()
}

/// Every message, once in each kind of header around one message, and every kind of tags: what the corpus starts from.
#[must_use]
pub fn frames() -> Vec<Named> {
    let mut frames = odd();
    for (family, messages, networks) in families() {
        let (_, usual) = &messages[1];
        for (name, message) in &messages {
            frames.push((name.clone(), around(family, message)));
            let to_client = Shape::plain(family, Towards::Client, message);
            frames.push((format!("{name}-to-client"), to_client.bytes()));
        }
        for (i, network) in networks.into_iter().enumerate() {
            let shape = Shape { network, ..Shape::plain(family, Towards::Server, usual) };
            frames.push((format!("{family:?}-headers-{i}"), shape.bytes()));
        }
        for (i, tags) in tags().into_iter().enumerate() {
            frames.push((
                format!("{family:?}-tags-{i}"),
                Shape { tags, ..Shape::plain(family, Towards::Server, usual) }.bytes(),
            ));
        }
    }
    frames
}

/// Of each family: its messages, and the headers that these may have in front of them.
#[must_use]
pub fn families() -> [(Family, Vec<Named>, Vec<Network>); 2] {
    [(Family::V4, messages::v4(), networks_v4()), (Family::V6, messages::v6(), networks_v6())]
}
