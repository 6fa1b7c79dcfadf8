//! Sending frames from memory that is shared with the kernel (PACKET_TX_RING): of each, it copies the Ethernet header alone,
//! and whoever reads further must ask it for more.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
};

use anyhow::{Context as _, Result, ensure};

use crate::{netns::Netns, packet_socket::PacketSocket};

/// One page, with room for one frame.
const SIZE: usize = 4096;
/// `TPACKET_ALIGN(sizeof(struct tpacket2_hdr))`, include/uapi/linux/if_packet.h: where a frame begins that is to be sent.
const FRAME: usize = 32;
/// Fields of that header, all of 32 bits.
const STATUS: usize = 0;
const LEN: usize = 1;
/// `TPACKET_V2`.
const VERSION: libc::c_int = 1;
/// `TP_STATUS_SEND_REQUEST`.
const SEND: u32 = 1;

/// See the module.
#[derive(Debug)]
pub struct PacketRing {
    socket: PacketSocket,
    memory: *mut u8,
}

impl PacketRing {
    /// One that sends by this interface.
    ///
    /// # Errors
    /// The kernel's; no such interface.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        let socket = PacketSocket::open(netns, interface)?;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_VERSION, VERSION).context("no packet ring")?;
        // `struct tpacket_req`: size and number of blocks, size and number of frames.
        let size = SIZE as libc::c_uint;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_TX_RING, [size, 1, size, 1]).context("no packet ring")?;
        // SAFETY: new memory, which nobody knows yet.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_fd().as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map the packet ring");
        }
        Ok(Self { socket, memory: memory.cast() })
    }

    /// Sends a frame, and waits until the kernel has taken it.
    ///
    /// # Errors
    /// The kernel's; a frame that is too long.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        ensure!(frame.len() <= SIZE - FRAME, "{} bytes do not fit into the ring", frame.len());
        let header = self.memory.cast::<u32>();
        // SAFETY: in the mapped page, which begins aligned; the kernel leaves it alone until the status says otherwise.
        unsafe {
            ptr::copy_nonoverlapping(frame.as_ptr(), self.memory.add(FRAME), frame.len());
            header.add(LEN).write_volatile(u32::try_from(frame.len())?);
            header.add(STATUS).write_volatile(SEND);
        }
        self.socket.send(&[]).context("cannot send what is in the packet ring")?;
        // SAFETY: as above.
        let status = unsafe { header.add(STATUS).read_volatile() };
        ensure!(status & SEND == 0, "the kernel did not take the frame: status {status}");
        Ok(())
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: ours, and not used any more.
        unsafe { libc::munmap(self.memory.cast(), SIZE) };
    }
}
