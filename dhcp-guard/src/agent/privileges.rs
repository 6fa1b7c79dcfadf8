//! What the agent keeps of its rights once it guards, and what it gives up.
//!
//! Capabilities belong to threads, and a thread starts with those of the one that started it. The start is on the main
//! thread; it gives up what running does not need before it starts the threads of the agent ([`keep_what_running_needs`]).
//! Threads that exist earlier do it themselves: those of the runtime as they start, the log's gives up everything.
//!
//! README.md has the table of what needs what; `privileges: …` of the integration tests hold it.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use log::warn;

/// For the programs: to load them again, to put them on interfaces that come later, to set an interface down.
const RUNNING: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
/// What root keeps beside that. Started by hand, its configuration, inventory and state may be anywhere, and the programs
/// of a `command` actuator, which may become somebody else, are to end at their timeout.
const ROOT: [Capability; 2] = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_KILL];

/// Gives up, on this thread and those that it will start, all but what a running agent needs. A program that the agent
/// starts gets nothing from it, unless it is root's. A failure is only a warning: the guard is needed all the same.
pub fn keep_what_running_needs() {
    let root = nix::unistd::geteuid().is_root();
    let wanted = RUNNING.into_iter().chain(ROOT.into_iter().filter(|_| root)).collect();
    if let Err(error) = keep(&wanted) {
        warn!("the agent goes on with more capabilities than it needs, because they could not be given up: {error}");
    }
}

/// Gives up everything on this thread: for those that only write to what is open.
pub fn give_up_all() {
    if let Err(error) = keep(&CapsHashSet::new()) {
        warn!("a thread goes on with more capabilities than it needs, because they could not be given up: {error}");
    }
}

/// Of `wanted`, what there is. The bounding set stays: whoever is not root gets nothing from it, and root's own programs
/// (of a `command` actuator) are to have what root has.
fn keep(wanted: &CapsHashSet) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.intersection(wanted).copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
