//! Reads the kernel's ring buffers: the events of the data plane and, on demand, its debug log.

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use aya_log::EbpfLogger;
use dhcp_guard_common::layout::Event;
use log::warn;
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc::{self, error::TrySendError},
};

use crate::dataplane::{self, DataPlane};

/// Events that may wait for the decision loop.
const QUEUE: usize = 1024;

/// Starts reading the events.
///
/// # Errors
/// If the ring buffer cannot be polled.
pub fn open(plane: &mut DataPlane) -> anyhow::Result<mpsc::Receiver<Event>> {
    let ring = plane.take_events().context("the BPF program has no event buffer")?;
    // SAFETY: the ring buffer owns its descriptor, and keeps the same one until it is dropped.
    let ring = unsafe { AsyncFd::register(ring) }.context("cannot poll the event buffer")?;
    let (events, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(read(ring, events));
    Ok(receiver)
}

/// Reads until nobody listens any more.
async fn read(mut ring: AsyncFd<RingBuf<MapData>>, events: mpsc::Sender<Event>) {
    let mut lost: u64 = 0;
    loop {
        let mut ready = tokio::select! {
            ready = ring.readable_mut() => match ready {
                Ok(ready) => ready,
                Err(error) => return warn!("cannot read the kernel's events any more: {error}"),
            },
            () = events.closed() => return,
        };
        // All of it, and only then "not ready": the kernel wakes the reader for the first item alone.
        while let Some(item) = ready.get_inner_mut().next() {
            let Some(event) = dataplane::decode_event(&item) else { continue };
            if let Err(TrySendError::Full(_)) = events.try_send(event) {
                lost += 1;
                if lost.is_power_of_two() {
                    warn!("the decision loop is late: {lost} events lost so far");
                }
            }
        }
        ready.clear_ready();
    }
}

/// The program's debug log.
pub struct Log(AsyncFd<EbpfLogger<&'static dyn log::Log>>);

impl Log {
    /// Takes the log's buffer.
    ///
    /// # Errors
    /// If the program has none or it cannot be polled.
    pub fn open(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let logger = EbpfLogger::init(ebpf).context("cannot open the kernel program's debug log")?;
        // SAFETY: the logger owns its ring buffer's descriptor, and keeps the same one until it is dropped.
        let logger = unsafe { AsyncFd::register(logger) }.context("cannot poll the kernel program's debug log")?;
        Ok(Self(logger))
    }

    /// Passes the messages on to the `log` crate until it is aborted.
    pub async fn run(mut self) {
        while let Ok(mut ready) = self.0.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}
