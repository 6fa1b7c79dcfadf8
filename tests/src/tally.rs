//! An independent count of DHCP frames where they arrive, kept by the kernel's packet filter (nftables) and read with
//! its own tool, so that nothing the guard claims has to be believed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{mac::Mac, netns::Netns};

/// Source addresses that are counted one by one; those beyond are in the total only.
const MACS: u32 = 65_535;

/// Counts frames of one interface as they arrive.
#[derive(Debug)]
pub struct Tally {
    netns: Netns,
}

/// What has arrived since the tally was set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// IPv4 UDP frames to port 67 without a VLAN tag.
    pub requests: u64,
    /// Those of each source MAC; complete up to 65,535 addresses.
    pub by_mac: BTreeMap<Mac, u64>,
    /// Frames with a VLAN tag, whatever they carry.
    pub tagged: u64,
    /// All frames.
    pub frames: u64,
}

impl Counts {
    /// Requests of one source MAC.
    #[must_use]
    pub fn of(&self, mac: Mac) -> u64 {
        self.by_mac.get(&mac).copied().unwrap_or(0)
    }
}

impl Tally {
    /// Starts to count on `interface`.
    pub fn start(netns: Netns, interface: &str) -> Result<Self> {
        // Ingress of the device: before the kernel's stack can drop anything, and after XDP.
        let rules = format!(
            "table netdev lab {{
                counter frames {{ }}
                counter tagged {{ }}
                counter requests {{ }}
                set sources {{ type ether_addr; size {MACS}; flags dynamic; counter; }}
                chain arrivals {{
                    type filter hook ingress device \"{interface}\" priority -500; policy accept;
                    counter name frames
                    ether type {{ vlan, 8021ad }} counter name tagged accept
                    udp dport 67 counter name requests update @sources {{ ether saddr }}
                }}
            }}"
        );
        netns.exec_with_input(&["nft", "-f", "-"], &rules)?;
        Ok(Self { netns })
    }

    /// What has arrived so far.
    pub fn counts(&self) -> Result<Counts> {
        let table: Value = serde_json::from_str(&self.netns.exec(&["nft", "-j", "list", "table", "netdev", "lab"])?)?;
        let objects = table["nftables"].as_array().context("`nft -j list table` did not answer a list")?;
        let mut counts = Counts::default();
        for object in objects {
            let counter = &object["counter"];
            let packets = counter["packets"].as_u64().unwrap_or(0);
            match counter["name"].as_str() {
                Some("frames") => counts.frames = packets,
                Some("tagged") => counts.tagged = packets,
                Some("requests") => counts.requests = packets,
                _ => {}
            }
            if object["set"]["name"] == "sources" {
                counts.by_mac = sources(&object["set"]["elem"])?;
            }
        }
        Ok(counts)
    }
}

/// The elements of the set of sources; a set without elements has no list at all.
fn sources(elements: &Value) -> Result<BTreeMap<Mac, u64>> {
    let elements = elements.as_array().map(Vec::as_slice).unwrap_or_default();
    elements.iter().map(|element| source(&element["elem"])).collect()
}

/// One element: `{"val": "02:…", "counter": {"packets": 1, "bytes": 342}}`.
fn source(element: &Value) -> Result<(Mac, u64)> {
    let mac = element["val"].as_str().with_context(|| format!("not a set element: {element}"))?;
    let packets = element["counter"]["packets"].as_u64();
    Ok((mac.parse()?, packets.with_context(|| format!("no counter in {element}"))?))
}
