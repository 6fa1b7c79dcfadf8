//! A fuzz target ends when whoever started it ends.
//!
//! A target runs for as long as it was told to, which may be hours, and its parent may be killed in a way that leaves no
//! time to stop it. The parent holds the other end of the target's standard input, which the kernel closes for it.

use std::{env, io, thread};

/// Set, to anything, by a parent that holds the leash.
pub const VARIABLE: &str = "FUZZ_LEASH";

/// Puts this process on its parent's leash, if it has one.
pub fn put_on() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        // Not `exit`: libFuzzer would take it for the target's, and keep the input as one that broke something.
        // SAFETY: ends the process, whatever it is doing.
        unsafe { libc::_exit(1) }
    });
}
