//! Children that cannot outlive us.
//!
//! Every child asks the kernel for SIGKILL when its parent goes (`PR_SET_PDEATHSIG`). The parent, to the kernel, is the
//! *thread* that forked, so long-lived children are all forked by one thread that lives as long as the process.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{last_words, wait};

/// How many lines of output are kept, to be shown when something fails.
const LINES_KEPT: usize = 50;

/// Makes a child of `command` die with the thread that forks it.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls: prctl and getppid.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the line above: then nobody would send the signal.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// What [`SPAWNER`] is asked: a command, and where to send its child.
type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// The thread that forks all long-lived children; it ends with the process.
static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for (mut command, answer) in inbox {
                // An asker that is gone has no use for the child: dropping the answer must not leave it running.
                if let Err(mpsc::SendError(Ok(mut orphan))) = answer.send(command.spawn()) {
                    let _ = orphan.kill();
                    let _ = orphan.wait();
                }
            }
        })
        .expect("a thread can be started");
    orders
});

/// A long-lived child, killed and reaped on drop, whose output is drained all the time (a full pipe would stop it).
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts `command`. `on_line` sees every line of its standard output and error, on a thread of its own; it is
    /// dropped when the output ends.
    ///
    /// The command must have been made to die with its parent ([`die_with_parent`]).
    pub fn start(mut command: Command, on_line: impl FnMut(&str) + Send + 'static) -> Result<Self> {
        let name = describe(&command);
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        command.stdin(Stdio::null()).stdout(writer.try_clone().context("cannot duplicate a pipe")?).stderr(writer);
        let (answer, child) = mpsc::channel();
        let sent = SPAWNER.send((command, answer));
        let child = sent.ok().and_then(|()| child.recv().ok()).context("the spawner thread is gone")?;
        let child = child.with_context(|| format!("cannot start `{name}`"))?;
        let last_lines = Arc::default();
        drain(reader, Arc::clone(&last_lines), on_line).context("cannot start a thread for a child's output")?;
        Ok(Self { child, name, last_lines })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of output.
    #[must_use]
    pub fn last_lines(&self) -> String {
        lock(&self.last_lines).make_contiguous().join("\n")
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for `{}`", self.name))
    }

    /// Fails, with the last lines of output, if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("`{}` ended ({status}):\n{}", self.name, self.last_lines()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Neither fails but for a child that has been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        last_words::keep(&self.name, lock(&self.last_lines).iter());
    }
}

/// Reads lines until the last writer is gone, on a thread of its own.
fn drain(
    reader: impl Read + Send + 'static,
    last_lines: Arc<Mutex<VecDeque<String>>>,
    mut on_line: impl FnMut(&str) + Send + 'static,
) -> io::Result<()> {
    let read = move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            on_line(&line);
            let mut kept = lock(&last_lines);
            if kept.len() == LINES_KEPT {
                kept.pop_front();
            }
            kept.push_back(line);
        }
    };
    thread::Builder::new().name("drain".into()).spawn(read).map(drop)
}

/// Runs a command that says little and should end by itself: its output.
pub fn output_within(mut command: Command, deadline: Duration) -> Result<Output> {
    let name = describe(&command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot run `{name}`"))?;
    end_within(child, &name, deadline)
}

/// Waits for the end of a child that should end by itself, and answers what its pipes hold, which must be little. One
/// that does not end is killed, and that is an error.
pub fn end_within(mut child: Child, name: &str, deadline: Duration) -> Result<Output> {
    let ended = wait::until(&format!("the end of `{name}`"), deadline, || Ok(child.try_wait()?.is_some()));
    // Fails only where it has ended, and then it changes nothing.
    let _ = child.kill();
    let output = child.wait_with_output().with_context(|| format!("cannot read the output of `{name}`"))?;
    ended.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(output)
}

/// Runs a short command to its end and answers its standard output; `input` goes to its standard input.
pub fn run(mut command: Command, input: &str) -> Result<String> {
    use std::io::Write as _;

    let name = describe(&command);
    let failed = || format!("cannot run `{name}`");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(failed)?;
    // The tools of the lab read all of their input before they write more than a pipe holds, so this cannot deadlock.
    let mut stdin = child.stdin.take().context("the child has no standard input")?;
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(failed)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let input = if input.is_empty() { String::new() } else { format!("\ninput was:\n{input}") };
        bail!("`{name}` failed ({}): {}{input}", output.status, stderr.trim());
    }
    written.with_context(|| format!("cannot write to `{name}`"))?;
    String::from_utf8(output.stdout).with_context(|| format!("output of `{name}`"))
}

/// The command line, for messages.
fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Locks; a panic elsewhere does not make lines of text less true.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_says_what_it_was_and_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat >&2; exit 3"]);
        let error = run(command, "the reason").unwrap_err().to_string();
        assert!(
            error.contains("sh -c cat") && error.contains("exit status: 3") && error.contains("the reason"),
            "{error}"
        );
    }

    #[test]
    fn a_process_started_from_a_short_thread_lives_on() {
        let (lines, output) = mpsc::channel();
        let start = move || {
            let mut command = Command::new("sh");
            command.args(["-c", "echo ready; exec sleep 60"]);
            die_with_parent(&mut command);
            Process::start(command, move |line| drop(lines.send(line.to_owned()))).unwrap()
        };
        let mut process = thread::spawn(start).join().unwrap();
        assert_eq!(output.recv().unwrap(), "ready");
        process.check_running().unwrap();
    }
}
