//! The guard as a filter of tc (clsact), where TCX is not: the same programs, at the same place, in front of whatever filters
//! others have there. What they do not decide, those do.
//!
//! No link holds a filter: it is the interface's, and outlives whoever made it. So it has a handle of ours. By that it is
//! found, and its program is replaced in place, which the kernel does between two packets (`cls_bpf_change`); whatever
//! else may be at that handle is left alone. What is pinned is the *program*: a filter is this folder's if it runs one that is
//! pinned there. The pin of the program that is to come has another name until the filter runs it, so that a start that is
//! broken off anywhere leaves the filter with a pin.
//!
//! What filters are attached to, the `clsact` queueing discipline, is made where it is missing and stays when we go: others
//! may have put filters of theirs there, which would go with it.

use std::{
    fmt, fs, io,
    os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use aya::programs::{
    Link as _, Program, ProgramError, ProgramInfo, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use log::{info, warn};

use super::{
    Error,
    filters::{self, Entry},
    interface::{self, Interface},
    links::{CANNOT_PIN, innermost},
    pins, received,
    sign::{self, Sign},
    tcx,
};

/// What the hook is called.
pub(super) const NAME: &str = "clsact";
/// The handle of filters that stay when the agent goes. Those that the kernel chooses begin at 1.
const STAYS: TcHandle = TcHandle::new(0x6467, 1);
/// And of those that go with it, because there is no place for pins. One that is there without its agent is what a killed
/// one has left.
const GOES: TcHandle = TcHandle::new(0x6467, 2);

/// Where a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    ifindex: u32,
    way: TcAttachType,
    priority: u16,
    handle: TcHandle,
}

impl Place {
    fn of(ifindex: u32, way: TcAttachType, entry: &Entry) -> Self {
        Self { ifindex, way, priority: entry.priority, handle: entry.handle.into() }
    }

    /// Whether the filter there runs this very program.
    fn runs(self, program: u32) -> io::Result<bool> {
        let entry = filters::one(self.ifindex, self.way, self.priority, self.handle.into())?;
        Ok(entry.is_some_and(|entry| entry.program == Some(program)))
    }

    /// Takes a program off, if it still is there.
    fn free_of(self, program: u32) -> io::Result<()> {
        if !self.runs(program)? {
            return Ok(());
        }
        // Where the interface is gone, the filter is, too.
        let Some(name) = interface::name_of(self.ifindex)? else { return Ok(()) };
        let link = SchedClassifierLink::attached(&name, self.way, self.priority, self.handle, None)?;
        link.detach().map_err(|error| io::Error::other(innermost(&error)))
    }
}

/// A filter of ours. It goes when this is dropped, unless its program is pinned.
#[derive(Debug)]
pub(super) struct Filter {
    place: Place,
    program: u32,
    /// The program itself, to be pinned again.
    object: Option<OwnedFd>,
    pin: Option<PathBuf>,
    /// Says to other agents that this one lives.
    sign: Option<Sign>,
}

impl Filter {
    /// Whether it still is there. Anybody who may can delete it (`tc filter del`), and tells nobody: so the kernel is asked. If
    /// that does not answer, it has not said no.
    pub(super) fn is_in_place(&self, ifindex: u32) -> bool {
        self.sign.iter().for_each(Sign::send_away);
        self.place.ifindex == ifindex && self.place.runs(self.program).unwrap_or(true)
    }

    /// What is to be pinned, and where.
    pub(super) fn pinned(&self) -> (Option<RawFd>, Option<&Path>) {
        (self.object.as_ref().map(AsRawFd::as_raw_fd), self.pin.as_deref())
    }

    /// Takes it off.
    pub(super) fn take_off(self) {
        if let Err(error) = off(self.place, self.program, self.pin.as_deref()) {
            warn!("cannot take the filter of tc off interface {}: {error}", self.place.ifindex);
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // One that stays without a pin is nobody's: the next agent could not tell whose it is.
        if self.pin.as_deref().is_none_or(pins::is_missing)
            && let Err(error) = self.place.free_of(self.program)
        {
            warn!("cannot take the filter of tc off interface {}: {error}", self.place.ifindex);
        }
    }
}

fn off(place: Place, program: u32, pin: Option<&Path>) -> io::Result<()> {
    place.free_of(program)?;
    pin.map_or(Ok(()), remove_if_there)
}

/// What an agent before this one has left on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    place: Place,
    program: u32,
    pin: Option<PathBuf>,
}

impl Left {
    /// Whether it was to stay.
    pub(super) fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    /// Takes it off.
    pub(super) fn take_off(self) {
        if let Err(error) = off(self.place, self.program, self.pin.as_deref()) {
            warn!("cannot take off the filter of tc that an agent before this one has left: {error}");
        }
    }
}

/// The filters that an agent before this one has left on a way of an interface: of this folder, with the pin that there is or
/// would be; and of an agent that was killed and could pin nothing. Pins that hold nothing any more are removed.
///
/// # Errors
/// [`Error::ForeignPin`]: there is something else, which is left alone. [`Error::Netlink`].
pub(super) fn left(interface: &Interface, way: TcAttachType, pin: Option<&Path>) -> Result<Vec<Left>, Error> {
    let entries = filters::all(interface.ifindex, way)
        .map_err(|error| Error::Netlink { name: interface.name.clone(), reason: error.to_string() })?;
    let place = |entry: &Entry| Place::of(interface.ifindex, way, entry);
    let is_forgotten = |entry: &&Entry| {
        entry.handle == u32::from(GOES)
            && entry.name == name_on(way)
            && entry.program.is_some_and(|program| !sign::is_up(&sign_of_life(place(entry), program)))
    };
    let forgotten = entries.iter().filter(is_forgotten).filter_map(|entry| Some((place(entry), entry.program?)));
    let mut left: Vec<Left> =
        forgotten.map(|(place, program)| Left { place, program, pin: None }).inspect(tell_of_forgotten).collect();
    for path in pin.into_iter().flat_map(|pin| [pin.to_owned(), pins::of_next(pin)]) {
        let foreign = |reason: String| Error::ForeignPin { path: path.clone(), name: interface.name.clone(), reason };
        let program = match program_in(&path, way) {
            Ok(program) => program,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(foreign(pins::OF_ANOTHER_USER.to_owned()));
            }
            Err(error) => return Err(foreign(error.to_string())),
        };
        match entries.iter().find(|entry| is_of(entry, program)) {
            Some(entry) => {
                // The next one has become the present one when the filter began to run it.
                let pin = pin.map_or_else(|| Ok(None), |pin| fs::rename(&path, pin).map(|()| Some(pin.to_owned())));
                let pin = pin.map_err(|error| foreign(format!("it cannot be renamed: {error}")))?;
                left.push(Left { place: place(entry), program, pin });
            }
            None => remove_if_there(&path)
                .map_err(|error| foreign(format!("it holds nothing, but cannot be removed: {error}")))?,
        }
    }
    Ok(left)
}

fn tell_of_forgotten(left: &Left) {
    info!(
        "program {} is on interface {} without its agent, which must have been killed",
        left.program, left.place.ifindex
    );
}

/// Name of our program on this way: filters have it as a label, which everybody may read.
fn name_on(way: TcAttachType) -> &'static str {
    if way == TcAttachType::Egress { super::replies::PROGRAM } else { tcx::PROGRAM }
}

fn is_of(entry: &Entry, program: u32) -> bool {
    entry.handle == u32::from(STAYS) && entry.program == Some(program)
}

/// Kernel id of the program that is pinned for a way.
///
/// # Errors
/// The kernel's; `NotFound` if there is no such pin, `InvalidInput` if it is none of our programs.
fn program_in(pin: &Path, way: TcAttachType) -> io::Result<u32> {
    let info = ProgramInfo::from_pin(pin).map_err(|error| match error {
        ProgramError::SyscallError(error) => error.io_error,
        other => io::Error::other(innermost(&other)),
    })?;
    if info.name_as_str() != Some(name_on(way)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is none of dhcp-guard's programs"));
    }
    Ok(info.id())
}

/// What a pin of a program holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pinned {
    /// Kernel id.
    pub(super) program: u32,
    place: Option<Place>,
}

impl Pinned {
    /// # Errors
    /// See [`program_in`]; the kernel does not say what is on the interface.
    pub(super) fn read(pin: &Path, ifindex: u32, way: TcAttachType) -> io::Result<Self> {
        let program = program_in(pin, way)?;
        let entries = filters::all(ifindex, way)?;
        let entry = entries.iter().find(|entry| is_of(entry, program));
        Ok(Self { program, place: entry.map(|entry| Place::of(ifindex, way, entry)) })
    }

    /// Whether a filter of the interface runs it.
    pub(super) fn is_on(self) -> bool {
        self.place.is_some()
    }

    /// Takes it off.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn take_off(self) -> io::Result<()> {
        self.place.map_or(Ok(()), |place| place.free_of(self.program))
    }
}

/// Kernel id of a guard, of whatever agent, on an interface's way in.
pub(super) fn guard_on(ifindex: u32) -> Option<u32> {
    let entries = filters::all(ifindex, TcAttachType::Ingress).ok()?;
    entries.into_iter().find(|entry| entry.name == tcx::PROGRAM).and_then(|entry| entry.program)
}

/// A filter of a guard, of whatever agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarding {
    interface: String,
    place: Place,
}

impl fmt::Display for Guarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, Place { priority, handle, .. }) = (&self.interface, self.place);
        let (what, way) = match self.place.way {
            TcAttachType::Egress => ("counts servers' replies", "egress"),
            _ => ("guards", "ingress"),
        };
        write!(
            f,
            "a filter of tc still {what} on {name}: if no other agent or pin folder has it, `tc filter del dev {name} {way} \
             protocol all pref {priority} handle {:#x} bpf` takes it off",
            u32::from(handle)
        )
    }
}

/// Filters of guards on all interfaces, but for those whose agent gives a sign of life.
#[must_use]
pub fn left_over() -> Vec<Guarding> {
    let mut found = Vec::new();
    let mut names: Vec<String> = received::frames().unwrap_or_default().into_keys().collect();
    names.sort();
    for name in names {
        let Some(ifindex) =
            interface::index_of(&name).ok().flatten().filter(|ifindex| !sign::is_up(&sign::of_guard(*ifindex)))
        else {
            continue;
        };
        for way in [TcAttachType::Ingress, TcAttachType::Egress] {
            let entries = filters::all(ifindex, way).unwrap_or_default();
            let ours = entries.iter().filter(|entry| {
                [u32::from(STAYS), u32::from(GOES)].contains(&entry.handle) && entry.name == name_on(way)
            });
            found.extend(ours.map(|entry| Guarding { interface: name.clone(), place: Place::of(ifindex, way, entry) }));
        }
    }
    found
}

/// Programs that filters run on a way of an interface, in their order, by kernel id and name. Filters without a program have id
/// 0, and what sort of filter they are as their name. None: the kernel does not say.
#[must_use]
pub fn programs_on(ifindex: u32, way: TcAttachType) -> Option<Vec<(u32, String)>> {
    let entries = filters::all(ifindex, way).ok()?.into_iter().filter(|entry| entry.handle != 0);
    Some(entries.map(|it| (it.program.unwrap_or(0), if it.program.is_some() { it.name } else { it.kind })).collect())
}

/// Puts a program in front of all filters, or as near to that as those of other kinds, and whatever has our handle, let it; or
/// says why not.
pub(super) fn attach_first(
    program: &mut Program,
    interface: &Interface,
    way: TcAttachType,
    pin: Option<&Path>,
) -> Result<Filter, String> {
    make_room(interface, way)?;
    let entries = filters::all(interface.ifindex, way).map_err(|error| error.to_string())?;
    let handle = if pin.is_some() { STAYS } else { GOES };
    let is_in_the_way = |entry: &Entry| !entry.shares_its_priority() || entry.handle == u32::from(handle);
    let is_free = |priority: &u16| !entries.iter().any(|it| it.priority == *priority && is_in_the_way(it));
    let priority = (1..u16::MAX).find(is_free).ok_or("other filters have all priorities")?;
    let place = Place { ifindex: interface.ifindex, way, priority, handle };
    put(program, interface, place, pin, |program| {
        let options = TcAttachOptions::Netlink(NlOptions { priority, handle, classid: None });
        program.attach_with_options(&interface.name, way, options)
    })
}

/// Puts a program into the place of one that was left: the next packet meets it.
pub(super) fn replace(program: &mut Program, interface: &Interface, left: Left) -> Result<Filter, String> {
    let Left { place, program: before, pin } = left;
    put(program, interface, place, pin.as_deref(), |program| {
        // There is no "only if it still is that one"; but between two calls nobody takes a handle of ours.
        if !place.runs(before)? {
            return Err(io::Error::other("somebody has taken it off").into());
        }
        let link = SchedClassifierLink::attached(&interface.name, place.way, place.priority, place.handle, None)?;
        program.attach_to_link(link)
    })
}

/// Pins a program and puts it where it is to be, in this order: there is no filter of ours without a pin that tells whose it is.
fn put(
    program: &mut Program,
    interface: &Interface,
    place: Place,
    pin: Option<&Path>,
    attach: impl FnOnce(&mut SchedClassifier) -> Result<SchedClassifierLinkId, ProgramError>,
) -> Result<Filter, String> {
    // aya wants the name, which may be another interface's by now.
    interface.must_be_here()?;
    let program = tcx::loaded(program).map_err(|error| innermost(&error))?;
    let id = program.info().map_err(|error| innermost(&error))?.id();
    let next = pin.map(pins::of_next);
    if let Some(next) = &next {
        let pinned = remove_if_there(next).and_then(|()| program.pin(next).map_err(io::Error::other));
        pinned.map_err(|error| format!("{CANNOT_PIN} program: {}", innermost(&error)))?;
    }
    // Without it, another agent would take us for dead.
    let sign =
        if pin.is_none() { sign::put_up(&sign_of_life(place, id)).map_err(|error| error.to_string())? } else { None };
    match attach(program).and_then(|link| program.take_link(link)) {
        // Dropping it would take the program off, whoever's is there then.
        Ok(link) => std::mem::forget(link),
        // The kernel may have done it, and its answer been lost.
        Err(_) if place.runs(id).unwrap_or(true) => {}
        Err(error) => {
            let _ = next.map(fs::remove_file);
            return Err(innermost(&error));
        }
    }
    let pin = pin.zip(next).map(|(pin, next)| match fs::rename(&next, pin) {
        Ok(()) => pin.to_owned(),
        Err(error) => {
            warn!("the pin {} cannot be renamed, and stays: {error}", next.display());
            next
        }
    });
    let object = program.fd().ok().and_then(|fd| fd.as_fd().try_clone_to_owned().ok());
    Ok(Filter { place, program: id, object, pin, sign })
}

/// Makes what filters are attached to, where there is nothing.
fn make_room(interface: &Interface, way: TcAttachType) -> Result<(), String> {
    match filters::queueing(interface.ifindex).map_err(|error| error.to_string())?.as_deref() {
        None => qdisc_add_clsact(&interface.name).map_err(|error| innermost(&error)),
        Some("clsact") => Ok(()),
        Some("ingress") if way == TcAttachType::Ingress => Ok(()),
        // What one asks `ingress` to put on the way out, it puts on the way in.
        Some(other) => Err(format!(
            "the queueing discipline {other} is in the place of clsact on {}, and whoever has put it there has filters on it",
            interface.name
        )),
    }
}

/// The sign of a living agent with a filter that is to go with it.
fn sign_of_life(place: Place, program: u32) -> String {
    let way = if place.way == TcAttachType::Egress { "out" } else { "in" };
    format!("dhcp-guard/filter-{}-{way}-{program}", place.ifindex)
}

fn remove_if_there(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
