//! How guarded interfaces are set up.

use super::{Row, programs};
use crate::{
    dataplane::hook::{self, Kind, Way},
    doctor::facts::{Facts, Interface, Link, XdpFeatures},
    model::{AttachMode, Finding, Subject},
};

/// What drivers take natively when they know no packets in several buffers: from some 3,000 to 3,500 bytes.
const ONE_BUFFER_MTU: u32 = 3_000;

pub(super) fn interface_up(interface: &Interface) -> Finding {
    let name = &interface.name;
    let row = Row { id: "interface_up", subject: Subject::Interface(name.clone()) };
    match &interface.link {
        None => row.blind(
            "there is no such interface in this network namespace",
            format!("`ip -br link` lists those there are; make it, or take {name} out of the configuration"),
        ),
        Some(link) if !link.up => row.blind("it is down", format!("`ip link set {name} up`")),
        Some(_) => row.ok("it is there, and up"),
    }
}

/// How the guard is, or will be, on an interface. TCX, or clsact in its place, costs the interfaces that need it less than
/// generic XDP, and more than native XDP.
pub(super) fn native_mode(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    const DEAR: &str = "a flood costs several times as much CPU";
    let (row, name) = (Row::of("native_mode", interface), &interface.name);
    let ways = hook::ways(facts.wanted.hook, link.hook);
    let on = programs::mode_of_guard(facts, interface, link);
    let weak = |row: Row, what: String| row.weak(what, instead_of_dear(name, link));
    Some(match (on.and_then(way_of), ways.first()) {
        // An agent of before may have left it there.
        (Some(Way::Native), _) if link.hook.kind == Kind::Bond => row.blind(
            "the guard runs in the drivers of the bond's members, where no frame is the bond's: all pass, and are not counted",
            "`dhcp-guard detach`, then start the agent again",
        ),
        (Some(Way::Native), _) => row.ok("the guard runs in the driver (native XDP)"),
        (Some(Way::Generic), _) => weak(row, format!("the guard runs in generic mode: {DEAR}")),
        (Some(way), Some(Way::Tcx | Way::Clsact)) => {
            in_the_stack(row, name, link, &format!("is guarded by {}", way.name()))
        }
        (Some(way), _) if ways.contains(&way) => {
            weak(row, format!("the guard runs by {}, its driver refused native XDP: {DEAR}", way.name()))
        }
        // Nothing was refused: this is not what the configuration asks for.
        (Some(way), _) => row.weak(
            format!("the guard runs by {}, which is not the configured hook: {DEAR}", way.name()),
            "start the agent with the present configuration: `systemctl restart dhcp-guard`",
        ),
        (None, Some(way @ (Way::Tcx | Way::Clsact))) => {
            in_the_stack(row, name, link, &format!("is to be guarded by {}", way.name()))
        }
        (None, Some(Way::Generic)) => weak(row, format!("it is to be guarded in generic mode: {DEAR}")),
        (None, _) => match link.xdp_features {
            Some(XdpFeatures { native: true, .. }) => row.ok("its driver has native XDP"),
            Some(_) => weak(row, format!("its driver has no native XDP: {DEAR}")),
            None => row
                .note("whether its driver has native XDP is seen when the guard is attached (Linux 6.3 knows before)"),
        },
    })
}

/// None: it is on no way.
fn way_of(mode: AttachMode) -> Option<Way> {
    match mode {
        AttachMode::Native => Some(Way::Native),
        AttachMode::Generic => Some(Way::Generic),
        AttachMode::Tcx => Some(Way::Tcx),
        AttachMode::Clsact => Some(Way::Clsact),
        AttachMode::Detached => None,
    }
}

/// Right for the interface, or asked for; but people may not know what it costs.
fn in_the_stack(row: Row, name: &str, link: &Link, how: &str) -> Finding {
    let what = format!("it {how}, where a flood costs more CPU than with native XDP");
    if link.hook.strips_vlan_tags && link.hook.kind == Kind::Other {
        return row.info(
            format!("{what}: XDP would not see its VLAN tags"),
            format!("`ethtool -K {name} rxvlan off`, then start the agent again"),
        );
    }
    row.note(what)
}

fn instead_of_dear(name: &str, link: &Link) -> String {
    match link.kind.as_deref() {
        Some("bond") => "`hook = \"auto\"` in the configuration, then start the agent again".to_owned(),
        Some("bridge" | "team") => {
            format!("guard its members instead: `ip -br link show master {name}` lists them")
        }
        Some("vlan" | "macvlan" | "ipvlan") => {
            format!("guard the interface beneath it instead: `ip link show {name}` names it after the @")
        }
        _ if link.xdp_features.is_some_and(|features| features.native) => format!(
            "`dhcp-guard detach`, then start the agent again; if that does not help, `dmesg | grep {name}` may say what the \
             driver refuses"
        ),
        _ => format!("guard a card or veth instead, or update its driver: `ethtool -i {name}` names it"),
    }
}

/// Where the guard is counts, whatever is configured by now: a card may have begun to take tags off since.
pub(super) fn vlan_offload(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    let way = programs::mode_of_guard(facts, interface, link).and_then(way_of);
    Some(match way.filter(|way| way.is_xdp() && link.hook.strips_vlan_tags) {
        Some(_) if !link.hook.hides_vlan_tags(facts.wanted.hook) => {
            let name = &interface.name;
            let remedy = format!(
                "`ethtool -K {name} rxvlan off`, or start the agent again, which then takes a hook that sees them: `systemctl \
                 restart dhcp-guard`"
            );
            hidden_tags(facts, interface, remedy)
        }
        _ => vlan_offload_at_start(facts, interface, link)?,
    })
}

/// The same of the hook that an agent is about to take.
pub(super) fn vlan_offload_at_start(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    let row = Row::of("vlan_offload", interface);
    if !link.hook.strips_vlan_tags {
        return Some(row.ok("VLAN tags stay in the frame"));
    }
    if !link.hook.hides_vlan_tags(facts.wanted.hook) {
        let sees = if link.hook.has_tcx { "TCX sees" } else { "clsact sees" };
        return Some(row.ok(format!("VLAN tags are taken off the frame, and {sees} them all the same")));
    }
    let remedy = format!("`ethtool -K {} rxvlan off`, or hook = \"auto\" in the configuration", interface.name);
    Some(hidden_tags(facts, interface, remedy))
}

fn hidden_tags(facts: &Facts, interface: &Interface, remedy: String) -> Finding {
    let (row, name) = (Row::of("vlan_offload", interface), &interface.name);
    let hidden = facts.wanted.vlan_ports.iter().filter(|(interface, _)| interface == name);
    let hidden: Vec<&str> = hidden.map(|(_, port)| port.as_str()).collect();
    let how = "VLAN tags are taken off before the guard sees them (rx-vlan-offload)";
    if hidden.is_empty() {
        return row.weak(format!("{how}: all its VLANs count as its untagged port"), remedy);
    }
    let ports = super::some_of(hidden.into_iter());
    row.blind(format!("{how}: nothing is ever seen on {ports}, whose rules are never used"), remedy)
}

/// Whether the driver is to have the guard in it; else what drivers refuse does not matter.
fn is_for_driver(facts: &Facts, link: &Link) -> bool {
    hook::ways(facts.wanted.hook, link.hook).contains(&Way::Native)
}

pub(super) fn lro(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    let row = Row::of("lro", interface);
    Some(if link.lro && is_for_driver(facts, link) {
        row.weak(
            "packets are merged by the card (large-receive-offload): its driver refuses native XDP",
            format!("`ethtool -K {} lro off`, then start the agent again", interface.name),
        )
    } else if link.lro {
        row.ok("packets are merged by the card (LRO), which does not matter where the guard is")
    } else {
        row.ok("packets are not merged by the card (LRO)")
    })
}

/// The program takes packets in several buffers; not every driver has them.
pub(super) fn mtu(facts: &Facts, interface: &Interface, link: &Link) -> Option<Finding> {
    let (row, name, mtu) = (Row::of("mtu", interface), &interface.name, link.mtu);
    let limit = if link.kind.as_deref() == Some("tun") { 1_500 } else { ONE_BUFFER_MTU };
    if mtu <= limit {
        return Some(row.ok(format!("MTU {mtu} is within what native XDP takes")));
    }
    if !is_for_driver(facts, link) {
        return Some(row.ok(format!("MTU {mtu} does not matter where the guard is")));
    }
    let remedy = format!("`ip link set {name} mtu {limit}`, where the network allows");
    match link.xdp_features {
        // Then there is nothing to lose.
        Some(XdpFeatures { native: false, .. }) => None,
        Some(XdpFeatures { multi_buffer: true, .. }) => {
            Some(row.ok(format!("MTU {mtu}: its driver takes packets in several buffers natively")))
        }
        Some(_) if link.kind.as_deref() == Some("tun") => Some(row.info(
            format!("MTU {mtu}: frames of more than some {limit} bytes meet the guard after the kernel has made a packet of them"),
            remedy,
        )),
        Some(_) => Some(row.weak(
            format!(
                "MTU {mtu}: its driver takes no packets in several buffers, and without them native XDP ends at some 3,000 to \
                 3,500 bytes: it may refuse it"
            ),
            remedy,
        )),
        None => Some(row.info(
            format!("MTU {mtu}: if its driver takes no packets in several buffers, it may refuse native XDP"),
            remedy,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, on_xdp, program, rows, with, with_link};
    use super::*;
    use crate::{
        dataplane::hook::Hook,
        doctor::facts::OnXdp,
        model::Severity::{Blind, Info, Ok, Weak},
    };

    #[test]
    fn an_interface_that_is_not_there_or_down() {
        let missing = with(|facts| facts.interfaces[0].link = None);
        check("interface_up", &missing, Blind, "eth0", &["no such interface", "`ip -br link`"]);
        check("interface_up", &with_link(|link| link.up = false), Blind, "eth0", &["down", "`ip link set eth0 up`"]);
    }

    #[test]
    fn generic_mode() {
        let generic = |link: &mut Link| link.xdp = Some(OnXdp { native: false, ..on_xdp("dhcp_guard") });
        check("native_mode", &with_link(generic), Weak, "eth0", &["generic mode", "`dhcp-guard detach`"]);
        let bridge = |link: &mut Link| {
            generic(link);
            (link.kind, link.xdp_features) = (Some("bridge".into()), Some(XdpFeatures::default()));
        };
        check("native_mode", &with_link(bridge), Weak, "eth0", &["generic mode", "`ip -br link show master eth0`"]);
        let native = Some(XdpFeatures { native: true, multi_buffer: true });
        let mut bond = with_link(|link| {
            link.xdp = None;
            (link.kind, link.hook.kind, link.xdp_features) = (Some("bond".into()), Kind::Bond, native);
        });
        bond.wanted.hook = Hook::Xdp;
        check("native_mode", &bond, Weak, "eth0", &["is to be guarded in generic mode", "`hook = \"auto\"`"]);
        let left = with_link(|link| link.hook.kind = Kind::Bond);
        check("native_mode", &left, Blind, "eth0", &["no frame is the bond's", "`dhcp-guard detach`"]);
        let refused = |link: &mut Link| (link.xdp, link.tcx_in) = (None, Some(vec![program(43, "dhcp_guard_tcx")]));
        check("native_mode", &with_link(refused), Weak, "eth0", &["refused native XDP", "detach"]);
    }

    #[test]
    fn before_anything_is_attached_the_driver_is_asked() {
        let says = |features| with_link(|link| (link.xdp, link.xdp_features) = (None, features));
        let native = Some(XdpFeatures { native: true, multi_buffer: false });
        assert_eq!(rows("native_mode", &says(native))[0].severity, Ok);
        check("native_mode", &says(Some(XdpFeatures::default())), Weak, "eth0", &["no native XDP", "ethtool -i eth0"]);
        check("native_mode", &says(None), Info, "eth0", &["when the guard is attached"]);
    }

    #[test]
    fn guarded_by_tcx() {
        let strips = |link: &mut Link| (link.xdp, link.hook.strips_vlan_tags) = (None, true);
        let rxvlan = "`ethtool -K eth0 rxvlan off`";
        check("native_mode", &with_link(strips), Info, "eth0", &["it is to be guarded by TCX", rxvlan]);
        let on = with_link(|link| {
            strips(link);
            link.tcx_in = Some(vec![program(43, "dhcp_guard_tcx")]);
        });
        check("native_mode", &on, Info, "eth0", &["it is guarded by TCX", rxvlan]);
        let bridge = |link: &mut Link| (link.xdp, link.hook.kind) = (None, Kind::Bridge);
        assert_eq!(rows("native_mode", &with_link(bridge))[0].remedy, None, "nothing is to be done");
        let mut without = with_link(|link| (link.xdp, link.hook.has_tcx) = (None, false));
        without.wanted.hook = Hook::Tcx;
        let row = &rows("native_mode", &without)[0];
        assert!(row.severity == Info && row.what.contains("by clsact"), "{row:?}");
        let filter = |link: &mut Link| (link.xdp, link.clsact_in) = (None, Some(vec![program(43, "dhcp_guard_tcx")]));
        let not_asked = ["by clsact, which is not the configured hook", "`systemctl restart dhcp-guard`"];
        check("native_mode", &with_link(filter), Weak, "eth0", &not_asked);
        let mut refused = with_link(filter);
        refused.interfaces[0].link.as_mut().unwrap().hook.has_tcx = false;
        check("native_mode", &refused, Weak, "eth0", &["by clsact", "refused native XDP", "detach"]);
    }

    #[test]
    fn hidden_tags() {
        let on_tcx = |link: &mut Link| (link.xdp, link.tcx_in) = (None, Some(vec![program(43, "dhcp_guard_tcx")]));
        let mut strips = with_link(|link| {
            on_tcx(link);
            link.hook.strips_vlan_tags = true;
        });
        assert_eq!(rows("vlan_offload", &strips)[0].severity, Ok, "it is seen all the same");
        strips.wanted.hook = Hook::Xdp;
        let remedy = "`ethtool -K eth0 rxvlan off`";
        check("vlan_offload", &strips, Weak, "eth0", &["untagged port", remedy, "hook = \"auto\""]);
        let mut hides = strips.clone();
        hides.wanted.vlan_ports = vec![("eth1".into(), "eth1.7".into()), ("eth0".into(), "eth0.100".into())];
        check("vlan_offload", &hides, Blind, "eth0", &["nothing is ever seen on eth0.100,", remedy]);
        hides.wanted.hook = Hook::Auto;
        hides.interfaces[0].link.as_mut().unwrap().hook.has_tcx = false;
        assert_eq!(rows("vlan_offload", &hides)[0].severity, Ok, "filters of tc see them, too");
    }

    #[test]
    fn tags_that_the_guard_does_not_see_where_it_is() {
        let mut on_xdp = with_link(|link| link.hook.strips_vlan_tags = true);
        let parts = ["untagged port", "`ethtool -K eth0 rxvlan off`", "`systemctl restart dhcp-guard`"];
        check("vlan_offload", &on_xdp, Weak, "eth0", &parts);
        on_xdp.wanted.vlan_ports = vec![("eth0".into(), "eth0.100".into())];
        check("vlan_offload", &on_xdp, Blind, "eth0", &["nothing is ever seen on eth0.100,"]);
        // To whom the kernel does not say what the program is, the agent does.
        on_xdp.interfaces[0].link.as_mut().unwrap().xdp.as_mut().unwrap().program.name.clear();
        check("vlan_offload", &on_xdp, Blind, "eth0", &["nothing is ever seen on eth0.100,"]);
        // A start puts it where it sees them.
        assert_eq!(super::super::at_start(&on_xdp).iter().find(|it| it.id == "vlan_offload").unwrap().severity, Ok);
    }

    #[test]
    fn merged_packets() {
        let mut lro = with_link(|link| link.lro = true);
        check("lro", &lro, Weak, "eth0", &["`ethtool -K eth0 lro off`"]);
        lro.wanted.hook = Hook::Tcx;
        assert_eq!(rows("lro", &lro)[0].severity, Ok);
    }

    #[test]
    fn large_packets() {
        let of = |mtu, kind: Option<&str>, features| {
            with_link(|link| (link.mtu, link.kind, link.xdp_features) = (mtu, kind.map(str::to_owned), features))
        };
        let one = Some(XdpFeatures { native: true, multi_buffer: false });
        check("mtu", &of(9000, None, one), Weak, "eth0", &["MTU 9000", "`ip link set eth0 mtu 3000`"]);
        check("mtu", &of(9000, None, None), Info, "eth0", &["may refuse"]);
        check("mtu", &of(1501, Some("tun"), one), Info, "eth0", &["`ip link set eth0 mtu 1500`"]);
        for (mtu, kind, features) in [
            (3000, None, one),
            (1500, Some("tun"), one),
            (9000, None, Some(XdpFeatures { native: true, multi_buffer: true })),
        ] {
            assert_eq!(rows("mtu", &of(mtu, kind, features))[0].severity, Ok, "{mtu} {kind:?}");
        }
        assert_eq!(rows("mtu", &of(9000, None, Some(XdpFeatures::default()))), [], "generic anyway");
        let mut by_tcx = of(9000, None, one);
        by_tcx.wanted.hook = Hook::Tcx;
        assert_eq!(rows("mtu", &by_tcx)[0].severity, Ok);
    }
}
