//! A sign for other agents that this one guards an interface. The kernel tells an agent with few rights that there are programs
//! on it, but not what they are called; and never do two guards judge the same frames.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// A socket without a file: it is seen in its network namespace alone, as the interface is, and ends with its process.
#[derive(Debug)]
pub(super) struct Sign(#[expect(dead_code, reason = "it is there, that is all")] UnixDatagram);

/// Puts it up.
///
/// # Errors
/// `AddrInUse`: another agent has.
pub(super) fn put_up(ifindex: u32) -> io::Result<Sign> {
    let name = SocketAddr::from_abstract_name(format!("dhcp-guard/guards-{ifindex}"))?;
    UnixDatagram::bind_addr(&name).map(Sign)
}
