//! The guard as a TCX program (kernel 6.6), on the way in: the same rules and the same maps as the XDP program.
//!
//! Programs stand in a row there, and each says who decides next. Through a BPF link, like everything that is attached here.

use std::io;

use aya::programs::{
    LinkOrder, Program, ProgramError, ProgramInfo, SchedClassifier, TcAttachType,
    links::FdLink,
    tc::{SchedClassifierLink, TcAttachOptions},
};

use super::{
    DataPlane, Error,
    interface::Interface,
    links::innermost,
    sys::{self, Row},
};

/// Name of the program, in the object and in the kernel.
pub const PROGRAM: &str = "dhcp_guard_tcx";

impl DataPlane {
    /// The program, loaded: the first use is what loads it, since most hosts need XDP alone.
    ///
    /// # Errors
    /// [`Error::NoProgram`], [`Error::Load`].
    pub fn tcx_program(&mut self) -> Result<&mut SchedClassifier, Error> {
        let program = self.ebpf.program_mut(PROGRAM).ok_or(Error::NoProgram)?;
        loaded(program).map_err(Error::program("verifying it"))
    }
}

/// Whether the kernel has TCX, asked of any interface.
///
/// # Errors
/// It does not say now: no rights, no such interface.
pub fn is_offered(ifindex: u32) -> io::Result<bool> {
    match sys::programs_in(Row::Ingress, ifindex) {
        Ok(_) => Ok(true),
        // What it answers to a place for programs that it does not know.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Kernel id of the guard, of whatever agent, on an interface's way in. Without CAP_SYS_ADMIN nobody learns what the programs
/// there are called, and none is found.
#[must_use]
pub fn guard_on(interface: &str) -> Option<u32> {
    let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress).ok()?;
    programs.iter().find(|program| program.name_as_str() == Some(PROGRAM)).map(ProgramInfo::id)
}

/// Kernel ids of all programs on an interface's way in or out; none where the kernel has no TCX.
pub(super) fn programs_on(interface: &Interface, row: Row) -> Vec<u32> {
    sys::programs_in(row, interface.ifindex).unwrap_or_default()
}

/// A program of this kind, loaded.
pub(super) fn loaded(program: &mut Program) -> Result<&mut SchedClassifier, ProgramError> {
    let program: &mut SchedClassifier = program.try_into()?;
    if program.fd().is_err() {
        program.load()?;
    }
    Ok(program)
}

/// Attaches a program in front of all others, since one that decides about a frame ends the row; or says why not.
///
/// Not with aya's `attach`, which takes a filter of tc on kernels without TCX, at a place of its own and without a pin: that is
/// for [`clsact`](super::clsact).
pub(super) fn attach_first(
    program: &mut Program,
    interface: &Interface,
    direction: TcAttachType,
) -> Result<FdLink, String> {
    // aya wants the name, which may be another interface's by now.
    interface.must_be_here()?;
    let link = attach(program, &interface.name, direction).map_err(|error| innermost(&error))?;
    FdLink::try_from(link).map_err(|_| "the kernel offers no BPF link".to_owned())
}

fn attach(
    program: &mut Program,
    interface: &str,
    direction: TcAttachType,
) -> Result<SchedClassifierLink, ProgramError> {
    let program = loaded(program)?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, direction, first)?;
    program.take_link(id)
}
