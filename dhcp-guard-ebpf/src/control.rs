//! The block that user space steers the program with. It is in the program's own data, so reading it costs a load and no
//! lookup, and it may be read for every frame.

use dhcp_guard_common::layout::Control;

/// In `.bss`, and the only thing there: user space writes the section as one [`Control`].
#[unsafe(no_mangle)]
static mut CONTROL: Control = Control { version: 0, isolated_until: 0, client_rules: 0 };

/// The version in force. To be read once for each packet.
#[inline(always)]
pub(crate) fn version() -> u64 {
    // SAFETY: a static that user space may change at any time; volatile, so that it is one load.
    unsafe { (&raw const CONTROL.version).read_volatile() }
}

/// The latest end of an isolation, in ticks; 0: there is none.
#[inline(always)]
pub(crate) fn isolated_until() -> u64 {
    // SAFETY: as in `version`.
    unsafe { (&raw const CONTROL.isolated_until).read_volatile() }
}

/// Whether any client has a rule.
#[inline(always)]
pub(crate) fn has_client_rules() -> bool {
    // SAFETY: as in `version`.
    unsafe { (&raw const CONTROL.client_rules).read_volatile() != 0 }
}
