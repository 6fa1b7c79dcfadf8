//! Bounded waits for what the kernel does not announce in a form worth listening to.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at: short against every deadline in the lab, long against the cost of looking.
const PERIOD: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; `what` completes the sentence "… did not happen".
pub fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > deadline {
            bail!("{what}: did not happen within {deadline:?}");
        }
        thread::sleep(PERIOD);
    }
    Ok(())
}
