//! DHCP messages, written by `dhcproto`; what it cannot write (a message that breaks a rule) is put together by hand.

use std::net::{Ipv4Addr, Ipv6Addr};

use dhcproto::{Encodable as _, v4, v6};

use super::headers::SENDER;

/// A message and its name.
pub type Named = (String, Vec<u8>);

fn named(name: impl Into<String>, message: impl Into<Vec<u8>>) -> Named {
    (name.into(), message.into())
}

/// A DHCPv4 message without options, changed by `change`.
fn v4_with(change: impl FnOnce(&mut v4::Message)) -> Vec<u8> {
    let mut message = v4::Message::default();
    message.set_chaddr(&SENDER).set_xid(0x4447_0001);
    change(&mut message);
    message.to_vec().expect("a message that dhcproto made can be encoded")
}

/// A DHCPv4 message of this type.
#[must_use]
pub fn v4_of(kind: u8) -> Vec<u8> {
    v4_with(|message| {
        message.opts_mut().insert(v4::DhcpOption::MessageType(kind.into()));
    })
}

/// A DHCPv4 message with these bytes for options, and these in `sname` and `file`.
#[must_use]
pub fn v4_raw(options: &[u8], sname: &[u8], file: &[u8]) -> Vec<u8> {
    let mut message = v4_with(|_| ());
    message.truncate(240);
    message.extend(options);
    message[44..][..sname.len()].copy_from_slice(sname);
    message[108..][..file.len()].copy_from_slice(file);
    message
}

/// DHCPv4 messages of all kinds.
#[must_use]
pub fn v4() -> Vec<Named> {
    let mut messages: Vec<Named> = (0..=19).map(|kind| named(format!("v4-type-{kind}"), v4_of(kind))).collect();
    messages.extend(v4_senders());
    messages.extend(v4_options());
    messages.extend(v4_overloaded());
    messages
}

/// A DISCOVER that names this gateway (0 for none) and this hardware address.
#[must_use]
pub fn v4_from(gateway: [u8; 4], chaddr: [u8; 6]) -> Vec<u8> {
    v4_with(|message| {
        message.set_giaddr(Ipv4Addr::from(gateway)).set_chaddr(&chaddr);
        message.opts_mut().insert(v4::DhcpOption::MessageType(v4::MessageType::Discover));
    })
}

fn v4_senders() -> Vec<Named> {
    vec![
        named("v4-relayed", v4_from([10, 0, 0, 1], SENDER)),
        named("v4-relayed-last-byte", v4_from([0, 0, 0, 1], [2, 0, 0, 0, 0, 9])),
        named("v4-other-chaddr", v4_from([0; 4], [2, 0, 0, 0, 0, 9])),
        named("v4-no-chaddr", v4_from([0; 4], [0; 6])),
    ]
}

fn v4_options() -> Vec<Named> {
    // Host name (12) of two bytes.
    let after = |count: usize| [[12, 2, b'd', b'g'].repeat(count), vec![53, 1, 3, 255]].concat();
    let long = [&[43, 255][..], &[7; 255], &[53, 1, 3, 255]].concat();
    let options: [(&str, &[u8]); 15] = [
        ("pads-first", &[0, 0, 0, 53, 1, 3, 255]),
        ("after-11", &after(11)),
        ("after-12", &after(12)),
        ("after-13", &after(13)),
        ("after-long", &long),
        ("behind-the-end", &[255, 53, 1, 3]),
        ("two-bytes", &[53, 2, 1, 1, 255]),
        ("no-bytes", &[53, 0, 255]),
        ("twice", &[53, 1, 1, 12, 1, b'd', 53, 1, 5, 255]),
        ("twice-behind-another", &[12, 1, b'd', 53, 1, 1, 12, 1, b'd', 53, 1, 5, 255]),
        ("twice-in-a-row", &[53, 1, 1, 53, 1, 5, 255]),
        ("cut-before-value", &[53, 1]),
        ("cut-before-length", &[53]),
        ("too-long-option", &[12, 250, 1]),
        ("odd-mask", &[1, 2, 255, 0, 53, 1, 1, 255]),
    ];
    let mut messages: Vec<Named> =
        options.iter().map(|(name, options)| named(format!("v4-{name}"), v4_raw(options, &[], &[]))).collect();
    let mut no_cookie = v4_of(1);
    no_cookie[236..240].fill(0);
    messages.push(named("v4-no-cookie", no_cookie));
    // RFC 951: 300 bytes, the last 64 of them for the vendor.
    messages.push(named("bootp", [&v4_of(1)[..236], &[0; 64]].concat()));
    messages.push(named("bootp-cut", &v4_of(1)[..236]));
    messages.push(named("v4-empty", []));
    messages
}

/// With the overload option: 1, `file`; 2, `sname`; 3, both.
fn v4_overloaded() -> Vec<Named> {
    let mut messages = Vec::new();
    for overload in 0..=4 {
        let option = [52, 1, overload, 255];
        let cases: [(&str, &[u8], &[u8]); 3] = [
            ("file", &[255], &[12, 1, b'd', 53, 1, 1, 255]),
            ("sname", &[53, 1, 3, 255], &[255]),
            ("both", &[53, 1, 3, 255], &[53, 1, 1, 255]),
        ];
        for (name, sname, file) in cases {
            messages.push(named(format!("v4-overload-{overload}-{name}"), v4_raw(&option, sname, file)));
        }
    }
    // The type's option begins in the last bytes of `sname`, and `file` would complete it.
    let at_the_edge = |from_end: usize| {
        let mut sname = vec![0; 64];
        sname[..2].copy_from_slice(&[12, 60 - u8::try_from(from_end).unwrap_or(0) + 2]);
        sname[64 - from_end] = 53;
        if from_end > 1 {
            sname[65 - from_end] = 1;
        }
        sname
    };
    messages.push(named("v4-edge-of-sname-2", v4_raw(&[52, 1, 2, 255], &at_the_edge(2), &[1, 1, 255])));
    messages.push(named("v4-edge-of-sname-1", v4_raw(&[52, 1, 2, 255], &at_the_edge(1), &[1, 1, 255])));
    messages.push(named("v4-two-overloads", v4_raw(&[52, 1, 2, 52, 1, 1, 255], &[53, 1, 3, 255], &[53, 1, 1, 255])));
    messages.push(named("v4-long-overload", v4_raw(&[52, 2, 1, 1, 255], &[53, 1, 3, 255], &[53, 1, 1, 255])));
    messages
}

/// A DHCPv6 message of this type, with the DUID of a machine (RFC 8415 section 11.4).
#[must_use]
pub fn v6_of(kind: u8) -> Vec<u8> {
    let mut message = v6::Message::new_with_id(kind.into(), [1, 2, 3]);
    message.opts_mut().insert(v6::DhcpOption::ClientId([&[0, 3, 0, 1][..], &SENDER].concat()));
    message.to_vec().expect("a message that dhcproto made can be encoded")
}

/// A message as a relay passes it on, RFC 8415 section 9.
#[must_use]
pub fn relay_forward(link: Ipv6Addr, peer: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let relayed = [&[0, 9][..], &u16::try_from(message.len()).unwrap_or(0).to_be_bytes(), message].concat();
    [&[12, 0][..], &link.octets(), &peer.octets(), &relayed].concat()
}

/// DHCPv6 messages of all kinds.
#[must_use]
pub fn v6() -> Vec<Named> {
    let mut messages: Vec<Named> = (0..=23).map(|kind| named(format!("v6-type-{kind}"), v6_of(kind))).collect();
    let [link, peer] = [[0x2001, 0xdb8, 0, 1, 0, 0, 0, 1], [0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 9]].map(Ipv6Addr::from);
    let once = relay_forward(link, peer, &v6_of(1));
    messages.push(named("v6-relayed-twice", relay_forward(Ipv6Addr::UNSPECIFIED, link, &once)));
    messages.push(named("v6-relayed-cut", &once[..33]));
    messages.push(named("v6-relayed-whole", &once[..34]));
    messages.push(named("v6-relayed", once));
    messages.push(named("v6-empty", []));
    messages
}
