//! Runs a program at the beginning and at the end of a quarantine.
//!
//! The program is somebody else's, so nothing is expected of it: it may read its input or not, write without end, never
//! end, and leave others behind. It gets a process group of its own, and when its time is over, when it has ended, or
//! when nobody waits for it any more, the whole group is killed. Only who leaves the group (a daemon) escapes that.

use std::{
    io,
    os::fd::AsFd as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    io::retry_on_intr,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
        set_parent_process_death_signal, waitid,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, ChildStdin, Command as Process},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{Actuator, Done, Failure, Job, Work, document, job::after_colon};
use crate::config::{self, ActuatorName};

/// What else it may take to end a group that has been killed, and to read what it left in the pipe.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// How much of the standard error is kept, bytes: its end.
const KEPT: usize = 4096;
/// How much of its last line is told, characters.
const TOLD: usize = 200;
/// Where the program finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// See the module.
#[derive(Clone, Debug)]
pub struct Command {
    argv: Vec<String>,
    limit: Duration,
}

impl Command {
    /// The program of the configuration. Nothing is run yet.
    #[must_use]
    pub fn new(config: &config::Command) -> Self {
        Self { argv: config.argv.clone(), limit: Duration::from_secs(config.timeout_s.into()) }
    }

    async fn run(&self, job: &Job) -> Done {
        let program = self.argv.first().map_or("", String::as_str);
        let failed = |e: io::Error| Failure::Failed(format!("cannot run {program}: {e}"));
        let body = document::of(job)?;
        let mut group = Group::start(self.process(job)).await.map_err(failed)?;
        let stdin = group.leader.stdin.take();
        let mut said = Tail { stderr: group.leader.stderr.take(), kept: Vec::new() };
        let ended = tokio::select! {
            ended = timeout(self.limit, group.leader_ended()) => ended,
            never = talk(stdin, &body, &mut said) => match never {},
        };
        let status = group.end(&mut said).await;
        let said = said.last_line();
        match (ended, status) {
            (Err(_), _) => Err(Failure::TooSlow(self.limit, said)),
            (Ok(Err(e)), _) | (Ok(Ok(())), Err(e)) => Err(failed(e)),
            (Ok(Ok(())), Ok(status)) if status.success() => Ok(said),
            (Ok(Ok(())), Ok(status)) => {
                Err(Failure::Failed(format!("{program} ended with {status}{}", after_colon(&said))))
            }
        }
    }

    fn process(&self, job: &Job) -> Process {
        let (program, arguments) = self.argv.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
        let mut process = Process::new(program);
        process
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("DHCP_GUARD_ACTION", job.what.to_string())
            .env("DHCP_GUARD_QUARANTINE", job.report.id.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // Nor does it outlive an agent that is killed.
        let die_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec it makes one system call, and touches no memory of the agent's.
        unsafe { process.pre_exec(die_with_us) };
        process
    }
}

impl Actuator for Command {
    fn name(&self) -> ActuatorName {
        ActuatorName::Command
    }

    /// The program's time is kept here, so that its last words are not lost; this is for what comes after.
    fn timeout(&self) -> Duration {
        self.limit + 3 * AFTERWARDS
    }

    fn impose<'a>(&'a self, job: &'a Job) -> Work<'a> {
        Box::pin(self.run(job))
    }

    fn lift<'a>(&'a self, job: &'a Job) -> Work<'a> {
        Box::pin(self.run(job))
    }
}

/// Writes the input and reads the standard error, for as long as somebody wants that. The program need not take part.
async fn talk(stdin: Option<ChildStdin>, body: &[u8], said: &mut Tail) -> std::convert::Infallible {
    let write = async move {
        if let Some(mut stdin) = stdin {
            _ = stdin.write_all(body).await;
        }
    };
    tokio::join!(write, said.read());
    std::future::pending().await
}

/// A program, and all that it has started. Whoever drops it kills them all.
struct Group {
    id: Pid,
    leader: Child,
    /// Waits until the leader has ended, and leaves it there: as long as nobody has asked for its status, nobody else
    /// gets its number, and the group can be killed by it.
    ended: JoinHandle<io::Result<()>>,
}

impl Group {
    /// Starts it on a thread where waiting is allowed: a program on a file server that hangs takes its time.
    async fn start(mut process: Process) -> io::Result<Self> {
        let leader = spawn_blocking(move || process.spawn()).await.map_err(io::Error::other)??;
        let id = leader.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(id, PidfdFlags::empty()).inspect_err(|_| kill(id))?;
        let ended = spawn_blocking(move || {
            let leave_it = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), leave_it)).map(drop).map_err(io::Error::from)
        });
        Ok(Self { id, leader, ended })
    }

    async fn leader_ended(&mut self) -> io::Result<()> {
        (&mut self.ended).await.map_err(io::Error::other)?
    }

    /// Kills who is left, reads what they had written, and asks for the leader's status.
    async fn end(mut self, said: &mut Tail) -> io::Result<ExitStatus> {
        kill(self.id);
        // Somebody who left the group may hold the pipe open.
        _ = timeout(AFTERWARDS, said.read()).await;
        let status = timeout(AFTERWARDS, self.leader.wait()).await;
        status.unwrap_or_else(|_| Err(io::Error::other("it was killed and does not end: the kernel holds it")))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // No id: its status was asked for, and the group was killed before that.
        if self.leader.id().is_some() {
            kill(self.id);
        }
    }
}

/// The end of what a program writes on its standard error; the rest is read and forgotten.
struct Tail {
    stderr: Option<ChildStderr>,
    kept: Vec<u8>,
}

impl Tail {
    /// Reads to the end. May be dropped at any time, and called again.
    async fn read(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut buffer = [0; KEPT];
        while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
            self.kept.extend_from_slice(&buffer[..length]);
            let surplus = self.kept.len().saturating_sub(KEPT);
            self.kept.drain(..surplus);
        }
    }

    /// The last line with something in it, fit to be shown.
    fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.kept);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(line.chars().take(TOLD).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    }
}

fn kill(group: Pid) {
    // Gone already: that is what was wanted.
    _ = kill_process_group(group, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering::Relaxed},
        },
        time::Instant,
    };

    use tokio::time::sleep;

    use super::*;
    use crate::actuators::{Dispatcher, What, testing::job};

    /// For those that are to be killed.
    const LIMIT: Duration = Duration::from_millis(800);
    /// For those that are to end, on a machine that may be busy.
    const AMPLE: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        Command { argv: ["/bin/sh", "-c", script].map(str::to_owned).into(), limit: AMPLE }
    }

    async fn impose(script: &str) -> Done {
        let command = shell(script);
        command.impose(&job(What::Impose, 7)).await
    }

    /// A quarantine that no other test has; its number is in the environment of all that is started for it.
    fn job_of_my_own() -> Job {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = (u64::from(std::process::id()) << 16) + NEXT.fetch_add(1, Relaxed);
        job(What::Impose, id)
    }

    /// The processes that there are for this job.
    fn there_are(job: &Job) -> Vec<String> {
        let mark = format!("DHCP_GUARD_QUARANTINE={}", job.report.id);
        let is_marked = |environment: Vec<u8>| environment.split(|byte| *byte == 0).any(|it| it == mark.as_bytes());
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|process| process.path());
        let marked = processes.filter(|path| fs::read(path.join("environ")).is_ok_and(is_marked));
        marked.map(|path| fs::read_to_string(path.join("cmdline")).unwrap_or_default()).collect()
    }

    /// Those that are still there when whoever was killed has had time to go.
    async fn are_left(job: &Job) -> Vec<String> {
        let start = Instant::now();
        while !there_are(job).is_empty() && start.elapsed() < Duration::from_secs(2) {
            sleep(Duration::from_millis(10)).await;
        }
        there_are(job)
    }

    #[tokio::test]
    async fn it_is_told_what_to_do_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let path = dir.path().display();
        let command = shell(&format!("cat > {path}/in; env > {path}/env; pwd > {path}/pwd; echo wird >&2; echo >&2"));
        assert_eq!(command.lift(&job(What::Lift, 7)).await, Ok(Some("wird".into())));
        let read: serde_json::Value = serde_json::from_slice(&fs::read(at("in")).unwrap()).unwrap();
        assert_eq!((&read["action"], &read["quarantine"]["id"]), (&"lift".into(), &7.into()));
        let env = fs::read_to_string(at("env")).unwrap();
        let of_ours = |line: &&str| !line.starts_with("PWD=") && !line.starts_with("_=") && !line.starts_with("SHLVL=");
        let mut env: Vec<_> = env.lines().filter(of_ours).collect();
        env.sort_unstable();
        assert_eq!(env, ["DHCP_GUARD_ACTION=lift", "DHCP_GUARD_QUARANTINE=7", &format!("PATH={PATH}")]);
        assert_eq!(fs::read_to_string(at("pwd")).unwrap(), "/\n");
    }

    #[tokio::test]
    async fn no_shell_reads_the_words() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a b;$(id)");
        let argv = vec!["/usr/bin/touch".to_owned(), file.display().to_string()];
        let command = Command { argv, limit: AMPLE };
        assert_eq!(command.impose(&job(What::Impose, 1)).await, Ok(None));
        assert!(file.exists());
    }

    #[tokio::test]
    async fn a_failure_tells_its_last_words() {
        assert_eq!(
            impose("echo one >&2; printf 'no such \\033[1mport' >&2; exit 3").await,
            Err(Failure::Failed("/bin/sh ended with exit status: 3: no such \u{fffd}[1mport".into()))
        );
        let missing = Command { argv: vec!["/nowhere/at-all".into()], limit: LIMIT };
        let failure = missing.impose(&job(What::Impose, 1)).await.unwrap_err().to_string();
        assert_eq!(failure, "cannot run /nowhere/at-all: No such file or directory (os error 2)");
        assert!(impose("kill -9 $$").await.unwrap_err().to_string().contains("signal: 9"));
    }

    #[tokio::test]
    async fn one_that_never_ends_is_killed_and_so_are_its_children_that_ignore_sigterm() {
        let (job, start) = (job_of_my_own(), Instant::now());
        let script = "trap '' TERM; (trap '' TERM HUP INT; while :; do sleep 3; done) & echo waiting >&2; sleep 60; :";
        let command = Command { limit: LIMIT, ..shell(script) };
        let (done, meanwhile) = tokio::join!(command.impose(&job), async {
            sleep(LIMIT / 2).await;
            there_are(&job)
        });
        assert_eq!(meanwhile.len(), 4, "two shells and what they wait for: {meanwhile:?}");
        assert_eq!(done, Err(Failure::TooSlow(LIMIT, Some("waiting".into()))));
        assert!(start.elapsed() < LIMIT + 3 * AFTERWARDS, "{:?}", start.elapsed());
        assert_eq!(are_left(&job).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn whom_it_leaves_behind_is_killed_when_it_ends() {
        let (job, start) = (job_of_my_own(), Instant::now());
        let command = shell("(trap '' HUP TERM; sleep 60; :) & exit 0");
        assert_eq!(command.impose(&job).await, Ok(None));
        assert!(start.elapsed() < AMPLE / 2, "{:?}", start.elapsed());
        assert_eq!(are_left(&job).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_daemon_that_holds_the_pipe_does_not_keep_us() {
        let start = Instant::now();
        assert_eq!(impose("echo done >&2; setsid sleep 20 &\n sleep 0.2").await, Ok(Some("done".into())));
        assert!(start.elapsed() < AMPLE / 2, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn nobody_is_left_when_nobody_waits_any_more() {
        let job = job_of_my_own();
        let command = shell("trap '' TERM; sh -c 'sleep 60; :'; :");
        assert!(timeout(LIMIT / 2, command.impose(&job)).await.is_err());
        assert_eq!(are_left(&job).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn nobody_is_left_when_the_dispatcher_goes() {
        let job = job_of_my_own();
        let command = Command { limit: Duration::from_secs(60), ..shell("sleep 60; :") };
        let (handle, _outcomes, dispatcher) = Dispatcher::start(vec![Arc::new(command)]);
        handle.dispatch(job.clone());
        while there_are(&job).len() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
        dispatcher.finish(Duration::from_millis(100)).await;
        assert_eq!(are_left(&job).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn one_that_writes_100_mib_is_read_and_forgotten() {
        const FLOOD: &str = "head -c 104857600 /dev/zero; head -c 104857600 /dev/zero | tr '\\0' 'x' >&2; echo >&2; \
                             echo the end >&2";
        let command = Command { limit: 2 * AMPLE, ..shell(FLOOD) };
        assert_eq!(command.impose(&job(What::Impose, 7)).await, Ok(Some("the end".into())));

        let mut group = Group::start(command.process(&job(What::Impose, 7))).await.unwrap();
        let mut said = Tail { stderr: group.leader.stderr.take(), kept: Vec::new() };
        said.read().await;
        assert_eq!((said.kept.len(), said.last_line().as_deref()), (KEPT, Some("the end")));
        assert!(said.kept.capacity() <= 4 * KEPT, "{}", said.kept.capacity());
    }

    #[tokio::test]
    async fn one_that_does_not_read_its_input_is_no_worse() {
        let mut large = job(What::Impose, 7);
        large.report.reason = "x".repeat(1 << 20);
        assert_eq!(shell("exec <&-; sleep 0.1").impose(&large).await, Ok(None));
        assert_eq!(shell("sleep 0.1").impose(&large).await, Ok(None));
        assert_eq!(shell("wc -c > /dev/null").impose(&large).await, Ok(None));
    }
}
