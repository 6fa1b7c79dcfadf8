//! Putting the program on an interface.

use aya::{
    Ebpf,
    programs::{Program, ProgramError, TcAttachType, Xdp, XdpMode, links::FdLink},
};

use super::{
    Error,
    hook::{self, Hook},
    interface::{self, Interface},
    load, tcx,
};
use crate::model::AttachMode;

/// The program on an interface; it comes off when this is dropped.
#[derive(Debug)]
pub struct Attachment {
    /// Where.
    pub interface: Interface,
    /// How.
    pub mode: AttachMode,
    /// Why not natively, where that was tried.
    pub native_refused: Option<String>,
    _link: FdLink,
}

/// Attaches by the best way that is not refused, see [`hook::ways`].
///
/// # Errors
/// [`Error::InterfaceDown`], [`Error::NoTcx`], [`Error::Occupied`], [`Error::Attach`].
pub fn attach(ebpf: &mut Ebpf, interface: Interface, hook: Hook) -> Result<Attachment, Error> {
    if !interface.up {
        return Err(Error::InterfaceDown { name: interface.name });
    }
    let ways = hook::ways(hook, interface.facts);
    if ways.is_empty() {
        return Err(Error::NoTcx { name: interface.name });
    }
    if let Some(error) = occupied(&interface, ways) {
        return Err(error);
    }
    let mut refused = Vec::new();
    for mode in ways {
        match try_mode(ebpf, &interface, *mode) {
            Ok(link) => {
                let native_refused = refused.pop().map(|(_, reason)| reason);
                return Ok(Attachment { interface, mode: *mode, native_refused, _link: link });
            }
            Err(reason) => refused.push((*mode, reason)),
        }
    }
    Err(Error::Attach { name: interface.name, reasons: words(&refused) })
}

/// What is in the way: another XDP program, and a guard at whichever hook, since two that judge the same frames would
/// count, and charge, each of them twice. Behind XDP programs of others, TCX sees what they pass.
fn occupied(interface: &Interface, ways: &[AttachMode]) -> Option<Error> {
    let of = |program: String, hook, id| Error::Occupied { name: interface.name.clone(), hook, program, id };
    if let Some(id) = interface.xdp_program {
        let program = interface::program_name(id);
        if ways != [AttachMode::Tcx] || program == load::PROGRAM {
            return Some(of(program, "XDP", id));
        }
    }
    tcx::guard_on(&interface.name).map(|id| of(tcx::PROGRAM.to_owned(), "TCX", id))
}

/// Each way with why it was refused.
fn words(refused: &[(AttachMode, String)]) -> String {
    let way = |mode: &AttachMode| match mode {
        AttachMode::Native => "natively",
        AttachMode::Generic => "in generic mode",
        AttachMode::Tcx => "by TCX",
    };
    let each: Vec<_> = refused.iter().map(|(mode, reason)| format!("{} ({reason})", way(mode))).collect();
    each.join(" nor ")
}

fn try_mode(ebpf: &mut Ebpf, interface: &Interface, mode: AttachMode) -> Result<FdLink, String> {
    let name = if mode == AttachMode::Tcx { tcx::PROGRAM } else { load::PROGRAM };
    let program = ebpf.program_mut(name).ok_or_else(|| Error::NoProgram.to_string())?;
    let by_xdp = |program: &mut _, mode| try_xdp(program, interface.ifindex, mode);
    match mode {
        AttachMode::Tcx => tcx::attach_first(program, interface, TcAttachType::Ingress),
        AttachMode::Native => by_xdp(program, XdpMode::Driver),
        AttachMode::Generic => by_xdp(program, XdpMode::Skb),
    }
}

/// Attaches through a BPF link, or says why not.
///
/// aya falls back to netlink where the kernel answers EINVAL to a link. A program attached that way outlives the agent
/// and anybody may take it off, so it is taken off again and counts as refused.
fn try_xdp(program: &mut Program, ifindex: u32, mode: XdpMode) -> Result<FdLink, String> {
    let program: &mut Xdp = program.try_into().map_err(|e| reason(&e))?;
    let id = program.attach_to_if_index(ifindex, mode).map_err(|e| reason(&e))?;
    let link = program.take_link(id).map_err(|e| reason(&e))?;
    FdLink::try_from(link).map_err(|_| "the kernel offers no BPF link in this mode".to_owned())
}

/// The innermost cause: "Operation not supported" says more than "`bpf_link_create` failed".
pub(super) fn reason(error: &ProgramError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
