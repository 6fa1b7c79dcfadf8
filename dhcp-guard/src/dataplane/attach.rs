//! Putting the program on an interface: into the place of the one that an agent before this one has left there, if there is
//! one, between two packets.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        Program, SchedClassifier, TcAttachType, Xdp, XdpMode, links::FdLink, tc::SchedClassifierLink, xdp::XdpLink,
    },
};
use log::info;

use super::{
    Error, clsact,
    hook::{self, Hook, Way},
    interface::{self, Interface},
    links::{self, Link, innermost},
    load,
    pins::{LinkKind, PinFolder},
    sign::{self, Sign},
    sys::Row,
    tcx,
};
use crate::model::AttachMode;

/// The program on an interface. When this is dropped it comes off, unless its link is pinned.
#[derive(Debug)]
pub struct Attachment {
    /// Where.
    pub interface: Interface,
    /// How.
    pub mode: AttachMode,
    /// Why not natively, where that was tried.
    pub native_refused: Option<String>,
    /// It took the place of one that an agent before this one had left.
    pub replaced: bool,
    link: Link,
    /// None: it could not be put up.
    sign: Option<Sign>,
}

impl Attachment {
    /// Whether our program still is on the interface, as far as can be told.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.sign.iter().for_each(Sign::send_away);
        self.link.is_in_place(self.interface.ifindex)
    }

    /// Whether it is to outlive the agent.
    #[must_use]
    pub fn has_pin(&self) -> bool {
        self.link.has_pin()
    }

    /// Pins again what holds the program, where somebody has removed the pin. Answers whether that was so.
    ///
    /// # Errors
    /// It cannot be pinned.
    pub fn pin_again(&self) -> io::Result<bool> {
        self.link.pin_again(self.interface.ifindex)
    }

    /// Takes the program off, also where its link is pinned.
    pub fn take_off(self) {
        self.link.take_off();
    }
}

/// What an agent before this one has left on an interface.
struct Left {
    mode: Way,
    held: Held,
}

/// What holds it there.
enum Held {
    Link(FdLink, PathBuf),
    Filter(clsact::Left),
}

impl Held {
    fn take_off(self) {
        match self {
            Self::Link(link, pin) => Link::adopted(link, &pin).take_off(),
            Self::Filter(left) => left.take_off(),
        }
    }
}

/// Takes the place of what is pinned there, or else attaches by the best way that is not refused, see [`hook::ways`].
///
/// # Errors
/// [`Error::Occupied`], [`Error::ForeignPin`], [`Error::Replace`], [`Error::Attach`], [`Error::Unpinned`].
pub fn attach(
    ebpf: &mut Ebpf,
    interface: Interface,
    hook: Hook,
    pins: Option<&PinFolder>,
) -> Result<Attachment, Error> {
    let ways = hook::ways(hook, interface.facts);
    let mut left = left(&interface, pins)?;
    let sign = sign::put_up(&sign::of_guard(interface.ifindex));
    let is_taken = sign.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    let was_guarded = !left.is_empty();
    let mut attachment = match left.iter().position(|one| ways.contains(&one.mode) && can_be_replaced(one, pins)) {
        Some(place) if may_be_better(ways, &left[place]) => match anew(ebpf, interface.clone(), &ways[..1], pins) {
            Ok(attachment) => attachment,
            Err(_) => replace(ebpf, interface, left.swap_remove(place))?,
        },
        Some(place) => replace(ebpf, interface, left.swap_remove(place))?,
        None => {
            if let Some(error) = occupied(&interface, ways, is_taken).filter(|_| left.is_empty()) {
                return Err(error);
            }
            anew(ebpf, interface, ways, pins)?
        }
    };
    attachment.sign = sign.ok().flatten();
    // Something was there before, and a start that fails must not leave nothing.
    attachment.replaced |= was_guarded;
    // At another hook, or not pinned. For this moment both have judged: rather twice than not at all.
    for other in left {
        info!("interface {}: what an agent before this one has left there gives way", attachment.interface.name);
        other.held.take_off();
    }
    Ok(attachment)
}

/// Whether XDP may be possible by now where it was not: then it is tried beside what is in the network stack.
fn may_be_better(ways: &[Way], left: &Left) -> bool {
    !left.mode.is_xdp() && ways.first() == Some(&Way::Native)
}

/// What is pinned is replaced by what is pinned; only filters can have been left without a pin.
fn can_be_replaced(left: &Left, pins: Option<&PinFolder>) -> bool {
    match &left.held {
        Held::Link(..) => true,
        Held::Filter(filter) => filter.is_pinned() == pins.is_some(),
    }
}

/// What an agent before this one has pinned for an interface, or could not pin, and is on it.
fn left(interface: &Interface, pins: Option<&PinFolder>) -> Result<Vec<Left>, Error> {
    let mut left = Vec::new();
    if let Some(pins) = pins {
        let pin = pins.link(LinkKind::Xdp, interface.ifindex);
        if let Some(link) = links::pinned(&pin, interface, interface.xdp_program.as_slice())? {
            let mode = if interface.xdp_is_generic { Way::Generic } else { Way::Native };
            left.push(Left { mode, held: Held::Link(link, pin) });
        }
        let pin = pins.link(LinkKind::Tcx, interface.ifindex);
        if let Some(link) = links::pinned(&pin, interface, &tcx::programs_on(interface, Row::Ingress))? {
            left.push(Left { mode: Way::Tcx, held: Held::Link(link, pin) });
        }
    }
    let pin = pins.map(|pins| pins.link(LinkKind::Clsact, interface.ifindex));
    let filters = clsact::left(interface, TcAttachType::Ingress, pin.as_deref())?;
    left.extend(filters.into_iter().map(|filter| Left { mode: Way::Clsact, held: Held::Filter(filter) }));
    Ok(left)
}

/// Puts the program into the place of the one that is there: the next packet meets it. The way stays.
fn replace(ebpf: &mut Ebpf, interface: Interface, left: Left) -> Result<Attachment, Error> {
    let Left { mode, held } = left;
    let program = program(ebpf, mode)?;
    let done = match held {
        Held::Filter(left) => clsact::replace(program, &interface, left).map(Link::Filter),
        Held::Link(link, pin) => {
            let done = if mode.is_xdp() { replace_xdp(program, link) } else { replace_tcx(program, link) };
            done.map(|link| Link::adopted(link, &pin))
        }
    };
    let link = done.map_err(|reason| Error::Replace { name: interface.name.clone(), reason })?;
    let native_refused = (mode == Way::Generic).then(|| "as it was before the restart".to_owned());
    Ok(Attachment { interface, mode: mode.mode(), native_refused, replaced: true, link, sign: None })
}

fn replace_xdp(program: &mut Program, link: FdLink) -> Result<FdLink, String> {
    let program: &mut Xdp = program.try_into().map_err(|e| innermost(&e))?;
    let link = XdpLink::try_from(link).map_err(|e| innermost(&e))?;
    let id = program.attach_to_link(link).map_err(|e| innermost(&e))?;
    let link = program.take_link(id).map_err(|e| innermost(&e))?;
    FdLink::try_from(link).map_err(|e| innermost(&e))
}

/// The same for a program that TCX runs.
pub(super) fn replace_tcx(program: &mut Program, link: FdLink) -> Result<FdLink, String> {
    let program: &mut SchedClassifier = tcx::loaded(program).map_err(|e| innermost(&e))?;
    let link = SchedClassifierLink::try_from(link).map_err(|e| innermost(&e))?;
    let id = program.attach_to_link(link).map_err(|e| innermost(&e))?;
    let link = program.take_link(id).map_err(|e| innermost(&e))?;
    FdLink::try_from(link).map_err(|e| innermost(&e))
}

/// Attaches where nothing of ours is, but for what is to go.
fn anew(
    ebpf: &mut Ebpf,
    interface: Interface,
    ways: &'static [Way],
    pins: Option<&PinFolder>,
) -> Result<Attachment, Error> {
    let mut refused = Vec::new();
    for mode in ways {
        let kind = match mode {
            Way::Native | Way::Generic => LinkKind::Xdp,
            Way::Tcx => LinkKind::Tcx,
            Way::Clsact => LinkKind::Clsact,
        };
        let pin = pins.map(|pins| pins.link(kind, interface.ifindex));
        match try_mode(ebpf, &interface, *mode, pin.as_deref()) {
            Ok(link) => {
                let native_refused = refused.into_iter().next().map(|(_, reason)| reason);
                return Ok(Attachment {
                    interface,
                    mode: mode.mode(),
                    native_refused,
                    replaced: false,
                    link,
                    sign: None,
                });
            }
            Err(reason) if reason.starts_with(links::CANNOT_PIN) => {
                return Err(Error::Unpinned { name: interface.name, reason });
            }
            Err(reason) => refused.push((*mode, reason)),
        }
    }
    Err(Error::Attach { name: interface.name, reasons: words(&refused) })
}

/// What is in the way: another XDP program, and a guard at whichever hook, since two that judge the same frames would
/// count, and charge, each of them twice. Behind XDP programs of others, the other hooks see what they pass.
fn occupied(interface: &Interface, ways: &[Way], is_taken: bool) -> Option<Error> {
    let of = |program: &str, hook, id| Error::Occupied {
        name: interface.name.clone(),
        hook,
        program: program.to_owned(),
        id,
    };
    let xdp = interface.xdp_program.map(|id| (interface::program_name(id), id));
    let by_xdp = xdp.as_ref().filter(|(name, _)| name == load::PROGRAM).map(|(name, id)| of(name, "XDP", *id));
    let by_tcx = || tcx::guard_on(&interface.name).map(|id| of(tcx::PROGRAM, "TCX", id));
    let by_clsact = || clsact::guard_on(interface.ifindex).map(|id| of(tcx::PROGRAM, clsact::NAME, id));
    let by_whatever = || is_taken.then(|| Error::Guarded { name: interface.name.clone() });
    let guard = by_xdp.or_else(by_tcx).or_else(by_clsact).or_else(by_whatever);
    let other = xdp.filter(|_| ways.iter().any(|way| way.is_xdp()));
    guard.or_else(|| other.map(|(name, id)| of(&name, "XDP", id)))
}

/// Each way with why it was refused.
fn words(refused: &[(Way, String)]) -> String {
    let way = |mode: &Way| match mode {
        Way::Native => "natively",
        Way::Generic => "in generic mode",
        Way::Tcx => "by TCX",
        Way::Clsact => "as a filter of tc (clsact)",
    };
    let each: Vec<_> = refused.iter().map(|(mode, reason)| format!("{} ({reason})", way(mode))).collect();
    each.join(" nor ")
}

fn program(ebpf: &mut Ebpf, mode: Way) -> Result<&mut Program, Error> {
    let name = if mode.is_xdp() { load::PROGRAM } else { tcx::PROGRAM };
    ebpf.program_mut(name).ok_or(Error::NoProgram)
}

fn try_mode(ebpf: &mut Ebpf, interface: &Interface, mode: Way, pin: Option<&Path>) -> Result<Link, String> {
    let program = program(ebpf, mode).map_err(|error| error.to_string())?;
    let by_xdp = |program: &mut _, mode| try_xdp(program, interface.ifindex, mode);
    let link = match mode {
        Way::Clsact => {
            return clsact::attach_first(program, interface, TcAttachType::Ingress, pin).map(Link::Filter);
        }
        Way::Tcx => tcx::attach_first(program, interface, TcAttachType::Ingress),
        Way::Native => by_xdp(program, XdpMode::Driver),
        Way::Generic => by_xdp(program, XdpMode::Skb),
    };
    Link::new(link?, pin)
}

/// Attaches through a BPF link, or says why not.
///
/// aya falls back to netlink where the kernel answers EINVAL to a link. A program attached that way cannot be pinned, nor
/// replaced between two packets, and anybody may take it off, so it is taken off again and counts as refused.
fn try_xdp(program: &mut Program, ifindex: u32, mode: XdpMode) -> Result<FdLink, String> {
    let program: &mut Xdp = program.try_into().map_err(|e| innermost(&e))?;
    let id = program.attach_to_if_index(ifindex, mode).map_err(|e| innermost(&e))?;
    let link = program.take_link(id).map_err(|e| innermost(&e))?;
    FdLink::try_from(link).map_err(|_| "the kernel offers no BPF link in this mode".to_owned())
}
