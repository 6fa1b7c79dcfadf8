//! A real DHCP server: dnsmasq.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    netns::Netns,
    process::Process,
    tally::{Counts, Tally},
};

/// Where Debian puts it; /usr/sbin is not in everyone's PATH.
pub const DNSMASQ: &str = "/usr/sbin/dnsmasq";
/// A DHCP server that has not said it is ready by then is broken.
const READY_DEADLINE: Duration = Duration::from_secs(10);

/// A running server, and what it says.
#[derive(Debug)]
pub struct Server {
    /// Before the namespace, so that the process ends first. None: it was killed.
    process: Option<Process>,
    options: Vec<String>,
    log: Arc<Log>,
    tally: Tally,
    /// Where it runs.
    pub netns: Netns,
    /// Its interface.
    pub interface: String,
}

/// Messages in the server's log.
#[derive(Debug, Default)]
struct Log {
    discover: AtomicU64,
    offer: AtomicU64,
    request: AtomicU64,
    ack: AtomicU64,
}

/// Messages that the server says it received or sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logged {
    /// DHCPDISCOVER received.
    pub discover: u64,
    /// DHCPOFFER sent.
    pub offer: u64,
    /// DHCPREQUEST received.
    pub request: u64,
    /// DHCPACK sent.
    pub ack: u64,
}

impl Server {
    /// Starts the server on `interface` (10.77.0.1/16), with further options, and waits until it is ready.
    pub fn start(netns: Netns, interface: &str, options: &[&str]) -> Result<Self> {
        let tally = Tally::start(netns.clone(), interface)?;
        let options = options.iter().map(ToString::to_string).collect();
        let log = Arc::default();
        let mut server = Self { process: None, options, log, tally, netns, interface: interface.into() };
        server.restart()?;
        Ok(server)
    }

    /// Kills it, if it runs: it says nothing to anybody. Its interface stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it anew, without a memory of its leases, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let (ready, is_ready) = mpsc::channel();
        let process = Process::start(self.command(), {
            let log = Arc::clone(&self.log);
            move |line| {
                log.count(line);
                if line.contains("DHCP, IP range") {
                    // Nobody listens any more after the first time.
                    let _ = ready.send(());
                }
            }
        })?;
        if is_ready.recv_timeout(READY_DEADLINE).is_err() {
            anyhow::bail!("dnsmasq is not ready after {READY_DEADLINE:?}:\n{}", process.last_lines());
        }
        self.process = Some(process);
        Ok(())
    }

    /// In the foreground, DHCP only, no files at all.
    fn command(&self) -> std::process::Command {
        let mut command = self.netns.command(DNSMASQ);
        command
            .args(["--no-daemon", "--conf-file=/dev/null", "--user=root", "--group=root", "--pid-file"])
            .args(["--port=0", "--no-resolv", "--no-hosts", "--bind-interfaces"])
            .arg(format!("--interface={}", self.interface))
            .args(["--dhcp-range=10.77.1.0,10.77.250.0,255.255.0.0,2m", "--dhcp-authoritative"])
            // Leases are in memory only: nothing to clean up. The default of 1,000 leases is less than a flood can take.
            .args(["--leasefile-ro", "--dhcp-lease-max=100000"])
            // It would wait three seconds for an echo before every offer.
            .arg("--no-ping")
            .args(&self.options);
        command
    }

    /// Frames that arrived at the server's interface, counted by the kernel.
    pub fn counts(&self) -> Result<Counts> {
        self.tally.counts()
    }

    /// What the server's log says so far. Under a flood it lags behind what arrived, and what the server's socket had
    /// no room for is missing.
    #[must_use]
    pub fn logged(&self) -> Logged {
        let Log { discover, offer, request, ack } = &*self.log;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Logged { discover: load(discover), offer: load(offer), request: load(request), ack: load(ack) }
    }

    /// The last lines of the server's log.
    #[must_use]
    pub fn last_lines(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::last_lines)
    }

    /// Fails if the server has ended.
    pub fn check_running(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the DHCP server was killed")?;
        process.check_running().context("the DHCP server")
    }
}

impl Log {
    fn count(&self, line: &str) {
        let Self { discover, offer, request, ack } = self;
        let kinds = [("DHCPDISCOVER(", discover), ("DHCPOFFER(", offer), ("DHCPREQUEST(", request), ("DHCPACK(", ack)];
        if let Some((_, counter)) = kinds.iter().find(|(name, _)| line.contains(name)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}
