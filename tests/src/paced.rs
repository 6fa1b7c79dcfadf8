//! A thread that sends at a steady pace until its time is over, or it is stopped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// How fast, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Turns a second.
    pub(crate) rate_pps: u64,
    /// How often what is due is sent.
    pub(crate) tick: Duration,
    /// Turns in one tick at most: whoever was kept waiting for long does not catch up in one burst.
    pub(crate) most: u64,
    /// Until then it stops by itself.
    pub(crate) max_time: Duration,
}

/// The running thread; stopped on drop.
#[derive(Debug)]
pub(crate) struct Paced {
    start: Instant,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Paced {
    /// Starts a thread of this name, which calls `send` with the number of each turn, from 1.
    pub(crate) fn start(name: &str, pace: Pace, send: impl FnMut(u64) + Send + 'static) -> Result<Self> {
        let (start, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let body = move || run(pace, start, &stopped, send);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body).context("cannot start a thread")?;
        Ok(Self { start, stop, thread: Some(thread) })
    }

    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.start
    }

    /// Stops it, and answers how many turns there were.
    pub(crate) fn stop(mut self) -> u64 {
        self.join()
    }

    fn join(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(0)
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.join();
    }
}

fn run(pace: Pace, start: Instant, stop: &AtomicBool, mut send: impl FnMut(u64)) -> u64 {
    let mut turns = 0u64;
    while !stop.load(Ordering::Relaxed) && start.elapsed() < pace.max_time {
        let due = (start.elapsed().as_secs_f64() * pace.rate_pps as f64) as u64;
        for _ in 0..due.saturating_sub(turns).min(pace.most) {
            turns += 1;
            send(turns);
        }
        // why: the pace of the frames.
        thread::sleep(pace.tick);
    }
    turns
}
