//! What becomes of each test, told at once and in a form that programs read: for whoever runs the tests where a machine can
//! crash or hang in the middle of one (`cargo xtask vm`).
//!
//! One JSON document a line: `{"event":"started","test":NAME}`, then
//! `{"event":"ended","test":NAME,"outcome":"passed"|"failed"|"skipped","reason":TEXT|null,"seconds":S}`.

use std::{
    any::Any,
    env,
    fs::{File, OpenOptions},
    io::Write as _,
    sync::LazyLock,
    time::Duration,
};

use serde_json::{Value, json};

/// Names the file (a pipe, most likely) that is told; not set: nobody is.
pub const EVENTS: &str = "DHCP_GUARD_TEST_EVENTS";

static FILE: LazyLock<Option<File>> = LazyLock::new(|| {
    let path = env::var_os(EVENTS)?;
    let file = OpenOptions::new().append(true).open(&path);
    file.inspect_err(|error| eprintln!("cannot tell of the tests in {}: {error}", path.display())).ok()
});

/// What became of a test.
pub(crate) enum Outcome<'a> {
    Passed,
    Failed(&'a str),
    Skipped(&'a str),
}

/// Whether somebody listens.
pub(crate) fn are_told() -> bool {
    FILE.is_some()
}

pub(crate) fn started(test: &str) {
    tell(&json!({ "event": "started", "test": test }));
}

pub(crate) fn ended(test: &str, outcome: &Outcome<'_>, took: Duration) {
    let (word, reason) = match outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed(reason) => ("failed", Some(reason)),
        Outcome::Skipped(reason) => ("skipped", Some(reason)),
    };
    let seconds = took.as_secs_f64();
    tell(&json!({ "event": "ended", "test": test, "outcome": word, "reason": reason, "seconds": seconds }));
}

/// What a panic said.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without words"))
}

fn tell(document: &Value) {
    if let Some(mut file) = FILE.as_ref() {
        // The tests are what matters; whoever listens sees that something is missing.
        let _ = file.write_all(format!("{document}\n").as_bytes());
    }
}
