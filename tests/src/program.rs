//! The guard's program at either hook, run on frames without any interface (BPF_PROG_TEST_RUN).

use std::{cell::Cell, time::Duration};

use anyhow::{Result, bail};
use aya::programs::{ProgramInfo, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use dhcp_guard::dataplane::{DataPlane, hook::Hook};

/// `xdp_action` of include/uapi/linux/bpf.h.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// `tcx_action_base` there: it is dropped, or the next program decides.
const TCX_DROP: u32 = 2;
pub(crate) const TCX_NEXT: u32 = -1i32 as u32;

thread_local! {
    static CURRENT: Cell<Option<Hook>> = const { Cell::new(None) };
}

/// The hook that the test on this thread is about; `None`: any.
#[must_use]
pub fn current_hook() -> Option<Hook> {
    CURRENT.get()
}

/// Runs something that is about a hook.
pub(crate) fn with_hook<T>(hook: Option<Hook>, run: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(hook);
    let result = run();
    CURRENT.set(before);
    result
}

/// Whether the kernel runs the program of the test's hook on a frame of these bytes. It makes a packet of it for TCX, and
/// refuses when nothing is behind the Ethernet header, or less than the IP header that this announces.
#[must_use]
pub fn can_run(frame: &[u8]) -> bool {
    const ETHERNET: usize = 14;
    let behind = match frame.get(12..ETHERNET) {
        _ if current_hook() != Some(Hook::Tcx) => 0,
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 1,
    };
    frame.len() >= ETHERNET + behind
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It passed.
    Passed,
    /// It was dropped.
    Dropped,
}

/// See the module.
#[derive(Debug)]
pub enum Program<'a> {
    /// XDP.
    Xdp(&'a Xdp),
    /// TCX.
    Tcx(&'a SchedClassifier),
}

impl<'a> Program<'a> {
    /// The one for the hook that the test is about.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(plane: &'a mut DataPlane) -> Result<Self> {
        match current_hook() {
            Some(Hook::Tcx) => Ok(Self::Tcx(plane.tcx_program()?)),
            _ => Ok(Self::Xdp(plane.program()?)),
        }
    }

    /// Runs it: the last verdict, and the kernel's measurement of one run.
    ///
    /// # Errors
    /// The kernel's; a verdict that is neither pass nor drop.
    pub fn run(&self, options: TestRunOptions<'_>) -> Result<(Fate, Duration)> {
        let (result, pass, drop) = match self {
            Self::Xdp(program) => (program.test_run(options)?, XDP_PASS, XDP_DROP),
            Self::Tcx(program) => (program.test_run(options)?, TCX_NEXT, TCX_DROP),
        };
        match result.return_value {
            verdict if verdict == pass => Ok((Fate::Passed, result.duration)),
            verdict if verdict == drop => Ok((Fate::Dropped, result.duration)),
            other => bail!("the program answered {other}, which is neither pass nor drop"),
        }
    }

    /// What the kernel says about it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn info(&self) -> Result<ProgramInfo> {
        Ok(match self {
            Self::Xdp(program) => program.info()?,
            Self::Tcx(program) => program.info()?,
        })
    }
}
