//! The machine the figures are true for, and keeping a measurement on one of its CPUs.

use std::{fs, io, thread};

use anyhow::{Context as _, Result};

/// What a reader has to know to compare the figures with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Architecture, as the kernel names it.
    pub architecture: String,
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// Whether the kernel runs below a hypervisor: then others may take the CPU away unseen.
    pub virtual_machine: bool,
    /// Whether BPF programs are compiled. Without, no figure here means anything to users of the guard.
    pub jit: bool,
}

impl Machine {
    /// This machine; what it does not say is "unknown".
    #[must_use]
    pub fn describe() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            architecture: std::env::consts::ARCH.into(),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").into(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: field(&cpuinfo, "flags").is_some_and(|flags| has_word(flags, "hypervisor")),
            jit: first_line("/proc/sys/net/core/bpf_jit_enable") != "0",
        }
    }
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or("unknown".into())
}

/// The first `name : value` of /proc/cpuinfo.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace().any(|w| w == word)
}

/// The CPUs a thread may run on.
#[derive(Clone, Copy)]
pub struct Cpus(libc::cpu_set_t);

impl Cpus {
    /// Those of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn current() -> Result<Self> {
        let mut cpus = Self::none();
        // SAFETY: the set lives through the call; 0 is the calling thread.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&cpus.0), &raw mut cpus.0) };
        if result == 0 { Ok(cpus) } else { Err(io::Error::last_os_error()).context("which CPUs may be used") }
    }

    /// The last one alone: the first one often has the machine's interrupts to serve.
    #[must_use]
    pub fn last(&self) -> Self {
        let mut one = Self::none();
        let limit = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
        // SAFETY: the numbers are below the size of the set.
        if let Some(cpu) = (0..limit).rev().find(|cpu| unsafe { libc::CPU_ISSET(*cpu, &self.0) }) {
            // SAFETY: as above.
            unsafe { libc::CPU_SET(cpu, &mut one.0) };
        }
        one
    }

    /// Keeps the calling thread, and threads it starts from now on, to these.
    ///
    /// # Errors
    /// The kernel's.
    pub fn keep_to(&self) -> Result<()> {
        // SAFETY: the set lives through the call; 0 is the calling thread.
        let result = unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &raw const self.0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("cannot keep to one CPU") }
    }

    fn none() -> Self {
        // SAFETY: a set of bits, for which all zeros is the empty set.
        Self(unsafe { std::mem::zeroed() })
    }
}

/// Gives the calling thread, and threads it starts while this lives, the CPU before all ordinary threads of the machine.
pub struct Preferred {
    before: libc::c_int,
}

impl Preferred {
    /// From now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> Result<Self> {
        // SAFETY: no pointers; 0 is the calling thread (on Linux the priority is a thread's, setpriority(2)).
        let before = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        set_niceness(-20).context("cannot prefer this thread to others")?;
        Ok(Self { before })
    }
}

impl Drop for Preferred {
    fn drop(&mut self) {
        // Giving up a preference is always allowed.
        let _ = set_niceness(self.before);
    }
}

fn set_niceness(value: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers; 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_cpuinfo() {
        let text =
            "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu hypervisor\n\nmodel name\t: Other\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2.00GHz"));
        assert!(has_word(field(text, "flags").unwrap(), "hypervisor"));
        assert!(!has_word("nohypervisor", "hypervisor"));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn the_last_cpu_is_one_and_can_be_left_again() {
        thread::spawn(|| {
            let all = Cpus::current().unwrap();
            all.last().keep_to().unwrap();
            assert_eq!(thread::available_parallelism().unwrap().get(), 1);
            all.keep_to().unwrap();
        })
        .join()
        .unwrap();
    }
}
