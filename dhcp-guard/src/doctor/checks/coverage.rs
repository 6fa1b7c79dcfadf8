//! Whose frames never pass a guarded interface.

use super::{Row, some_of};
use crate::{
    doctor::facts::{Device, Facts, Interface, Link},
    human::counted,
    model::Finding,
};

pub(super) fn sriov_vfs(_: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    let (row, name) = (Row::of("sriov_vfs", interface), &interface.name);
    Some(match link.vfs {
        0 => row.ok("no virtual functions go past it (SR-IOV)"),
        vfs => row.weak(
            format!(
                "{} (SR-IOV) go past this host's kernel: whoever uses one is not covered",
                counted(u64::from(vfs), "virtual function")
            ),
            format!(
                "limit their DHCP at the switch, or give their guests taps; `ip link show {name}` lists them, and \
                 `echo 0 > /sys/class/net/{name}/device/sriov_numvfs` takes away those that nobody uses"
            ),
        ),
    })
}

/// Devices on top of a guarded interface that send through it without coming in by it.
pub(super) fn bypass_devices(facts: &Facts) -> Vec<Finding> {
    const KINDS: &[&str] = &["macvtap", "macvlan", "ipvtap", "ipvlan"];
    let of = |interface: &Interface| {
        let index = interface.link.as_ref()?.ifindex;
        let above = |device: &&Device| device.lower == Some(index) && is_one_of(device, KINDS);
        let names: Vec<&str> = facts.devices.iter().filter(above).map(|device| device.name.as_str()).collect();
        let (name, row) = (&interface.name, Row::of("bypass_devices", interface));
        Some(if names.is_empty() {
            row.ok("no macvtap, macvlan or ipvlan device sends through it")
        } else {
            let (first, names) = (names[0], some_of(names.into_iter()));
            row.weak(
                format!("what {names} send goes out through {name} without coming in: it meets no limit here"),
                format!(
                    "guard them where they can be (`dhcp-guard run -i {first}`), or give their guests taps on a bridge"
                ),
            )
        })
    };
    facts.interfaces.iter().filter_map(of).collect()
}

fn is_one_of(device: &Device, kinds: &[&str]) -> bool {
    device.kind.as_deref().is_some_and(|kind| kinds.contains(&kind))
}

/// Guests on a bridge whose frames are judged only if they leave the host.
pub(super) fn unguarded_taps(facts: &Facts) -> Vec<Finding> {
    let row = Row::host("unguarded_taps");
    let beside = |device: &&Device| {
        let bridge = device.controller.as_ref();
        is_one_of(device, &["tun"]) && bridge.is_some_and(|bridge| facts.guarded_controllers.contains(bridge))
    };
    let names: Vec<&str> = facts.devices.iter().filter(beside).map(|device| device.name.as_str()).collect();
    if names.is_empty() {
        return vec![row.ok("no tap without a guard is on the same bridge as a guarded interface")];
    }
    let (first, names) = (names[0], some_of(names.into_iter()));
    vec![row.info(
        format!("{names} are on the bridge of a guarded interface, and not guarded: what their guests send is not seen where it comes in"),
        format!("guard them, too: `dhcp-guard run … -i {first}`, or in `interfaces` of the configuration"),
    )]
}

pub(super) fn vhost_user(facts: &Facts) -> Vec<Finding> {
    let row = Row::host("vhost_user");
    let Some(processes) = &facts.vhost_user else { return Vec::new() };
    if processes.is_empty() {
        return vec![row.ok(
            "no guest of QEMU or cloud-hypervisor has a vhost-user network; other users of such sockets cannot be seen from here",
        )];
    }
    let names: Vec<String> = processes.iter().map(|(pid, name)| format!("{name} (pid {pid})")).collect();
    vec![row.weak(
        format!(
            "the frames of {} go to another process by vhost-user, past this host's kernel: they are not covered",
            some_of(names.iter().map(String::as_str))
        ),
        "limit their DHCP in the virtual switch (OVS-DPDK, VPP) or at the host's switch, or give these guests taps",
    )]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, rows, with, with_link};
    use super::*;
    use crate::model::Severity::{Info, Ok, Weak};

    fn device(name: &str, kind: &str, controller: Option<u32>, lower: Option<u32>) -> Device {
        Device { name: name.into(), ifindex: 99, kind: Some(kind.into()), controller, lower }
    }

    #[test]
    fn virtual_functions() {
        let facts = with_link(|link| link.vfs = 8);
        check(
            "sriov_vfs",
            &facts,
            Weak,
            "eth0",
            &["8 virtual functions (SR-IOV)", "not covered", "`ip link show eth0`"],
        );
    }

    #[test]
    fn devices_that_send_past_the_guard() {
        let above = |kind, lower| with(|facts| facts.devices = vec![device("mv0", kind, None, Some(lower))]);
        for kind in ["macvtap", "macvlan", "ipvlan", "ipvtap"] {
            check("bypass_devices", &above(kind, 7), Weak, "eth0", &["mv0", "`dhcp-guard run -i mv0`"]);
        }
        assert_eq!(rows("bypass_devices", &above("vlan", 7))[0].severity, Ok, "comes in by it");
        assert_eq!(rows("bypass_devices", &above("macvtap", 8))[0].severity, Ok, "of another interface");
    }

    #[test]
    fn taps_beside_a_guarded_interface() {
        let beside = |kind, bridge| {
            with(|facts| {
                facts.guarded_controllers = vec![3];
                facts.devices = vec![device("tap7", kind, Some(bridge), None)];
            })
        };
        check("unguarded_taps", &beside("tun", 3), Info, "host", &["tap7", "-i tap7`"]);
        assert_eq!(rows("unguarded_taps", &beside("tun", 4))[0].severity, Ok, "on another bridge");
        assert_eq!(rows("unguarded_taps", &beside("veth", 3))[0].severity, Ok);
    }

    #[test]
    fn guests_past_the_kernel() {
        let facts = with(|facts| facts.vhost_user = Some(vec![(12, "qemu".into())]));
        check("vhost_user", &facts, Weak, "host", &["qemu (pid 12)", "not covered", "taps"]);
        assert_eq!(rows("vhost_user", &with(|facts| facts.vhost_user = None)), []);
    }

    #[test]
    fn of_many_names_some_are_named() {
        assert_eq!(some_of(["a", "b", "c", "d"].into_iter()), "a, b, c, d");
        assert_eq!(some_of(["a", "b", "c", "d", "e", "f"].into_iter()), "a, b, c, d and 2 more");
    }
}
