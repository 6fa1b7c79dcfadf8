//! Which hook guards an interface: XDP, in the driver, or TCX, where the network stack begins.
//!
//! XDP is several times as fast. But where a card takes VLAN tags off it cannot see them; a VLAN device or a bridge has no
//! driver of its own; and of large frames that a guest's offloads make, the kernel copies each for it. TCX sees the tags and
//! costs the other frames nothing.

use serde::{Deserialize, Serialize};

use crate::model::AttachMode;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// XDP: natively, or else in generic mode.
    Xdp,
    /// TCX.
    Tcx,
    /// For each interface what is right there.
    #[default]
    Auto,
}

/// A way to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// XDP in the driver.
    Native,
    /// XDP in the network stack.
    Generic,
    /// TCX.
    Tcx,
}

impl Way {
    /// How whatever is attached so is attached.
    #[must_use]
    pub fn mode(self) -> AttachMode {
        match self {
            Self::Native => AttachMode::Native,
            Self::Generic => AttachMode::Generic,
            Self::Tcx => AttachMode::Tcx,
        }
    }
}

/// What an interface is, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A VLAN device on top of another interface.
    Vlan,
    /// A bridge.
    Bridge,
    /// A tun or tap device whose frames may be larger than its MTU, because a guest leaves it to the host to cut them.
    TapWithOffloads,
    /// Anything else: cards, bonds, veths, other taps.
    #[default]
    Other,
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the interface is.
    pub kind: Kind,
    /// It takes VLAN tags out of the frames (`rx-vlan-offload`).
    pub strips_vlan_tags: bool,
    /// The kernel has TCX (6.6).
    pub has_tcx: bool,
}

impl Facts {
    /// The guard would not see VLAN tags.
    #[must_use]
    pub fn hides_vlan_tags(self, hook: Hook) -> bool {
        self.strips_vlan_tags && !ways(hook, self).contains(&Way::Tcx)
    }
}

/// The ways to attach, the best one first; the next one is for when the kernel or the driver refuses it. Empty: there is
/// none.
///
/// Which way it will be does not depend on refusals where tags are at stake: what the ports' policy is depends on whether
/// they are seen, and it is in force before.
#[must_use]
pub fn ways(hook: Hook, facts: Facts) -> &'static [Way] {
    use Way::{Generic, Native, Tcx};
    match (hook, facts.has_tcx) {
        (Hook::Tcx, false) => &[],
        (Hook::Tcx, true) => &[Tcx],
        (Hook::Xdp, _) | (Hook::Auto, false) => &[Native, Generic],
        (Hook::Auto, true) if facts.strips_vlan_tags || facts.kind != Kind::Other => &[Tcx],
        (Hook::Auto, true) => &[Native, Tcx],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_gets_the_hook_that_is_right_there() {
        use Way::{Generic, Native, Tcx};
        let facts = |kind, strips_vlan_tags| Facts { kind, strips_vlan_tags, has_tcx: true };
        let cases: [(Kind, bool, &[Way], bool); 6] = [
            (Kind::Other, false, &[Native, Tcx], false),
            (Kind::Other, true, &[Tcx], false),
            (Kind::Vlan, false, &[Tcx], false),
            (Kind::Bridge, false, &[Tcx], false),
            (Kind::TapWithOffloads, false, &[Tcx], false),
            (Kind::Bridge, true, &[Tcx], false),
        ];
        for (kind, strips, expected, hides) in cases {
            let facts = facts(kind, strips);
            assert_eq!(ways(Hook::Auto, facts), expected, "{facts:?}");
            assert_eq!(facts.hides_vlan_tags(Hook::Auto), hides, "{facts:?}");
            // Who asks for one gets that one, or nothing.
            assert_eq!(ways(Hook::Xdp, facts), [Native, Generic], "{facts:?}");
            assert_eq!(facts.hides_vlan_tags(Hook::Xdp), strips, "{facts:?}");
            assert_eq!(ways(Hook::Tcx, facts), [Tcx], "{facts:?}");
            let old_kernel = Facts { has_tcx: false, ..facts };
            assert_eq!(ways(Hook::Auto, old_kernel), [Native, Generic], "{facts:?}");
            assert_eq!(old_kernel.hides_vlan_tags(Hook::Auto), strips, "{facts:?}");
            assert!(ways(Hook::Tcx, old_kernel).is_empty(), "{facts:?}");
        }
    }
}
