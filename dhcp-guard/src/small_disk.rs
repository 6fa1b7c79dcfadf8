//! For tests: runs one of this program's tests in a child whose disk is full after a few kilobytes.
//!
//! A test cannot make its own disk small without making everybody's small, so it starts itself again: in a mount namespace
//! with a tmpfs, or with a limit on the size of files.

use std::{
    env,
    path::PathBuf,
    process::{Command, Output},
};

/// How the child knows its folder.
const FOLDER: &str = "DHCP_GUARD_TEST_SMALL_DISK";
/// Exit code of a child that could not get its disk.
const NO_DISK: i32 = 77;

/// How a disk is made small.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    /// A tmpfs of 64 KiB, which only the child sees. Needs the right to mount.
    Tmpfs,
    /// A limit of 32 to 64 KiB on the size of a file (shells differ in their unit). Needs nothing.
    FileLimit,
}

/// In the child: its folder. None: this is no child, and there is nothing to test.
pub(crate) fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

/// Runs the test of this name in such a child; says so on standard error if that is not possible here.
pub(crate) fn run(test: &str, by: By) {
    let dir = tempfile::tempdir().unwrap();
    // Signals that are ignored stay so in the child: writing beyond the limit is an error then, and not the end.
    let script = match by {
        By::Tmpfs => format!("mount -t tmpfs -o size=64k none \"${FOLDER}\" || exit {NO_DISK}"),
        By::FileLimit => format!("trap '' XFSZ; ulimit -f 64 || exit {NO_DISK}"),
    } + "; exec \"$0\" --exact \"$1\" --nocapture";
    let command = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).args(["-c", &script]).arg(env::current_exe().unwrap()).arg(test).env(FOLDER, dir.path());
        command.output()
    };
    // As root that is simple; as anybody else it takes a user namespace, which not every host permits.
    let attempts: &[(&str, &[&str])] = match by {
        By::Tmpfs => &[("unshare", &["-m", "sh"]), ("unshare", &["-rm", "sh"])],
        By::FileLimit => &[("sh", &[])],
    };
    for (program, args) in attempts {
        if let Ok(output) = command(program, args)
            && has_run(&output)
        {
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && text.contains("1 passed"), "{by:?}: {text}");
            return;
        }
    }
    eprintln!("skipped: {test} on a full disk by {by:?}, because this host does not let a test make one");
}

/// Whether the test itself has run, well or not.
fn has_run(output: &Output) -> bool {
    output.status.success() || String::from_utf8_lossy(&output.stdout).contains("running 1 test")
}
