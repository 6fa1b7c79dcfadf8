//! How much of its CPU a flood did not get, so that a figure that says more about the neighbours can be taken again.

use std::fs;

use anyhow::{Context as _, Result};

/// What others had taken from a thread and its CPU, up to some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The thread was ready and another one of this machine ran instead.
    waited_ns: u64,
    /// The hypervisor ran somebody else.
    stolen_ns: u64,
}

impl Taken {
    /// From the thread of this process with this name, and from its CPU.
    ///
    /// # Errors
    /// If there is no such thread, or the kernel does not account for it.
    pub fn from_thread(name: &str) -> Result<Self> {
        let task = task(name).with_context(|| format!("this process has no thread `{name}`"))?;
        let read = |file: &str| {
            let path = format!("/proc/self/task/{task}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let waited_ns = waited(&read("schedstat")?).context("no waiting time in a thread's schedstat")?;
        let cpu = cpu(&read("stat")?).context("no CPU in a thread's stat")?;
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        // Not every architecture knows of stolen time.
        Ok(Self { waited_ns, stolen_ns: stolen(&stat, cpu).unwrap_or(0) })
    }

    /// Nanoseconds that others took since an earlier moment.
    #[must_use]
    pub fn since(&self, before: &Self) -> u64 {
        self.waited_ns.saturating_sub(before.waited_ns) + self.stolen_ns.saturating_sub(before.stolen_ns)
    }
}

fn task(name: &str) -> Option<String> {
    let tasks = fs::read_dir("/proc/self/task").ok()?;
    let mut ids = tasks.filter_map(|task| task.ok()?.file_name().into_string().ok());
    ids.find(|id| fs::read_to_string(format!("/proc/self/task/{id}/comm")).is_ok_and(|comm| comm.trim_end() == name))
}

/// `schedstat`: nanoseconds on the CPU, nanoseconds waiting for it, time slices.
fn waited(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

/// Field 39 of `stat`, counted from the name, which stands in brackets because it can have spaces in it.
fn cpu(stat: &str) -> Option<usize> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(39 - 3)?.parse().ok()
}

/// The eighth number of a CPU in /proc/stat, in hundredths of a second (USER_HZ).
fn stolen(stat: &str, cpu: usize) -> Option<u64> {
    let numbers = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")))?;
    let hundredths: u64 = numbers.split_whitespace().nth(7)?.parse().ok()?;
    Some(hundredths * 10_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc() {
        assert_eq!(waited("12 345 6\n"), Some(345));
        let stat = "cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 1 1 1 1 1 1 1 7 0 0\ncpu10 1 1 1 1 1 1 1 9 0 0\n";
        assert_eq!(stolen(stat, 0), Some(70_000_000));
        assert_eq!(stolen(stat, 10), Some(90_000_000));
        assert_eq!(stolen(stat, 1), None);
        let fields: Vec<_> = (3..=44).map(|field| field.to_string()).collect();
        assert_eq!(cpu(&format!("17 (a ) b) {}", fields.join(" "))), Some(39));
    }

    #[test]
    fn a_thread_by_its_name() {
        let look = || Taken::from_thread("looked-for");
        let found = std::thread::Builder::new().name("looked-for".into()).spawn(look).unwrap().join().unwrap();
        assert!(found.is_ok(), "{found:?}");
        assert!(Taken::from_thread("not-there").is_err());
    }
}
