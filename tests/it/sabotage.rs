//! Tests that fail on purpose, for `cargo xtask vm --break HOW`: what is broken must be reported as broken, with its reason.

use std::env;

use anyhow::Result;
use libtest_mimic::Trial;
use tests::{
    control,
    harness::{SABOTAGE, trial_once},
};

use crate::kernel::KERNEL;

/// None, unless somebody asks for one.
pub(crate) fn trials() -> Vec<Trial> {
    match env::var(SABOTAGE).as_deref() {
        Ok("verifier") => {
            vec![trial_once("sabotage: a program that the verifier rejects", KERNEL, control::load_rejected)]
        }
        Ok("panic") => vec![trial_once("sabotage: a test that panics", &[], panics)],
        _ => Vec::new(),
    }
}

fn panics() -> Result<()> {
    panic!("on purpose")
}
