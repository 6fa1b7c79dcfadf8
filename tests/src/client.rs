//! Real DHCP clients: dhclient, without touching the system it runs on.
//!
//! Its configuration and its leases are files in memory, reached through /proc, so there is nothing to clean up.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Write as _},
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _},
    panic,
    process::Command,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{process::Process, topology::Machine};

/// Where Debian puts it; /usr/sbin is not in everyone's PATH.
pub const DHCLIENT: &str = "/usr/sbin/dhclient";

/// Retransmits as RFC 2131 (section 4.1) recommends, after about 4, 8 and 16 s, and takes the first offer at once.
const CONFIGURATION: &str = "initial-delay 0; initial-interval 4; backoff-cutoff 16; select-timeout 0;\n\
                             reboot 10; timeout 600; retry 1;\n\
                             request subnet-mask, broadcast-address, routers;\n";

/// What came of asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client is bound.
    Lease(Lease),
    /// It is not.
    NoLease {
        /// The last lines the client wrote, and whether it ended or ran out of time.
        why: String,
    },
}

/// A lease, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// From the start of the client, including its own start-up of some tens of milliseconds.
    pub elapsed: Duration,
    /// From the client's first message.
    pub exchange: Duration,
    /// DHCPDISCOVERs the client sent; 0 for a renewal that was answered.
    pub discovers: u32,
    /// DHCPREQUESTs the client sent.
    pub requests: u32,
}

impl Outcome {
    /// The lease, if there is one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Lease(lease) => Some(lease),
            Self::NoLease { .. } => None,
        }
    }
}

/// The leases among some outcomes.
#[must_use]
pub fn leases(outcomes: &[Outcome]) -> Vec<Lease> {
    outcomes.iter().filter_map(Outcome::lease).copied().collect()
}

/// A machine's client and its memory of leases.
#[derive(Debug)]
pub struct Client {
    machine: Machine,
    configuration: File,
    leases: File,
}

impl Client {
    /// A client that has never had a lease.
    pub fn new(machine: &Machine) -> Result<Self> {
        let mut configuration = memory_file(c"dhclient.conf")?;
        configuration.write_all(CONFIGURATION.as_bytes()).context("cannot write a file in memory")?;
        Ok(Self { machine: machine.clone(), configuration, leases: memory_file(c"dhclient.leases")? })
    }

    /// Asks for a lease until it is bound or `deadline` is over; then the client process is killed without releasing.
    ///
    /// The first time that is DISCOVER, OFFER, REQUEST, ACK; once there is a lease it is the REQUEST of a machine that
    /// reboots (RFC 2131 INIT-REBOOT), which falls back to DISCOVER when nobody answers.
    pub fn run(&mut self, deadline: Duration) -> Result<Outcome> {
        let start = Instant::now();
        let (lines, output) = mpsc::channel();
        let process = Process::start(self.command(), move |line| drop(lines.send(line.to_owned())))?;
        let (mut discovers, mut requests, mut asked) = (0, 0, None);
        let end = loop {
            let line = match output.recv_timeout(deadline.saturating_sub(start.elapsed())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => break format!("not bound after {deadline:?}"),
                Err(RecvTimeoutError::Disconnected) => break "dhclient ended".into(),
            };
            discovers += u32::from(line.starts_with("DHCPDISCOVER on"));
            requests += u32::from(line.starts_with("DHCPREQUEST for"));
            if discovers + requests > 0 {
                asked.get_or_insert_with(Instant::now);
            }
            if let Some(address) = bound_to(&line) {
                let elapsed = start.elapsed();
                let exchange = asked.map_or(elapsed, |asked: Instant| asked.elapsed());
                return Ok(Outcome::Lease(Lease { address, elapsed, exchange, discovers, requests }));
            }
        };
        Ok(Outcome::NoLease { why: format!("{} {end}:\n{}", self.machine.interface, process.last_lines()) })
    }

    fn command(&self) -> Command {
        let mut command = self.machine.netns.command(DHCLIENT);
        command
            // One try, in the foreground, IPv4, and no script: no address is ever configured.
            .args(["-4", "-1", "-d", "-sf", "/bin/true", "--no-pid"])
            .args(["-cf", &path(&self.configuration), "-lf", &path(&self.leases)])
            .arg(&self.machine.interface);
        command
    }
}

/// Runs clients all at once, each with the same deadline; answers in their order.
pub fn run_all(clients: &mut [Client], deadline: Duration) -> Result<Vec<Outcome>> {
    run_paced(clients, Duration::ZERO, deadline)
}

/// The same, each starting some time after the one before, so that they do not fight for the CPU.
pub fn run_paced(clients: &mut [Client], apart: Duration, deadline: Duration) -> Result<Vec<Outcome>> {
    thread::scope(|scope| {
        let run = |(client, index): (_, u32)| {
            scope.spawn(move || {
                // why: the pace of the clients.
                thread::sleep(apart * index);
                Client::run(client, deadline)
            })
        };
        let running: Vec<_> = clients.iter_mut().zip(0..).map(run).collect();
        running.into_iter().map(|client| client.join().unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
    })
}

/// The address in `bound to 10.77.1.2 -- renewal in 51 seconds.`
fn bound_to(line: &str) -> Option<Ipv4Addr> {
    line.strip_prefix("bound to ")?.split_whitespace().next()?.parse().ok()
}

/// A file without a name that goes with its last descriptor.
fn memory_file(label: &CStr) -> Result<File> {
    // SAFETY: a NUL-terminated string that lives through the call.
    let fd = unsafe { libc::memfd_create(label.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("cannot make a file in memory");
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Where other processes find a file of ours.
fn path(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_bound() {
        assert_eq!(bound_to("bound to 10.77.1.2 -- renewal in 51 seconds."), Some(Ipv4Addr::new(10, 77, 1, 2)));
        assert_eq!(bound_to("DHCPACK of 10.77.1.2 from 10.77.0.1"), None);
    }
}
