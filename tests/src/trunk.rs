//! A network with VLANs, of the kernel's own devices: tags are put on and taken off by bridges and by 802.1q devices, and
//! nothing about them is made up.
//!
//! ```text
//! machines            fabric, knows VLANs             host                                server
//! m0 in VLAN 100 ──── fp0 ┐                                                               ┌ srv0.100 10.77.0.1/16
//! m1 in VLAN 200 ──── fp1 ┘ fabric0 ─ fab-up ──────── uplink0 ─ br0 ─ to-server ──── srv0 ┤
//!                                                                                         └ srv0.200 10.78.0.1/16
//! ```
//!
//! Between fabric, host and server all frames have a tag. It is beside the frame, as a card leaves it that takes tags off,
//! unless [`Trunk::leave_tags_in_frames`] was told.

use std::{ops::Range, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    client::Outcome,
    link,
    netns::Netns,
    server::Server,
    topology::{self, BRIDGE, Injection, Machine, TO_SERVER, UPLINK, add_machine},
};

/// What the host does with the VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// One bridge that knows them.
    Bridge,
    /// An 802.1q device for each on either side, and a bridge between the two.
    Devices,
}

/// Such a network; dropping it removes all of it.
#[derive(Debug)]
pub struct Trunk {
    /// One server for all VLANs, each with a network of its own; its counts are of the first VLAN.
    pub server: Server,
    /// The guarded host's namespace.
    pub host: Netns,
    /// Where `fab-up`, the other end of the uplink, is.
    pub fabric: Netns,
    /// The machines, all in one namespace.
    pub machines: Vec<Machine>,
}

impl Trunk {
    /// With a machine in each of these VLANs, of which several may be the same.
    pub fn new(kind: Host, machines: &[u16]) -> Result<Self> {
        let mut vlans = machines.to_vec();
        vlans.sort_unstable();
        vlans.dedup();
        let (inside, fabric) = (Netns::new("machines")?, Netns::new("fabric")?);
        let (host, server) = (Netns::new("host")?, Netns::new("server")?);
        build_fabric(&fabric, &inside, &host, machines)?;
        build_host(&host, &server, kind, &vlans)?;
        let server = start_server(server, &vlans)?;
        link::wait_for_ports(&fabric, machines.len() + 1)?;
        link::wait_for_ports(&host, if kind == Host::Bridge { 2 } else { 2 * vlans.len() })?;
        let machine = |index| topology::machine(&inside, index, UPLINK);
        Ok(Self { server, host, fabric, machines: (0..machines.len()).map(machine).collect() })
    }

    /// Has whoever sends to the uplink put tags into the frames, as on a wire. On a veth that is the sender's to decide: what
    /// the receiver says of `rxvlan` only is what the guard asks for.
    pub fn leave_tags_in_frames(&self) -> Result<()> {
        let off = ["ethtool", "-K", "fab-up", "txvlan", "off", "tx-vlan-stag-hw-insert", "off"];
        self.fabric.exec(&off)?;
        link::keep_vlan_tags(&self.host, UPLINK)
    }

    /// Where to send from to look like machine `index`.
    #[must_use]
    pub fn injection(&self, index: usize) -> Injection {
        self.machines[index].end()
    }

    /// Has machines ask for a lease, all at once, with clients that have never had one. In the order of the range.
    pub fn get_leases(&self, machines: Range<usize>, deadline: Duration) -> Result<Vec<Outcome>> {
        topology::get_leases(&self.machines[machines], deadline)
    }
}

/// The network of the VLAN with this place among all.
fn network(place: usize) -> String {
    format!("10.{}", 77 + place)
}

/// Runs many `bridge` commands at once, one in a line.
fn bridge(netns: &Netns, batch: &str) -> Result<()> {
    netns.exec_with_input(&["bridge", "-batch", "-"], batch).map(drop)
}

/// Whoever is in a VLAN knows nothing of tags.
fn build_fabric(fabric: &Netns, machines: &Netns, host: &Netns, vlans: &[u16]) -> Result<()> {
    let (inside, outside) = (machines.path(), host.path());
    let mut links = format!(
        "link add fabric0 {BRIDGE} vlan_filtering 1 vlan_default_pvid 0\n\
         link set fabric0 up\n\
         link add fab-up type veth peer name {UPLINK} netns {outside}\n\
         link set fab-up up\n\
         link set fab-up master fabric0\n"
    );
    let (mut access, mut up) = (String::new(), String::new());
    for (index, vlan) in vlans.iter().enumerate() {
        add_machine(&mut links, &format!("fp{index}"), &inside, index);
        links += &format!("link set fp{index} master fabric0\n");
        access += &format!("vlan add dev fp{index} vid {vlan} pvid untagged\nvlan add dev fab-up vid {vlan}\n");
        up += &format!("link set m{index} up\n");
    }
    fabric.ip(&links)?;
    bridge(fabric, &access)?;
    machines.ip(&up)
}

fn build_host(host: &Netns, server: &Netns, kind: Host, vlans: &[u16]) -> Result<()> {
    host.ip(&format!(
        "link set {UPLINK} up\n\
         link add {TO_SERVER} type veth peer name srv0 address 02:77:00:00:00:01 netns {}\n\
         link set {TO_SERVER} up\n",
        server.path()
    ))?;
    if kind == Host::Devices {
        let all: String = vlans.iter().map(|vlan| devices(*vlan)).collect();
        return host.ip(&all);
    }
    host.ip(&format!(
        "link add br0 {BRIDGE} vlan_filtering 1 vlan_default_pvid 0\n\
         link set br0 up\n\
         link set {UPLINK} master br0\n\
         link set {TO_SERVER} master br0\n"
    ))?;
    let tagged = |vlan| format!("vlan add dev {UPLINK} vid {vlan}\nvlan add dev {TO_SERVER} vid {vlan}\n");
    let all: String = vlans.iter().map(tagged).collect();
    bridge(host, &all)
}

/// The lines for one VLAN of a host with devices.
fn devices(vlan: u16) -> String {
    let port = |of: &str, name: &str| {
        format!(
            "link add link {of} name {name} type vlan id {vlan}\n\
             link set {name} up\n\
             link set {name} master br{vlan}\n"
        )
    };
    let bridge = format!("link add br{vlan} {BRIDGE}\nlink set br{vlan} up\n");
    bridge + &port(UPLINK, &format!("{UPLINK}.{vlan}")) + &port(TO_SERVER, &format!("srv-side.{vlan}"))
}

/// A network for each VLAN: a lease says in which it was given.
fn start_server(netns: Netns, vlans: &[u16]) -> Result<Server> {
    let device = |(place, vlan): (usize, &u16)| {
        format!(
            "link add link srv0 name srv0.{vlan} type vlan id {vlan}\n\
             address add {}.0.1/16 dev srv0.{vlan}\n\
             link set srv0.{vlan} up\n",
            network(place)
        )
    };
    let devices: String = vlans.iter().enumerate().map(device).collect();
    netns.ip(&format!("link set srv0 up\n{devices}"))?;
    let more = |(place, vlan): (usize, &u16)| {
        let net = network(place);
        [format!("--interface=srv0.{vlan}"), format!("--dhcp-range={net}.1.0,{net}.250.0,255.255.0.0,2m")]
    };
    // The first is what every server of the lab has.
    let options: Vec<String> = vlans.iter().enumerate().skip(1).flat_map(more).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Server::start(netns, &format!("srv0.{}", vlans.first().context("no VLAN")?), &options)
}
