//! Frames out of an interface as they are, through the stack: unlike what XDP redirects, they pass the interface's queue
//! and whatever looks at frames there.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use crate::netns::Netns;

/// A socket that sends whole frames through one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl PacketSocket {
    /// For an interface of a namespace.
    ///
    /// # Errors
    /// The kernel's; no such interface.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        let ifindex = netns.ifindex(interface)?;
        let socket = netns.run(open)?.context("cannot open a packet socket")?;
        // SAFETY: all zeros is a valid address; the fields that matter follow.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = ifindex as i32;
        Ok(Self { socket, to })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: a frame and an address that live through the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.to).cast(),
                size_of_val(&self.to) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: no memory involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
