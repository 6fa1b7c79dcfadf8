//! A slow companion to the flood that goes the way of ordinary frames, through a packet socket.
//!
//! Why: a frame that the generator redirects is charged a whole page wherever it is queued, a frame of a real client
//! about a kilobyte. Before a server's full socket buffer the big ones are turned away while the small ones still fit
//! into what is left, so that the generator alone is kinder to real clients than any network card: there a flood's
//! frames and everybody else's are charged alike. The companion's frames are, and take that room.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    mac::Mac,
    packets::{CHADDR_IN_MESSAGE, discover},
    topology::Injection,
};

/// Frames a second: more than a server answers, little against the flood.
const RATE_PPS: u64 = 30_000;
/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(1);
/// Where the client hardware address of an untagged frame without IP options is: Ethernet 14, IPv4 20, UDP 8.
const CHADDR_IN_FRAME: usize = 42 + CHADDR_IN_MESSAGE;

/// A running companion; stopped on drop.
#[derive(Debug)]
pub struct Trickle {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<u64>>,
}

impl Trickle {
    /// Starts to send DISCOVERs of `source`, each with another client hardware address, for `max_time` at most.
    pub fn start(from: &Injection, source: Mac, max_time: Duration) -> Result<Self> {
        let ifindex = from.netns.ifindex(&from.interface)?;
        let socket = from.netns.run(packet_socket)?.context("cannot open a packet socket")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || send(&socket, ifindex, source, max_time, &stopped);
        let sender = thread::Builder::new().name("trickle".into()).spawn(body).context("cannot start a thread")?;
        Ok(Self { stop, sender: Some(sender) })
    }

    /// Stops, and answers how many frames it sent.
    #[must_use]
    pub fn stop(mut self) -> u64 {
        self.join()
    }

    fn join(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.take().and_then(|sender| sender.join().ok()).unwrap_or(0)
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.join();
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(socket: &OwnedFd, ifindex: u32, source: Mac, max_time: Duration, stop: &AtomicBool) -> u64 {
    // SAFETY: all zeros is a valid address; the fields that matter follow.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = ifindex as i32;
    let mut frame = discover(source);
    // The address changes in place.
    frame.checksum = false;
    let mut bytes = frame.bytes();
    let (start, mut sent) = (Instant::now(), 0u64);
    while !stop.load(Ordering::Relaxed) && start.elapsed() < max_time {
        let due = (start.elapsed().as_secs_f64() * RATE_PPS as f64) as u64;
        // Whoever was kept waiting for long does not catch up in one burst.
        for _ in 0..due.saturating_sub(sent).min(RATE_PPS / 100) {
            sent += 1;
            bytes[CHADDR_IN_FRAME + 2..][..4].copy_from_slice(&(sent as u32).to_be_bytes());
            // SAFETY: a frame and an address that live through the call. A full queue loses the frame, as a wire would.
            unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    0,
                    (&raw const to).cast(),
                    size_of_val(&to) as libc::socklen_t,
                )
            };
        }
        // why: the pace of the frames.
        thread::sleep(TICK);
    }
    sent
}
