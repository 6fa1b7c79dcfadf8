//! Putting the program on an interface.

use aya::programs::{ProgramError, Xdp, XdpMode, links::FdLink};

use super::{
    Error,
    interface::{self, Interface},
};
use crate::model::AttachMode;

/// The program on an interface; it comes off when this is dropped.
#[derive(Debug)]
pub struct Attachment {
    /// Where.
    pub interface: Interface,
    /// How.
    pub mode: AttachMode,
    /// Why not natively, if generic.
    pub native_refused: Option<String>,
    pub(super) link: FdLink,
}

/// Attaches natively, or else in generic mode. The interface may be down.
///
/// # Errors
/// [`Error::Occupied`], [`Error::Attach`].
pub fn attach(program: &mut Xdp, interface: Interface) -> Result<Attachment, Error> {
    if let Some(id) = interface.xdp_program {
        return Err(occupied(interface.name, id));
    }
    let native = match try_mode(program, interface.ifindex, XdpMode::Driver) {
        Ok(link) => {
            return Ok(Attachment { interface, mode: AttachMode::Native, native_refused: None, link });
        }
        Err(reason) => reason,
    };
    match try_mode(program, interface.ifindex, XdpMode::Skb) {
        Ok(link) => Ok(Attachment { interface, mode: AttachMode::Generic, native_refused: Some(native), link }),
        Err(generic) => Err(Error::Attach { name: interface.name, native, generic }),
    }
}

fn occupied(name: String, id: u32) -> Error {
    Error::Occupied { name, program: interface::program_name(id), id }
}

/// Attaches through a BPF link, or says why not.
///
/// aya falls back to netlink where the kernel answers EINVAL to a link. A program attached that way outlives the agent
/// and anybody may take it off, so it is taken off again and counts as refused.
fn try_mode(program: &mut Xdp, ifindex: u32, mode: XdpMode) -> Result<FdLink, String> {
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
