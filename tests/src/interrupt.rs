//! Interrupts a thread that is in a system call which has no other end.

use std::{io, os::unix::thread::JoinHandleExt as _, ptr, sync::LazyLock, thread::JoinHandle};

use anyhow::{Context as _, Result};

/// Proof that the signal has a handler: without one it would end the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupt {
    signal: libc::c_int,
}

/// Installed once, for the whole process; what went wrong is an error number.
static HANDLER: LazyLock<Result<Interrupt, i32>> = LazyLock::new(|| {
    // A real-time signal, because nobody else uses those.
    let signal = libc::SIGRTMIN() + 5;
    // SAFETY: all zeros is an empty mask and no flags: in particular not SA_RESTART, so that system calls end.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = do_nothing as *const () as libc::sighandler_t;
    // SAFETY: the action lives through the call, and the handler may run at any time, because it does nothing.
    match unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } {
        0 => Ok(Interrupt { signal }),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
});

extern "C" fn do_nothing(_signal: libc::c_int) {}

impl Interrupt {
    /// Makes sure that there is a handler.
    pub(crate) fn new() -> Result<Self> {
        HANDLER.map_err(io::Error::from_raw_os_error).context("cannot install a signal handler")
    }

    /// Makes a system call that the thread is in fail with EINTR.
    pub(crate) fn send<T>(self, thread: &JoinHandle<T>) {
        // SAFETY: a thread that has not been joined has a valid id, and the signal has a handler. Fails only for a
        // thread that has ended, which needs no interrupting.
        unsafe { libc::pthread_kill(thread.as_pthread_t(), self.signal) };
    }
}
