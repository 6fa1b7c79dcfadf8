//! The networks of the lab.
//!
//! ```text
//! Uplink:      machines            fabric                     host                          server
//!              m0 … m(N-1) ──── fp0 … fp(N-1) ┐
//!                                     fabric0 ├ fab-up ──── uplink0 ┐ br0 ┌ to-server ──── srv0 10.77.0.1/16
//!
//! PerMachine:  machines                                       host                          server
//!              m0 … m(N-1) ──────────────────────────── em0 … em(N-1) ┐ br0 ┌ to-server ── srv0
//! ```
//!
//! In `Uplink` the machines are told apart by their MAC on one guarded interface; in `PerMachine` the interface is the
//! port. `Mixed` is both in one: some machines behind the uplink, the others on interfaces of their own.

use std::{fmt::Write as _, ops::Range, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    client::{self, Client, Outcome},
    link::{self, Received},
    mac::Mac,
    netns::Netns,
    server::Server,
};

/// Which network to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All machines behind one interface of the host.
    Uplink,
    /// An interface of the host for every machine.
    PerMachine,
    /// The first machines behind the uplink, each of the others on an interface of its own.
    Mixed {
        /// How many are the first.
        behind_uplink: usize,
    },
}

impl Layout {
    /// How many of so many machines are behind the uplink.
    fn behind_uplink(self, machines: usize) -> usize {
        match self {
            Self::Uplink => machines,
            Self::PerMachine => 0,
            Self::Mixed { behind_uplink } => behind_uplink.min(machines),
        }
    }
}

/// The guarded interface that machines share.
pub(crate) const UPLINK: &str = "uplink0";
/// The host's interface towards the server: whoever guards it, too, sees replies.
pub const TO_SERVER: &str = "to-server";

/// A machine behind the guarded host.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where it lives.
    pub netns: Netns,
    /// Its interface.
    pub interface: String,
    /// Its address.
    pub mac: Mac,
    /// The interface of the host that its frames come in by.
    pub guarded: String,
}

impl Machine {
    /// Where to send from to look like it, and like nobody else.
    #[must_use]
    pub fn end(&self) -> Injection {
        Injection { netns: self.netns.clone(), interface: self.interface.clone() }
    }
}

/// Has machines ask for a lease, all at once, with clients that have never had one. In the order of the machines.
pub(crate) fn get_leases(machines: &[Machine], deadline: Duration) -> Result<Vec<Outcome>> {
    let clients: Result<Vec<_>> = machines.iter().map(Client::new).collect();
    client::run_all(&mut clients?, deadline)
}

/// Where to inject frames so that they come in by a guarded interface.
#[derive(Clone, Debug)]
pub struct Injection {
    /// The namespace to send from.
    pub netns: Netns,
    /// The interface to send on, a veth whose peer is guarded.
    pub interface: String,
}

/// A network with a DHCP server; dropping it removes all of it.
#[derive(Debug)]
pub struct Lab {
    /// The DHCP server. Before the namespaces, so that it ends before its interface does.
    pub server: Server,
    /// The guarded host's namespace: attach here.
    pub host: Netns,
    /// The machines, all in one namespace.
    pub machines: Vec<Machine>,
    fabric: Option<Netns>,
}

/// The bridge of a namespace: it forwards at once, and does nothing but forward.
pub(crate) const BRIDGE: &str = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0";
/// The server's address and the machines' network.
const SERVER_ADDRESS: &str = "10.77.0.1/16";

impl Lab {
    /// Builds the network and waits until it forwards and the server answers.
    pub fn new(layout: Layout, machines: usize) -> Result<Self> {
        Self::with_server(layout, machines, &[])
    }

    /// The same with further options of the server.
    pub fn with_server(layout: Layout, machines: usize, server_options: &[&str]) -> Result<Self> {
        let inside = Netns::new("machines")?;
        let host = Netns::new("host")?;
        let server = Netns::new("server")?;
        connect_server(&host, &server)?;
        let shared = layout.behind_uplink(machines);
        let has_uplink = layout != Layout::PerMachine;
        let fabric = has_uplink.then(|| build_uplink(&inside, &host, shared)).transpose()?;
        build_ports(&inside, &host, shared..machines)?;
        link::wait_for_ports(&host, 1 + usize::from(has_uplink) + machines - shared)?;
        let server = Server::start(server, "srv0", server_options)?;
        let guarded = |index| if index < shared { UPLINK.into() } else { format!("em{index}") };
        let machines = (0..machines).map(|index| machine(&inside, index, &guarded(index))).collect();
        Ok(Self { server, host, machines, fabric })
    }

    /// The interfaces of the host that the guard belongs on.
    #[must_use]
    pub fn guarded(&self) -> Vec<&str> {
        let own = self.machines.iter().map(|machine| machine.guarded.as_str()).filter(|name| *name != UPLINK);
        self.fabric.iter().map(|_| UPLINK).chain(own).collect()
    }

    /// Where to send from to look like machine `index`.
    #[must_use]
    pub fn injection(&self, index: usize) -> Injection {
        let machine = &self.machines[index];
        match &self.fabric {
            Some(fabric) if machine.guarded == UPLINK => {
                Injection { netns: fabric.clone(), interface: "fab-up".into() }
            }
            _ => machine.end(),
        }
    }

    /// What a guarded interface has received, before XDP has a say.
    pub fn received(&self, guarded: &str) -> Result<Received> {
        link::received(&self.host, guarded)
    }

    /// Has machines ask for a lease, all at once, with clients that have never had one. In the order of the range.
    pub fn get_leases(&self, machines: Range<usize>, deadline: Duration) -> Result<Vec<Outcome>> {
        let mut clients = self.clients(machines)?;
        client::run_all(&mut clients, deadline)
    }

    /// A client for each machine of the range, to be run once for a lease and again to renew it.
    pub fn clients(&self, machines: Range<usize>) -> Result<Vec<Client>> {
        let known = self.machines.len();
        ensure!(machines.end <= known, "machines {machines:?} of a lab of {known}");
        self.machines[machines].iter().map(Client::new).collect()
    }
}

/// What is known about machine `index` before anything is built.
pub(crate) fn machine(netns: &Netns, index: usize, guarded: &str) -> Machine {
    Machine { netns: netns.clone(), interface: format!("m{index}"), mac: Mac::machine(index), guarded: guarded.into() }
}

/// The host's bridge and its link to the server.
pub(crate) fn connect_server(host: &Netns, server: &Netns) -> Result<()> {
    host.ip(&format!(
        "link add br0 {BRIDGE}\n\
         link set br0 up\n\
         link add {TO_SERVER} type veth peer name srv0 address 02:77:00:00:00:01 netns {}\n\
         link set {TO_SERVER} up\n",
        server.path()
    ))?;
    server.ip(&format!("address add {SERVER_ADDRESS} dev srv0\nlink set srv0 up\n"))?;
    // After both ends are up, so that the port forwards at once.
    host.ip(&format!("link set {TO_SERVER} master br0\n"))?;
    link::keep_vlan_tags(host, TO_SERVER)
}

/// Machines, fabric and one uplink; answers the fabric.
fn build_uplink(machines: &Netns, host: &Netns, count: usize) -> Result<Netns> {
    let fabric = Netns::new("fabric")?;
    let (inside, outside) = (machines.path(), host.path());
    let mut batch = format!(
        "link add fabric0 {BRIDGE}\n\
         link set fabric0 up\n\
         link add fab-up type veth peer name uplink0 netns {outside}\n\
         link set fab-up up\n"
    );
    for index in 0..count {
        add_machine(&mut batch, &format!("fp{index}"), &inside, index);
    }
    fabric.ip(&batch)?;
    machines.ip(&for_each(0..count, |index| format!("link set m{index} up\n")))?;
    host.ip("link set uplink0 up\nlink set uplink0 master br0\n")?;
    fabric.ip(&format!(
        "link set fab-up master fabric0\n{}",
        for_each(0..count, |index| format!("link set fp{index} master fabric0\n"))
    ))?;
    prepare_guarded(host, UPLINK)?;
    link::wait_for_ports(&fabric, count + 1)?;
    Ok(fabric)
}

/// An interface of the host for each of these machines.
fn build_ports(machines: &Netns, host: &Netns, indexes: Range<usize>) -> Result<()> {
    let inside = machines.path();
    let mut batch = String::new();
    for index in indexes.clone() {
        add_machine(&mut batch, &format!("em{index}"), &inside, index);
    }
    host.ip(&batch)?;
    machines.ip(&for_each(indexes.clone(), |index| format!("link set m{index} up\n")))?;
    host.ip(&for_each(indexes.clone(), |index| format!("link set em{index} master br0\n")))?;
    for index in indexes {
        prepare_guarded(host, &format!("em{index}"))?;
    }
    Ok(())
}

/// What an interface of the host needs for floods to arrive, and as they were sent.
fn prepare_guarded(host: &Netns, interface: &str) -> Result<()> {
    link::accept_redirects(host, interface)?;
    link::keep_vlan_tags(host, interface)
}

/// Adds the lines that make `port` and the machine's end of the link, and bring `port` up.
pub(crate) fn add_machine(batch: &mut String, port: &str, inside: &str, index: usize) {
    let mac = Mac::machine(index);
    let link = format!("link add {port} type veth peer name m{index} address {mac} netns {inside}");
    writeln!(batch, "{link}\nlink set {port} up").expect("writing to a string cannot fail");
}

/// The lines for some machines.
pub(crate) fn for_each(indexes: Range<usize>, line: impl Fn(usize) -> String) -> String {
    indexes.map(line).collect()
}
