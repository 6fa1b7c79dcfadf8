//! Links to flood, and the rate at which one takes frames.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::super::{
    contention::Taken,
    machine::{Cpus, Preferred},
};
use crate::{
    flood::{Flood, Limits, Traffic},
    link,
    netns::Netns,
    topology::Injection,
    wait,
};

/// What a flood came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Frames received per second, while it ran.
    pub(super) pps: f64,
    /// Share of the time that others took from the sender.
    taken: f64,
    /// Frames received in all.
    pub(super) received: u64,
}

/// More than this of its time taken from a flood makes it worthless.
const MOST_TAKEN: f64 = 0.02;

impl Measured {
    pub(super) fn is_disturbed(&self) -> bool {
        self.taken > MOST_TAKEN
    }

    #[cfg(test)]
    pub(super) fn for_tests(pps: f64, taken: f64) -> Self {
        Self { pps, taken, received: 0 }
    }
}

/// What [`crate::flood`] calls the thread that sends (the kernel keeps 15 bytes of it).
const SENDER_THREAD: &str = "flood-sender";
/// Longest time a flood may take to start.
const START: Duration = Duration::from_secs(5);

/// Links from one namespace to another, by their number.
pub(super) struct TestBed {
    sender: Netns,
    pub(super) receiver: Netns,
}

impl TestBed {
    pub(super) fn new(links: usize) -> Result<Self> {
        let bed = Self { sender: Netns::new("flood")?, receiver: Netns::new("receiver")? };
        for link in 0..links {
            let (sender, receiver, path) = (sender(link), receiver(link), bed.receiver.path());
            bed.sender.ip(&format!("link add {sender} type veth peer name {receiver} netns {path}\n"))?;
            bed.sender.ip(&format!("link set {sender} up\n"))?;
            bed.receiver.ip(&format!("link set {receiver} up\n"))?;
            link::accept_redirects(&bed.receiver, &receiver)?;
        }
        Ok(bed)
    }

    /// Floods a link and measures in the middle of it.
    pub(super) fn rate(&self, link: usize, traffic: &Traffic, time: Duration) -> Result<Measured> {
        let interface = receiver(link);
        let received = || anyhow::Ok((Instant::now(), link::received(&self.receiver, &interface)?.frames));
        let from = Injection { netns: self.sender.clone(), interface: sender(link) };
        let (_, before) = received()?;
        let flood = start_on_last_cpu(&from, traffic, START + 4 * time)?;
        wait::until("the first frame of the flood", START, || Ok(received()?.1 > before))?;
        let taken_before = Taken::from_thread(SENDER_THREAD)?;
        let (start, first) = received()?;
        // why: the passing of real time is what is measured.
        thread::sleep(time);
        let (end, last) = received()?;
        let taken = Taken::from_thread(SENDER_THREAD)?.since(&taken_before);
        flood.stop()?;
        let elapsed = (end - start).as_secs_f64();
        let (pps, taken) = ((last - first) as f64 / elapsed, taken as f64 / 1e9 / elapsed);
        Ok(Measured { pps, taken, received: received()?.1 - before })
    }
}

/// Name of the sending end.
fn sender(link: usize) -> String {
    format!("to{link}")
}

/// Name of the receiving end.
pub(super) fn receiver(link: usize) -> String {
    format!("at{link}")
}

/// The flood stays on the CPU it is started on. It is always the same one, others come second there, and the measuring
/// thread is free to use the rest of the machine.
fn start_on_last_cpu(from: &Injection, traffic: &Traffic, max_time: Duration) -> Result<Flood> {
    let cpus = Cpus::current()?;
    cpus.last().keep_to()?;
    let _preferred = Preferred::new()?;
    let flood = Flood::start(from, traffic.clone(), Limits::time(max_time));
    cpus.keep_to()?;
    flood
}
