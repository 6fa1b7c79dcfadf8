//! Which hook guards an interface: XDP, in the driver, or TCX, where the network stack begins; or, where the kernel has no
//! TCX, a filter of tc (clsact) at the same place.
//!
//! XDP is several times as fast. But where a card takes VLAN tags off it cannot see them; a VLAN device or a bridge has no
//! driver of its own; a bond has those of its members, where no program knows that the frame is the bond's; and of large
//! frames that a guest's offloads make, the kernel copies each for it. TCX sees the tags and costs the other frames nothing.

use serde::{Deserialize, Serialize};

use crate::model::AttachMode;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// XDP: natively, or else in generic mode.
    Xdp,
    /// TCX; clsact where the kernel has no TCX.
    Tcx,
    /// Clsact, also where the kernel has TCX: for hosts on which it is to be the same everywhere.
    Clsact,
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
    /// A filter of tc.
    Clsact,
}

impl Way {
    /// Whether it is XDP: not where the network stack begins, and VLAN tags are beside the frame.
    #[must_use]
    pub fn is_xdp(self) -> bool {
        matches!(self, Self::Native | Self::Generic)
    }

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native XDP",
            Self::Generic => "generic XDP",
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
        }
    }

    /// How whatever is attached so is attached.
    #[must_use]
    pub fn mode(self) -> AttachMode {
        match self {
            Self::Native => AttachMode::Native,
            Self::Generic => AttachMode::Generic,
            Self::Tcx => AttachMode::Tcx,
            Self::Clsact => AttachMode::Clsact,
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
    /// A bond. Its native XDP is its members': the program runs there, is told that the frame came in by the member, and
    /// finds no port.
    Bond,
    /// A tun or tap device whose frames may be larger than its MTU, because a guest leaves it to the host to cut them.
    TapWithOffloads,
    /// Anything else: cards, veths, other taps.
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
        self.strips_vlan_tags && ways(hook, self).iter().all(|way| way.is_xdp())
    }
}

/// The ways to attach, the best one first; the next one is for when the kernel or the driver refuses it. There always is
/// one.
///
/// Which way it will be does not depend on refusals where tags are at stake: what the ports' policy is depends on whether
/// they are seen, and it is in force before.
#[must_use]
pub fn ways(hook: Hook, facts: Facts) -> &'static [Way] {
    use Way::{Clsact, Generic, Native, Tcx};
    let driver_is_right = !facts.strips_vlan_tags && facts.kind == Kind::Other;
    match (hook, facts.has_tcx) {
        (Hook::Xdp, _) if facts.kind == Kind::Bond => &[Generic],
        (Hook::Xdp, _) => &[Native, Generic],
        (Hook::Clsact, _) | (Hook::Tcx, false) => &[Clsact],
        (Hook::Tcx, true) => &[Tcx],
        (Hook::Auto, true) if driver_is_right => &[Native, Tcx],
        (Hook::Auto, true) => &[Tcx],
        // A kernel may have been built without filters, too.
        (Hook::Auto, false) if driver_is_right => &[Native, Clsact, Generic],
        (Hook::Auto, false) => &[Clsact],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_gets_the_hook_that_is_right_there() {
        use Way::{Clsact, Generic, Native, Tcx};
        let cases: [(Kind, bool, &[Way], &[Way]); 8] = [
            (Kind::Other, false, &[Native, Tcx], &[Native, Clsact, Generic]),
            (Kind::Other, true, &[Tcx], &[Clsact]),
            (Kind::Vlan, false, &[Tcx], &[Clsact]),
            (Kind::Bridge, false, &[Tcx], &[Clsact]),
            (Kind::TapWithOffloads, false, &[Tcx], &[Clsact]),
            (Kind::Bond, false, &[Tcx], &[Clsact]),
            (Kind::Bond, true, &[Tcx], &[Clsact]),
            (Kind::Bridge, true, &[Tcx], &[Clsact]),
        ];
        for (kind, strips_vlan_tags, with_tcx, without) in cases {
            for (has_tcx, expected, stack) in [(true, with_tcx, Tcx), (false, without, Clsact)] {
                let facts = Facts { kind, strips_vlan_tags, has_tcx };
                assert_eq!(ways(Hook::Auto, facts), expected, "{facts:?}");
                // Who asks for one gets that one, or the next best thing that sees the same.
                let xdp: &[Way] = if kind == Kind::Bond { &[Generic] } else { &[Native, Generic] };
                assert_eq!(ways(Hook::Xdp, facts), xdp, "{facts:?}");
                assert_eq!(ways(Hook::Tcx, facts), [stack], "{facts:?}");
                assert_eq!(ways(Hook::Clsact, facts), [Clsact], "{facts:?}");
                assert_eq!(facts.hides_vlan_tags(Hook::Xdp), strips_vlan_tags, "{facts:?}");
                for hook in [Hook::Auto, Hook::Tcx, Hook::Clsact] {
                    assert!(!facts.hides_vlan_tags(hook), "{facts:?} with {hook:?}");
                }
            }
        }
    }
}
