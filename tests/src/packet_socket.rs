//! Packet sockets: frames as they are, out of an interface and in by it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use crate::topology::Injection;

/// A socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    ifindex: i32,
}

impl PacketSocket {
    /// One that only sends: nothing is queued for it.
    pub fn sender(from: &Injection) -> Result<Self> {
        Self::open(from).with_context(|| failed(from))
    }

    /// One that also receives whatever comes in by the interface, to anybody. It never waits.
    pub fn both_ways(on: &Injection) -> Result<Self> {
        let socket = Self::open(on)?;
        socket.receive_from_now_on().with_context(|| failed(on))?;
        Ok(socket)
    }

    fn open(from: &Injection) -> Result<Self> {
        let ifindex = i32::try_from(from.netns.ifindex(&from.interface)?)?;
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory involved. Protocol 0 receives nothing.
        let fd = from.netns.run(|| match unsafe { libc::socket(libc::AF_PACKET, flags, 0) } {
            fd if fd < 0 => Err(io::Error::last_os_error()),
            // SAFETY: just opened, and nobody else's.
            fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        })??;
        Ok(Self { fd, ifindex })
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

    fn set_option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
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

    /// Sends a frame. A full queue loses it, as a wire would; that is an error which most senders do not care about.
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
        // SAFETY: a buffer of this length that lives through the call.
        let len = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        buffer.get(..usize::try_from(len).ok()?)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn failed(on: &Injection) -> String {
    format!("cannot open a packet socket on `{}` in the namespace `{}`", on.interface, on.netns.label())
}

/// The C convention for "failed, see errno".
fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
