//! Signs of one agent for others: that it guards an interface, that it lives and has a filter there. The kernel tells an agent with
//! few rights that there are programs, but not what they are called; and never do two guards judge the same frames.
//!
//! A sign is a socket without a file: it is seen in its network namespace alone, as the interface is, and ends with its
//! process. Anybody may take such a name, so it counts only if root has it, or our own user.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use log::warn;
use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt::socket_peercred},
    process::geteuid,
};

/// What says that an agent guards an interface.
pub(super) fn of_guard(ifindex: u32) -> String {
    format!("dhcp-guard/guards-{ifindex}")
}

/// A sign of ours; it is there for as long as this is.
#[derive(Debug)]
pub(super) struct Sign(UnixListener);

impl Sign {
    /// Sends whoever has looked away again: more than some hundred who wait would hide it. To be called now and then.
    pub(super) fn send_away(&self) {
        while self.0.accept().is_ok() {}
    }
}

/// Puts one up. None: somebody has the name who is no agent, and we do without.
///
/// # Errors
/// `AddrInUse`: another agent has put it up. The system's others.
pub(super) fn put_up(name: &str) -> io::Result<Option<Sign>> {
    match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(socket) => socket.set_nonblocking(true).map(|()| Some(Sign(socket))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_up(name) => {
            warn!("a process that is no agent has the socket @{name}: other agents cannot see that there is one here");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether an agent has put it up: root, or our own user. Who does not answer at once is none.
pub(super) fn is_up(name: &str) -> bool {
    let owner = || -> rustix::io::Result<_> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        socket_peercred(&socket)
    };
    owner().is_ok_and(|owner| owner.uid.is_root() || owner.uid == geteuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_until_it_ends() {
        let name = format!("dhcp-guard/test-{}", std::process::id());
        assert!(!is_up(&name));
        let sign = put_up(&name).unwrap();
        assert!(sign.is_some() && is_up(&name));
        assert_eq!(put_up(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        for _ in 0..1000 {
            assert!(is_up(&name));
            sign.as_ref().unwrap().send_away();
        }
        drop(sign);
        assert!(!is_up(&name) && put_up(&name).unwrap().is_some());
    }
}
