//! Frames out of an interface as they are, through the stack: unlike what XDP redirects, they pass the interface's queue
//! and whatever looks at frames there. And frames in by it, whoever they are for.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use crate::netns::Netns;

/// A socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    ifindex: i32,
}

impl PacketSocket {
    /// One that only sends: nothing is queued for it.
    ///
    /// # Errors
    /// The kernel's; no such interface.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        let ifindex = i32::try_from(netns.ifindex(interface)?)?;
        let fd = netns.run(socket)?.context("cannot open a packet socket")?;
        Ok(Self { fd, ifindex })
    }

    /// One that also receives whatever comes in by the interface from now on, to anybody.
    ///
    /// # Errors
    /// See [`PacketSocket::open`].
    pub fn both_ways(netns: &Netns, interface: &str) -> Result<Self> {
        let socket = Self::open(netns, interface)?;
        socket.receive_from_now_on().with_context(|| format!("cannot receive frames on `{interface}`"))?;
        Ok(socket)
    }

    fn receive_from_now_on(&self) -> io::Result<()> {
        // What is sent by this interface would come back otherwise.
        self.set_option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        // Room for what comes while the reader is kept waiting.
        self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20)?;
        let address = self.address((libc::ETH_P_ALL as u16).to_be());
        // SAFETY: an address that lives through the call.
        check(unsafe {
            libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        })
    }

    pub(crate) fn set_option<T: Copy>(&self, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
        // SAFETY: a value that lives through the call.
        check(unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        })
    }

    fn address(&self, protocol: u16) -> libc::sockaddr_ll {
        // SAFETY: all zeros is a valid address; the fields that matter follow.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = self.ifindex;
        address
    }

    /// Sends a frame. A full queue loses it, as a wire would: an error that most senders do not care about.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let to = self.address(0);
        // SAFETY: a frame and an address that live through the call.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that came in, cut to the buffer's length; none: there is none yet, or the interface is gone.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let (start, len) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: a buffer of this length that lives through the call.
        let len = unsafe { libc::recv(self.fd.as_raw_fd(), start.cast(), len, libc::MSG_DONTWAIT) };
        buffer.get(..usize::try_from(len).ok()?)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory involved. Protocol 0 receives nothing.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The C convention for "failed, see errno".
fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
