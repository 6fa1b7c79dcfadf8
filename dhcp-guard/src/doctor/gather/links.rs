//! Interfaces, by netlink: sysfs shows the network namespace that it was mounted in, which may be another one.

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    AddressFamily,
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage},
};

use crate::{
    dataplane::interface,
    doctor::facts::{Device, Link, OnXdp, Program},
};

/// An interface: what it is, and what it is to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) device: Device,
    pub(super) link: Link,
}

/// All interfaces of this network namespace.
pub(super) async fn all() -> anyhow::Result<Vec<Found>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    // Without being asked for them, the kernel does not mention virtual functions.
    let mask = vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats];
    let request = handle.link().get().set_filter_mask(AddressFamily::Unspec, mask);
    let links: Result<Vec<LinkMessage>, _> = request.execute().try_collect().await;
    connection.abort();
    Ok(links?.iter().map(describe).collect())
}

fn describe(message: &LinkMessage) -> Found {
    let mut device = Device { ifindex: message.header.index, ..Device::default() };
    let up = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link { ifindex: message.header.index, up, ..Link::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::NumVf(vfs) => link.vfs = *vfs,
            LinkAttribute::Controller(index) => device.controller = Some(*index),
            LinkAttribute::Link(index) => device.lower = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                device.kind.clone_from(&kind);
                link.kind = kind;
            }
            LinkAttribute::Xdp(xdp) => {
                link.xdp = interface::on_xdp(xdp).map(|xdp| OnXdp {
                    program: Program { id: xdp.program, name: String::new() },
                    native: !xdp.is_generic,
                });
            }
            _ => {}
        }
    }
    Found { device, link }
}
