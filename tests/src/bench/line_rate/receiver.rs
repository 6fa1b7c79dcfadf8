//! Who drops the flood: the guard, an empty program, the kernel's packet filter, the kernel's stack. Each is asked after
//! every flood whether it did.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use dhcp_guard::{
    dataplane::{DataPlane, PortSpec, attach::Attachment, hook::Hook, interface::Interface},
    model::AttachMode,
};
use dhcp_guard_common::{layout::PortKey, parse::Vlans, verdict::Reason};
use serde_json::Value;

use super::{
    What,
    wire::{self, Measured, TestBed},
};
use crate::{
    control::{Control, Verdict},
    flood::Traffic,
    guard_run,
    netns::Netns,
};

/// The limits of a port for machines, as packets a second and packets at once: of each client, of the strangers
/// together, of the port.
const CLIENT: (u32, u32) = (2, 20);
const STRANGERS: (u32, u32) = (25, 125);
const PORT: (u32, u32) = (50, 250);

/// What is on one link.
pub(super) struct Receiver {
    link: usize,
    kind: Kind,
}

/// (The program's attachment goes before the program.)
enum Kind {
    Control { _control: Control },
    Guard { _attachment: Box<Attachment>, plane: Box<DataPlane> },
    Nftables,
    Stack,
}

impl Receiver {
    pub(super) fn new(bed: &TestBed, link: usize, what: What) -> Result<Self> {
        let interface = wire::receiver(link);
        let kind = match what {
            What::Control => {
                Kind::Control { _control: Control::attach(&bed.receiver, &interface, Verdict::Drop, XdpMode::Driver)? }
            }
            What::Guard => guard(&bed.receiver, &interface)?,
            What::Nftables => {
                bed.receiver.exec_with_input(&["nft", "-f", "-"], &rules(&interface))?;
                Kind::Nftables
            }
            What::Stack => Kind::Stack,
        };
        Ok(Self { link, kind })
    }

    /// Floods the link. Its counters must say that it saw every frame and dropped all but what the limits allow.
    pub(super) fn rate(&mut self, bed: &TestBed, traffic: &Traffic, time: Duration) -> Result<Measured> {
        let started = Instant::now();
        let before = self.counters(bed)?;
        let measured = bed.rate(self.link, traffic, time)?;
        let after = self.counters(bed)?;
        let received = measured.received;
        if let Some(seen) = after.seen {
            let seen = seen - before.seen.unwrap_or(0);
            ensure!(seen == received, "{seen} frames were judged, the interface received {received}");
        }
        // Bursts of the strangers, and twice the rate of that for the sake of coarse clocks.
        let allowed = u64::from(STRANGERS.1) + 2 * u64::from(STRANGERS.0) * (started.elapsed().as_secs() + 1);
        let passed = after.passed - before.passed;
        ensure!(passed <= allowed, "{passed} of {received} frames got through, {allowed} may");
        Ok(measured)
    }

    fn counters(&mut self, bed: &TestBed) -> Result<Counters> {
        match &mut self.kind {
            Kind::Control { .. } => Ok(Counters::default()),
            Kind::Guard { plane, .. } => guard_counters(plane),
            Kind::Nftables => Ok(Counters { seen: None, passed: passed_by_nftables(&bed.receiver)? }),
            Kind::Stack => Ok(Counters { seen: Some(unwanted_broadcasts(&bed.receiver)?), passed: 0 }),
        }
    }
}

/// What a receiver says of itself.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    /// Frames that it decided about, if it counts them.
    seen: Option<u64>,
    /// Of these, those that it let through.
    passed: u64,
}

/// The guard with the limits of a port for machines.
fn guard(netns: &Netns, name: &str) -> Result<Kind> {
    let ifindex = netns.ifindex(name)?;
    let port = PortSpec {
        key: PortKey::new(ifindex, Vlans::default()),
        total: PORT,
        strangers: STRANGERS,
        new_clients: (128, 128),
        client_v4: CLIENT,
        ..guard_run::port(0, 0)
    };
    let mut plane = Box::new(DataPlane::load(&guard_run::spec(vec![port]))?);
    let interface = Interface::bare(name, ifindex);
    let attachment = Box::new(netns.run(|| plane.attach(interface, Hook::Xdp))??);
    ensure!(attachment.mode == AttachMode::Native, "the guard is not attached natively");
    Ok(Kind::Guard { _attachment: attachment, plane })
}

fn guard_counters(plane: &mut DataPlane) -> Result<Counters> {
    let snapshot = plane.snapshot(Instant::now())?;
    let count = |reason: &Reason| guard_run::count(&snapshot, 1, *reason);
    let seen = Reason::ALL.iter().map(count).sum();
    let passed = Reason::ALL.iter().filter(|reason| !reason.is_drop()).map(count).sum();
    Ok(Counters { seen: Some(seen), passed })
}

/// The packet filter with the same limits for each MAC and for all of them together, which all are strangers to it. The
/// second rule makes it faster, and comparable: once its table of MACs is full, as under random MACs, the first rule
/// lets everything through.
fn rules(interface: &str) -> String {
    let over = |(rate, burst): (u32, u32)| format!("limit rate over {rate}/second burst {burst} packets");
    let (client, strangers) = (over(CLIENT), over(STRANGERS));
    // What is dropped is not counted, because that would cost something.
    format!(
        "table netdev limits {{
            counter passed {{ }}
            set clients {{ type ether_addr; size 65536; flags dynamic, timeout; timeout 1m; }}
            chain arrivals {{
                type filter hook ingress device \"{interface}\" priority -500; policy accept;
                udp dport 67 update @clients {{ ether saddr {client} }} drop
                udp dport 67 {strangers} drop
                counter name passed
            }}
        }}"
    )
}

fn passed_by_nftables(netns: &Netns) -> Result<u64> {
    let words = ["nft", "-j", "list", "counter", "netdev", "limits", "passed"];
    let answer: Value = serde_json::from_str(&netns.exec(&words)?)?;
    let objects = answer["nftables"].as_array().context("`nft -j list counter` did not answer a list")?;
    let packets = objects.iter().find_map(|object| object["counter"]["packets"].as_u64());
    packets.context("`nft -j list counter` answered no counter")
}

/// Broadcasts for which the stack found no listener, which is the end of its way.
fn unwanted_broadcasts(netns: &Netns) -> Result<u64> {
    const PATH: &str = "/proc/thread-self/net/snmp";
    let table = netns.run(|| fs::read_to_string(PATH))?.with_context(|| format!("cannot read {PATH}"))?;
    udp_counter(&table, "IgnoredMulti").with_context(|| format!("no counter `IgnoredMulti` in {PATH}"))
}

/// A counter of /proc/net/snmp, which has a line with names and then one with numbers for each protocol.
fn udp_counter(table: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter(|line| line.starts_with("Udp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let (_, number) = names.split_whitespace().zip(numbers.split_whitespace()).find(|(found, _)| *found == name)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_by_its_name() {
        let table = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts IgnoredMulti\nUdp: 1 2 3\nUdpLite: NoPorts\n";
        assert_eq!(udp_counter(table, "IgnoredMulti"), Some(3));
        assert_eq!(udp_counter(table, "Forwarding"), None);
    }
}
