//! Asking the kernel by trying: programs of a few instructions, which nobody attaches.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use super::sys::{self, Command};

const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_FUNC_JIFFIES64: i32 = 118;
/// The stack's pointer.
const R10: u8 = 10;
/// For so long ticks are counted: with 100 a second, one more or less is 2.5 %.
const WINDOW: Duration = Duration::from_millis(400);

/// `struct bpf_insn` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Insn {
    code: u8,
    /// Destination in the lower half, source in the upper one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers, offset, immediate }
}

/// The end.
pub(super) const EXIT: Insn = insn(0x95, 0, 0, 0);
/// r0 = XDP_PASS
pub(super) const PASS: Insn = insn(0xb7, 0, 0, 2);
/// A compare-and-swap of a word on the stack.
pub(super) const COMPARE_AND_SWAP: &[Insn] =
    &[insn(0x7a, R10, -8, 0), insn(0xb7, 0, 0, 0), insn(0xb7, 1, 0, 1), insn(0xdb, R10 | 1 << 4, -8, 0xf1), PASS, EXIT];

/// `union bpf_attr`, its part for loading.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u64; 2],
    kernel_version: u32,
    flags: u32,
}

/// `union bpf_attr`, its part for test runs.
#[repr(C)]
#[derive(Default)]
struct RunAttr {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Whether programs are compiled. The sysctl for it is not there in every network namespace; what became of a program is.
pub(crate) fn jit() -> Option<bool> {
    let program = load(&[PASS, EXIT], 0).ok()?;
    // The beginning of `struct bpf_prog_info`.
    let [_kind, _id, _tag, _tag_too, length_of_machine_code] = sys::info(sys::number(&program).ok()?).ok()?;
    Some(length_of_machine_code > 0)
}

/// Ticks a second that `bpf_jiffies64` makes. Takes 0.4 s.
pub(crate) fn measured_ticks_per_s() -> Option<u32> {
    let program = load(&[insn(0x85, 0, 0, BPF_FUNC_JIFFIES64), EXIT], 0).ok()?;
    let (start, before) = (Instant::now(), jiffies(&program)?);
    std::thread::sleep(WINDOW);
    let (time, after) = (start.elapsed(), jiffies(&program)?);
    Some((f64::from(after.wrapping_sub(before)) / time.as_secs_f64()).round() as u32)
}

/// The lower half of the kernel's tick counter.
fn jiffies(program: &OwnedFd) -> Option<u32> {
    // No shorter frame is taken.
    let frame = [0u8; 64];
    let mut attr = RunAttr {
        program: sys::number(program).ok()?,
        size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        ..RunAttr::default()
    };
    // SAFETY: a program of ours and a frame of the length that is named; both outlive the call.
    unsafe { sys::bpf(Command::ProgTestRun, &mut attr) }.ok()?;
    Some(attr.result)
}

/// Whether the kernel takes a program; none: it does not say so, for lack of rights, memory, descriptors.
pub(super) fn loads(code: &[Insn], flags: u32) -> Option<bool> {
    match load(code, flags) {
        Ok(_) => Some(true),
        // What it answers to instructions and flags that it does not know.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Some(false),
        Err(_) => None,
    }
}

fn load(code: &[Insn], flags: u32) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        program_type: BPF_PROG_TYPE_XDP,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        flags,
        ..LoadAttr::default()
    };
    // SAFETY: the code and the licence are as long as is said, and outlive the call.
    let descriptor = unsafe { sys::bpf(Command::ProgLoad, &mut attr) }?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(descriptor).map_err(io::Error::other)?) })
}
