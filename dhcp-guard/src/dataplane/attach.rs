//! Putting the program on an interface.

use std::path::Path;

use aya::programs::{Xdp, XdpMode, links::FdLink, xdp::XdpLink};

use super::{
    Error,
    interface::{self, Interface},
    links::{self, Link, innermost},
};
use crate::model::AttachMode;

/// The program on an interface. When this is dropped it comes off, unless its link is pinned.
#[derive(Debug)]
pub struct Attachment {
    /// Where.
    pub interface: Interface,
    /// How.
    pub mode: AttachMode,
    /// Why not natively, if generic.
    pub native_refused: Option<String>,
    /// It took the place of one that an agent before this one had left.
    pub replaced: bool,
    link: Link,
}

impl Attachment {
    /// Takes the program off, also where its link is pinned.
    pub fn take_off(self) {
        self.link.take_off();
    }
}

/// Takes the place of the program that is pinned on the interface; else attaches natively, or else in generic mode.
///
/// # Errors
/// [`Error::InterfaceDown`], [`Error::Occupied`], [`Error::ForeignPin`], [`Error::Attach`].
pub fn attach(program: &mut Xdp, interface: Interface, pin: Option<&Path>) -> Result<Attachment, Error> {
    if let Some(path) = pin
        && let Some(link) = links::pinned(path, &interface, interface.xdp_program.as_slice())?
    {
        return replace(program, interface, link, path);
    }
    if !interface.up {
        return Err(Error::InterfaceDown { name: interface.name });
    }
    if let Some(id) = interface.xdp_program {
        return Err(occupied(interface.name, id));
    }
    let native = match try_mode(program, interface.ifindex, XdpMode::Driver, pin) {
        Ok(link) => {
            return Ok(Attachment { interface, mode: AttachMode::Native, native_refused: None, replaced: false, link });
        }
        Err(reason) => reason,
    };
    match try_mode(program, interface.ifindex, XdpMode::Skb, pin) {
        Ok(link) => {
            let native_refused = Some(native);
            Ok(Attachment { interface, mode: AttachMode::Generic, native_refused, replaced: false, link })
        }
        Err(generic) => Err(Error::Attach { name: interface.name, native, generic }),
    }
}

/// Puts the program into the place of the one that a link holds: the next packet meets it. The mode stays.
fn replace(program: &mut Xdp, interface: Interface, link: FdLink, pin: &Path) -> Result<Attachment, Error> {
    let attempt = || {
        let link = XdpLink::try_from(link).map_err(|error| innermost(&error))?;
        let id = program.attach_to_link(link).map_err(|error| innermost(&error))?;
        let link = program.take_link(id).map_err(|error| innermost(&error))?;
        FdLink::try_from(link).map_err(|error| innermost(&error))
    };
    let link = attempt().map_err(|reason| Error::Replace { name: interface.name.clone(), reason })?;
    let native_refused = (interface.xdp_mode == AttachMode::Generic).then(|| "as it was before the restart".to_owned());
    Ok(Attachment {
        mode: interface.xdp_mode,
        interface,
        native_refused,
        replaced: true,
        link: Link::adopted(link, pin),
    })
}

fn occupied(name: String, id: u32) -> Error {
    Error::Occupied { name, program: interface::program_name(id), id }
}

/// Attaches through a BPF link, or says why not.
///
/// aya falls back to netlink where the kernel answers EINVAL to a link. A program attached that way cannot be pinned, nor
/// replaced between two packets, and anybody may take it off, so it is taken off again and counts as refused.
fn try_mode(program: &mut Xdp, ifindex: u32, mode: XdpMode, pin: Option<&Path>) -> Result<Link, String> {
    let id = program.attach_to_if_index(ifindex, mode).map_err(|e| innermost(&e))?;
    let link = program.take_link(id).map_err(|e| innermost(&e))?;
    let link = FdLink::try_from(link).map_err(|_| "the kernel offers no BPF link in this mode".to_owned())?;
    Link::new(link, pin)
}
