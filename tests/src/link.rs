//! What the lab asks of links: counters, offloads, bridge ports that forward.

use std::{fs, sync::OnceLock, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{netns::Netns, wait};

/// A kind of links that not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Devices that put 802.1Q tags on and off, and bridges that know VLANs.
    Vlan,
    /// Bonds.
    Bond,
}

impl Kind {
    /// What people call them.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vlan => "802.1q devices",
            Self::Bond => "bonds",
        }
    }

    /// Whether this kernel makes them: found out once, by making some. True where no namespace can be made either, which is
    /// another need.
    #[must_use]
    pub fn is_here(self) -> bool {
        static VLAN: OnceLock<bool> = OnceLock::new();
        static BOND: OnceLock<bool> = OnceLock::new();
        let (known, batch) = match self {
            Self::Vlan => (
                &VLAN,
                "link add try type bridge vlan_filtering 1\n\
                 link add one type veth peer name other\n\
                 link add link one name one.1 type vlan id 1\n",
            ),
            Self::Bond => (&BOND, "link add try type bond mode active-backup\n"),
        };
        *known.get_or_init(|| Netns::new("links").map_or(true, |netns| netns.ip(batch).is_ok()))
    }
}

/// What an interface has received since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Frames the driver took from its peer, before XDP has a say: on a veth whose receiver is polled (native XDP or
    /// GRO), what XDP drops is in here too.
    pub frames: u64,
    /// Frames that came to nothing: on a veth, those for which its ring of 256 had no room (not in `frames`), and those
    /// that the stack had no taker for, such as VLAN-tagged ones outside a bridge (also in `frames`).
    pub dropped: u64,
}

/// What `interface` has received.
pub fn received(netns: &Netns, interface: &str) -> Result<Received> {
    parse_received(&device_table(netns)?, interface)
        .with_context(|| format!("no counters of `{interface}` in the namespace `{}`", netns.label()))
}

fn device_table(netns: &Netns) -> Result<String> {
    const PATH: &str = "/proc/thread-self/net/dev";
    netns.run(|| fs::read_to_string(PATH))?.with_context(|| format!("cannot read {PATH}"))
}

/// Receive columns of /proc/net/dev: bytes, packets, errors, drops.
fn parse_received(table: &str, interface: &str) -> Option<Received> {
    let columns = columns(table, interface)?;
    Some(Received { frames: *columns.get(1)?, dropped: *columns.get(3)? })
}

/// After eight receive columns, those for sending: bytes, packets, errors, drops.
fn parse_sent_dropped(table: &str, interface: &str) -> Option<u64> {
    columns(table, interface)?.get(11).copied()
}

/// The numbers of an interface in /proc/net/dev.
fn columns(table: &str, interface: &str) -> Option<Vec<u64>> {
    let columns = table.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    columns.split_whitespace().map(|column| column.parse().ok()).collect()
}

/// Frames redirected to a veth by XDP that its peer's ring had no room for, since the link was made; `None` for other
/// kinds of links, which have no such counter.
pub fn redirects_lost(netns: &Netns, interface: &str) -> Result<Option<u64>> {
    let driver = netns.exec(&["ethtool", "-i", interface])?;
    if !driver.lines().any(|line| line == "driver: veth") {
        return Ok(None);
    }
    let table = netns.exec(&["ethtool", "-S", interface])?;
    let lost = table.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(": ")?;
        (name.starts_with("tx_queue_") && name.ends_with("_xdp_xmit_errors")).then(|| value.parse::<u64>())
    });
    lost.sum::<Result<u64, _>>().map(Some).with_context(|| format!("statistics of `{interface}`"))
}

/// Ordinary frames sent to a veth that its peer's ring had no room for, since the link was made; those that XDP
/// redirected are not among them. Exact when nothing is being redirected: it is the difference of two counters.
pub fn sent_lost(netns: &Netns, veth: &str) -> Result<u64> {
    let redirected = redirects_lost(netns, veth)?.with_context(|| format!("`{veth}` is not a veth"))?;
    let table = device_table(netns)?;
    let dropped = parse_sent_dropped(&table, veth).with_context(|| format!("no counters of `{veth}`"))?;
    Ok(dropped.saturating_sub(redirected))
}

/// Makes a veth take frames that are redirected to its peer, also while it runs no XDP program: with GRO on, its
/// receiver is polled and has a ring to put them in. Otherwise the kernel drops them silently.
pub fn accept_redirects(netns: &Netns, veth: &str) -> Result<()> {
    netns.exec(&["ethtool", "-K", veth, "gro", "on"]).map(drop)
}

/// Makes a link that is up, both ends here, and leaves VLAN tags in the frame: otherwise `interface` would be guarded by TCX.
pub fn add(netns: &Netns, interface: &str, peer: &str) -> Result<()> {
    let up = format!("link set {interface} up\nlink set {peer} up\n");
    netns.ip(&format!("link add {interface} type veth peer name {peer}\n{up}"))?;
    keep_vlan_tags(netns, interface)
}

/// A host with two such links, `up0` and `up1`; the other ends are called `up0-peer` and `up1-peer`.
pub fn host_with_two() -> Result<Netns> {
    let host = Netns::new("host")?;
    ["up0", "up1"].iter().try_for_each(|name| add(&host, name, &format!("{name}-peer")))?;
    Ok(host)
}

/// Leaves VLAN tags in the frame, as a host that is set up for XDP does.
pub fn keep_vlan_tags(netns: &Netns, interface: &str) -> Result<()> {
    netns.exec(&["ethtool", "-K", interface, "rxvlan", "off"]).map(drop)
}

/// Waits until all ports of the namespace's bridges forward. The kernel's link watch may take up to a second to notice
/// that a link is up, and until then the port drops what it gets.
pub fn wait_for_ports(netns: &Netns, ports: usize) -> Result<()> {
    let what = format!("{ports} forwarding bridge ports in the namespace `{}`", netns.label());
    wait::until(&what, Duration::from_secs(5), || {
        let links: Value = serde_json::from_str(&netns.exec(&["bridge", "-j", "link", "show"])?)?;
        let links = links.as_array().context("`bridge -j link show` did not answer a list")?;
        Ok(links.iter().filter(|link| link["state"] == "forwarding").count() == ports)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_columns_of_the_right_interface() {
        let table = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    em: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0
   em1: 100 20 0 3 0 0 0 0 5 6 7 8 0 0 0 0\n";
        assert_eq!(parse_received(table, "em1"), Some(Received { frames: 20, dropped: 3 }));
        assert_eq!(parse_received(table, "em"), Some(Received { frames: 2, dropped: 4 }));
        assert_eq!(parse_received(table, "e"), None);
        assert_eq!(parse_sent_dropped(table, "em1"), Some(8));
    }
}
