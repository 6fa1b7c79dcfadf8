//! Waiting until every run of the program that began before now has ended.

use std::{io, thread, time::Duration};

const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// Returns when no CPU still runs a program with what it read before the call.
///
/// MEMBARRIER_CMD_GLOBAL is the kernel's synchronize_rcu (kernel/sched/membarrier.c), and XDP programs run inside an RCU
/// read side; it takes some milliseconds. It is refused where CPUs run without ticks (nohz_full).
pub(super) fn wait() {
    // SAFETY: no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0 {
        return;
    }
    log::debug!("membarrier: {}", io::Error::last_os_error());
    // why: nothing else tells. A run takes microseconds; were it preempted by a hypervisor for longer than this, the host
    // would have other problems.
    thread::sleep(Duration::from_millis(200));
}
