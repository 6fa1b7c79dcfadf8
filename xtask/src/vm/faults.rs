//! What a kernel says when something is wrong with it.

/// Beginnings and parts of lines, and what they mean. A warning with a trace is one, too: kernels of distributions have none in everyday
/// life. Other lines say "WARNING" of the machine's processor.
const FAULTS: &[(&str, &str)] = &[
    ("Kernel panic", "the kernel panicked"),
    ("BUG: soft lockup", "a processor was locked up"),
    ("watchdog: BUG", "a processor was locked up"),
    ("detected stall", "a processor was stalled"),
    ("blocked for more than", "a task was blocked for minutes"),
    ("BUG:", "the kernel found a bug in itself"),
    ("Oops", "the kernel had an oops"),
    ("general protection fault", "the kernel had an oops"),
    ("unable to handle", "the kernel had an oops"),
    ("[ cut here ]", "the kernel warned of itself"),
    ("WARNING: CPU:", "the kernel warned of itself"),
    ("unregister_netdevice: waiting for", "the kernel has lost count of who uses an interface"),
    ("Out of memory", "the guest's memory was full"),
    ("oom-kill", "the guest's memory was full"),
    ("UBSAN:", "the kernel found a bug in itself"),
    ("refcount_t:", "the kernel found a bug in itself"),
];
/// Lines around a fault that are shown.
const SHOWN: usize = 12;

/// The meaning of a line, if it tells of a fault.
pub(crate) fn of_line(line: &str) -> Option<&'static str> {
    FAULTS.iter().find(|(part, _)| line.contains(part)).map(|(_, meaning)| *meaning)
}

/// The first fault of a console, with the lines that follow it: the cause comes first, whatever it leads to.
pub(crate) fn first(console: &str) -> Option<String> {
    let lines: Vec<_> = console.lines().collect();
    let (at, meaning) = lines.iter().enumerate().find_map(|(at, line)| Some((at, of_line(line)?)))?;
    let shown: Vec<_> = lines[at..].iter().take(SHOWN).map(|line| line.trim_end()).collect();
    Some(format!("{meaning}:\n{}", shown.join("\n")))
}

/// The last lines of a console that says nothing of a fault.
pub(crate) fn last_lines(console: &str) -> String {
    let lines: Vec<_> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_comes_before_what_it_leads_to() {
        let console = "[    1.0] veth: loaded\n\
                       [    9.0] BUG: kernel NULL pointer dereference, address: 0000000000000000\n\
                       [    9.1] Oops: 0002 [#1] SMP\n\
                       [    9.2] Kernel panic - not syncing: Fatal exception\n";
        let fault = first(console).unwrap();
        assert!(fault.starts_with("the kernel found a bug in itself:\n[    9.0] BUG: kernel NULL"), "{fault}");
        assert!(fault.contains("Kernel panic"), "{fault}");
    }

    #[test]
    fn each_kind_is_known() {
        let check = |line, meaning| assert_eq!(of_line(line), Some(meaning), "{line}");
        check("watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [it:77]", "a processor was locked up");
        check("rcu: INFO: rcu_preempt self-detected stall on CPU", "a processor was stalled");
        check("INFO: task dhcp-guard:99 blocked for more than 120 seconds.", "a task was blocked for minutes");
        check("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100", "the kernel panicked");
        check("WARNING: CPU: 0 PID: 1 at net/core/dev.c:1", "the kernel warned of itself");
        check("Out of memory: Killed process 77 (it)", "the guest's memory was full");
        check(
            "unregister_netdevice: waiting for em0 to become free.",
            "the kernel has lost count of who uses an interface",
        );
        assert_eq!(of_line("veth0: entered promiscuous mode"), None);
        assert_eq!(of_line("RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks"), None);
        assert_eq!(first("all is well\n"), None);
    }
}
