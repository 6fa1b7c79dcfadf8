//! Many machines that flood at once, each at a modest rate: one thread sends for all of them, through packet sockets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{mac::Mac, packet_socket::PacketSocket, packets::discover, topology::Injection};

/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(2);

/// A running stampede; stopped on drop.
#[derive(Debug)]
pub struct Stampede {
    start: Instant,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<u64>>,
}

impl Stampede {
    /// Each of these MACs, from where it is, starts to send so many DISCOVERs a second, for `max_time` at most.
    pub fn start(machines: &[(Injection, Mac)], rate_pps: u64, max_time: Duration) -> Result<Self> {
        let open = |(from, mac): &(Injection, Mac)| {
            Ok((PacketSocket::open(&from.netns, &from.interface)?, discover(*mac).bytes()))
        };
        let machines: Vec<_> = machines.iter().map(open).collect::<Result<_>>()?;
        let (stop, start) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let stopped = Arc::clone(&stop);
        let body = move || send(&machines, rate_pps, start, max_time, &stopped);
        let sender = thread::Builder::new().name("stampede".into()).spawn(body).context("cannot start a thread")?;
        Ok(Self { start, stop, sender: Some(sender) })
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.start
    }

    /// Stops, and answers how many frames each machine sent.
    #[must_use]
    pub fn stop(mut self) -> u64 {
        self.join()
    }

    fn join(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.take().and_then(|sender| sender.join().ok()).unwrap_or(0)
    }
}

impl Drop for Stampede {
    fn drop(&mut self) {
        self.join();
    }
}

fn send(
    machines: &[(PacketSocket, Vec<u8>)],
    rate_pps: u64,
    start: Instant,
    max_time: Duration,
    stop: &AtomicBool,
) -> u64 {
    let mut sent = 0u64;
    while !stop.load(Ordering::Relaxed) && start.elapsed() < max_time {
        let due = (start.elapsed().as_secs_f64() * rate_pps as f64) as u64;
        // Whoever was kept waiting for long does not catch up in one burst.
        for _ in 0..due.saturating_sub(sent).min(rate_pps.div_ceil(20)) {
            sent += 1;
            for (socket, frame) in machines {
                // A full queue loses the frame, as a wire would.
                let _ = socket.send(frame);
            }
        }
        // why: the pace of the frames.
        thread::sleep(TICK);
    }
    sent
}
