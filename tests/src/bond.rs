//! A host whose uplink is a bond.
//!
//! ```text
//! machines        fabric                   host                            server
//! m0 ──────────── fp0 ┐         ┌ fab0 ─── b0 ┐
//! m1 ──────────── fp1 ┘ fabric0 ┴ fab1 ─── b1 ┘ bond0 ─ br0 ─ to-server ── srv0 10.77.0.1/16
//! ```
//!
//! With [`Mode::Lacp`] the fabric has a bond, too, between its bridge and the members.

use std::{ops::Range, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    client::Outcome,
    link,
    netns::Netns,
    server::Server,
    topology::{self, BRIDGE, Injection, Machine, add_machine, connect_server, for_each},
    wait,
};

/// The bond.
pub const BOND: &str = "bond0";
/// Members from the start.
const MEMBERS: usize = 2;
/// Links are looked at often; a card's would be every 100 ms.
const MONITORED: &str = "miimon 20";
/// Members have to find each other, or to notice that one is gone.
const SETTLED: Duration = Duration::from_secs(15);

/// How the members share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One of them has all of it, until its link goes down.
    ActiveBackup,
    /// Each frame goes by the one that its addresses say (802.3ad).
    Lacp,
}

/// Such a network; dropping it removes all of it.
#[derive(Debug)]
pub struct Bonded {
    /// The DHCP server.
    pub server: Server,
    /// The guarded host's namespace.
    pub host: Netns,
    /// The machines, all in one namespace.
    pub machines: Vec<Machine>,
    fabric: Netns,
    members: usize,
}

impl Bonded {
    /// With so many machines.
    pub fn new(mode: Mode, machines: usize) -> Result<Self> {
        let (inside, fabric) = (Netns::new("machines")?, Netns::new("fabric")?);
        let (host, server) = (Netns::new("host")?, Netns::new("server")?);
        connect_server(&host, &server)?;
        build_fabric(&fabric, &inside, machines)?;
        let bond = match mode {
            Mode::ActiveBackup => format!("type bond mode active-backup {MONITORED}"),
            Mode::Lacp => format!("type bond mode 802.3ad lacp_rate fast xmit_hash_policy layer2 {MONITORED}"),
        };
        host.ip(&format!("link add {BOND} {bond}\n"))?;
        let far = match mode {
            Mode::ActiveBackup => "fabric0",
            Mode::Lacp => {
                fabric.ip(&format!("link add fab-bond {bond}\n"))?;
                "fab-bond"
            }
        };
        (0..MEMBERS).try_for_each(|number| add_member(&host, &fabric, far, number))?;
        if mode == Mode::Lacp {
            fabric.ip("link set fab-bond up\nlink set fab-bond master fabric0\n")?;
        }
        host.ip(&format!("link set {BOND} up\nlink set {BOND} master br0\n"))?;
        if mode == Mode::Lacp {
            wait::until("members that found each other", SETTLED, || has_found_all(&host))?;
        }
        link::wait_for_ports(&fabric, machines + if mode == Mode::Lacp { 1 } else { MEMBERS })?;
        link::wait_for_ports(&host, 2)?;
        let server = Server::start(server, "srv0", &[])?;
        let machine = |index| topology::machine(&inside, index, BOND);
        Ok(Self { server, host, machines: (0..machines).map(machine).collect(), fabric, members: MEMBERS })
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

    /// The member that has all of the work.
    pub fn active(&self) -> Result<String> {
        let active = details(&self.host, BOND)?["linkinfo"]["info_data"]["active_slave"].take();
        Ok(active.as_str().unwrap_or_default().to_owned())
    }

    /// Breaks the active member's link, and waits until another one has taken over; answers which.
    pub fn fail_over(&self) -> Result<String> {
        let before = self.active()?;
        let number = before.strip_prefix('b').with_context(|| format!("no member is called `{before}`"))?;
        self.fabric.ip(&format!("link set fab{number} down\n"))?;
        let mut after = String::new();
        wait::until("another active member", SETTLED, || {
            after = self.active()?;
            Ok(!after.is_empty() && after != before)
        })?;
        Ok(after)
    }

    /// Adds a member, of a bond with [`Mode::ActiveBackup`], and waits until it could take over.
    pub fn add_member(&mut self) -> Result<()> {
        let number = self.members;
        add_member(&self.host, &self.fabric, "fabric0", number)?;
        self.members += 1;
        let name = format!("fab{number}");
        wait::until("a new port of the fabric that forwards", SETTLED, || {
            let links: Value = serde_json::from_str(&self.fabric.exec(&["bridge", "-j", "link", "show"])?)?;
            let mut links = links.as_array().into_iter().flatten();
            Ok(links.any(|link| link["ifname"] == name.as_str() && link["state"] == "forwarding"))
        })?;
        wait::until("a new member that is up", SETTLED, || {
            let state = details(&self.host, &format!("b{number}"))?["linkinfo"]["info_slave_data"]["mii_status"].take();
            Ok(state == "UP")
        })
    }
}

/// All that `ip` says of a link.
fn details(netns: &Netns, interface: &str) -> Result<Value> {
    let mut list: Value = serde_json::from_str(&netns.exec(&["ip", "-json", "-details", "link", "show", interface])?)?;
    Ok(list[0].take())
}

/// Whether all members send and receive for the bond.
fn has_found_all(host: &Netns) -> Result<bool> {
    // Active, fast, fit, in step, collecting, distributing (802.1AX).
    const AT_WORK: u64 = 0x3f;
    let mut numbers = 0..MEMBERS;
    numbers.try_fold(true, |all, number| {
        let member = details(host, &format!("b{number}"))?;
        let state = member["linkinfo"]["info_slave_data"]["ad_actor_oper_port_state"].as_u64();
        Ok(all && state == Some(AT_WORK))
    })
}

fn build_fabric(fabric: &Netns, machines: &Netns, count: usize) -> Result<()> {
    let inside = machines.path();
    let mut batch = format!("link add fabric0 {BRIDGE}\nlink set fabric0 up\n");
    for index in 0..count {
        add_machine(&mut batch, &format!("fp{index}"), &inside, index);
        batch += &format!("link set fp{index} master fabric0\n");
    }
    fabric.ip(&batch)?;
    machines.ip(&for_each(0..count, |index| format!("link set m{index} up\n")))
}

/// One more link between the host's bond and `far`. Links are down when they become members, which bonds want.
fn add_member(host: &Netns, fabric: &Netns, far: &str, number: usize) -> Result<()> {
    host.ip(&format!(
        "link add b{number} type veth peer name fab{number} netns {}\n\
         link set b{number} master {BOND}\n\
         link set b{number} up\n",
        fabric.path()
    ))?;
    fabric.ip(&format!("link set fab{number} master {far}\nlink set fab{number} up\n"))
}
