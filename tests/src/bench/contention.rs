//! How much of its CPU a flood did not get, so that a figure that says more about the neighbours can be taken again.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// What others had taken from a thread and its CPU, up to some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The thread was ready and another one of this machine ran instead.
    waited_ns: u64,
    /// The kernel's thread that receives frames on this CPU ran. What it did instead of the thread is the flood's own
    /// work: a receiver that is slower than the sender is left to it.
    receiving_ns: u64,
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
        let (_, waited_ns) = schedstat(&read("schedstat")?).context("no waiting time in a thread's schedstat")?;
        let cpu = cpu(&read("stat")?).context("no CPU in a thread's stat")?;
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        // Not every architecture knows of stolen time.
        Ok(Self { waited_ns, receiving_ns: receiving_ns(cpu), stolen_ns: stolen(&stat, cpu).unwrap_or(0) })
    }

    /// Nanoseconds that others took since an earlier moment.
    #[must_use]
    pub fn since(&self, before: &Self) -> u64 {
        let received = self.receiving_ns.saturating_sub(before.receiving_ns);
        let waited = self.waited_ns.saturating_sub(before.waited_ns);
        waited.saturating_sub(received) + self.stolen_ns.saturating_sub(before.stolen_ns)
    }
}

fn task(name: &str) -> Option<String> {
    let tasks = fs::read_dir("/proc/self/task").ok()?;
    let mut ids = tasks.filter_map(|task| task.ok()?.file_name().into_string().ok());
    ids.find(|id| is_called(Path::new(&format!("/proc/self/task/{id}/comm")), name))
}

/// Time on the CPU of its `ksoftirqd`; 0 where that is hidden, as it is from containers.
fn receiving_ns(cpu: usize) -> u64 {
    let name = format!("ksoftirqd/{cpu}");
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(|process| Some(process.ok()?.path()));
    let mut found = processes.filter(|path| is_called(&path.join("comm"), &name));
    let text = found.next().and_then(|path| fs::read_to_string(path.join("schedstat")).ok());
    text.and_then(|text| schedstat(&text)).map_or(0, |(ran_ns, _)| ran_ns)
}

fn is_called(comm: &Path, name: &str) -> bool {
    fs::read_to_string(comm).is_ok_and(|comm| comm.trim_end() == name)
}

/// `schedstat`: nanoseconds on the CPU, nanoseconds waiting for it (and time slices).
fn schedstat(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
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
        assert_eq!(schedstat("12 345 6\n"), Some((12, 345)));
        let stat = "cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 1 1 1 1 1 1 1 7 0 0\ncpu10 1 1 1 1 1 1 1 9 0 0\n";
        assert_eq!(stolen(stat, 0), Some(70_000_000));
        assert_eq!(stolen(stat, 10), Some(90_000_000));
        assert_eq!(stolen(stat, 1), None);
        let fields: Vec<_> = (3..=44).map(|field| field.to_string()).collect();
        assert_eq!(cpu(&format!("17 (a ) b) {}", fields.join(" "))), Some(39));
    }

    #[test]
    fn the_flood_s_own_work_was_not_taken_from_it() {
        let before = Taken { waited_ns: 100, receiving_ns: 10, stolen_ns: 1 };
        let after = |waited_ns, receiving_ns| Taken { waited_ns, receiving_ns, stolen_ns: 4 };
        assert_eq!(after(150, 10).since(&before), 53);
        assert_eq!(after(150, 40).since(&before), 23);
        assert_eq!(after(150, 90).since(&before), 3);
    }

    #[test]
    fn a_thread_by_its_name() {
        let look = || Taken::from_thread("looked-for");
        let found = std::thread::Builder::new().name("looked-for".into()).spawn(look).unwrap().join().unwrap();
        assert!(found.is_ok(), "{found:?}");
        assert!(Taken::from_thread("not-there").is_err());
    }
}
