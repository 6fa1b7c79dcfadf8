//! What holds a program on an interface: a BPF link, or else a filter of tc, pinned where there is a folder for it. Then the
//! program stays when the agent goes, and the next agent puts its own into the place of it, between two packets.

use std::{
    fs,
    hash::{Hash as _, Hasher},
    io,
    os::fd::RawFd,
    path::{Path, PathBuf},
};

use aya::programs::links::{FdLink, Link as _, PinnedLink};
use log::warn;

use super::{Error, clsact::Filter, interface::Interface, pins, sys};

/// Begins the reason why something could be put on an interface, and not pinned: then no other way is better.
pub(super) const CANNOT_PIN: &str = "cannot pin its";

/// What it holds comes off when it is dropped, unless it is pinned.
#[derive(Debug)]
pub(super) enum Link {
    /// A BPF link.
    Bpf { fd: FdLink, pin: Option<PathBuf> },
    /// A filter of tc.
    Filter(Filter),
}

impl Link {
    /// A new link, to be pinned where there is a place for it.
    ///
    /// # Errors
    /// It cannot be pinned. Then it holds nothing any more.
    pub(super) fn new(link: FdLink, pin: Option<&Path>) -> Result<Self, String> {
        let Some(path) = pin else { return Ok(Self::Bpf { fd: link, pin: None }) };
        let pinned = link.pin(path).map_err(|error| format!("{CANNOT_PIN} link: {}", innermost(&error)))?;
        Ok(Self::adopted(pinned.into(), path))
    }

    /// A link that is pinned already.
    pub(super) fn adopted(link: FdLink, pin: &Path) -> Self {
        Self::Bpf { fd: link, pin: Some(pin.to_owned()) }
    }

    /// Whether it is to outlive the agent.
    pub(super) fn has_pin(&self) -> bool {
        match self {
            Self::Bpf { pin, .. } => pin.is_some(),
            Self::Filter(filter) => filter.pinned().1.is_some(),
        }
    }

    /// Whether it still holds a program on this interface. Whoever may do so can take one off (`bpftool link detach`), and the
    /// kernel tells nobody: so it has to be asked. One that does not answer has not said no.
    pub(super) fn is_in_place(&self, ifindex: u32) -> bool {
        match self {
            Self::Bpf { fd, .. } => sys::facts_of(descriptor(fd)).map_or(true, |facts| facts.ifindex == ifindex),
            Self::Filter(filter) => filter.is_in_place(ifindex),
        }
    }

    /// Pins it again where its pin is gone; `ifindex`: where it is to be. Answers whether that was so. What others took off is
    /// not pinned any more.
    ///
    /// # Errors
    /// It cannot be: then it holds until the agent ends, and no longer.
    pub(super) fn pin_again(&self, ifindex: u32) -> io::Result<bool> {
        let (object, pin) = match self {
            Self::Bpf { fd, pin } => (Some(descriptor(fd)), pin.as_deref()),
            Self::Filter(filter) => filter.pinned(),
        };
        let (Some(object), Some(pin)) = (object, pin) else { return Ok(false) };
        if !pins::is_missing(pin) || !self.is_in_place(ifindex) {
            return Ok(false);
        }
        sys::pin(object, pin).map(|()| true)
    }

    /// Takes off what it holds.
    pub(super) fn take_off(self) {
        match self {
            Self::Bpf { fd, pin } => {
                // By what is open already: whoever gives up for want of descriptors has none to open the pin.
                if let Some(path) = pin
                    && let Err(error) = sys::detach(descriptor(&fd)).and_then(|()| fs::remove_file(&path))
                {
                    warn!("cannot take off what the pinned link {} holds: {error}", path.display());
                }
            }
            Self::Filter(filter) => filter.take_off(),
        }
    }
}

/// The link that an agent before this one has pinned for an interface, and that still holds the program which is on it:
/// with `on_it`, the kernel ids of those that are. What holds nothing any more is removed.
///
/// # Errors
/// [`Error::ForeignPin`]: there is something else, which is left alone.
pub(super) fn pinned(pin: &Path, interface: &Interface, on_it: &[u32]) -> Result<Option<FdLink>, Error> {
    let foreign = |reason: String| Error::ForeignPin { path: pin.to_owned(), name: interface.name.clone(), reason };
    let facts = match sys::link_facts(pin) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(foreign(pins::OF_ANOTHER_USER.to_owned()));
        }
        Err(error) => return Err(foreign(format!("the kernel does not know it as a link: {error}"))),
    };
    if facts.ifindex == 0 {
        fs::remove_file(pin).map_err(|error| foreign(format!("it holds nothing, but cannot be removed: {error}")))?;
        return Ok(None);
    }
    if facts.ifindex != interface.ifindex || !on_it.contains(&facts.program) {
        return Err(foreign("it holds a program somewhere else, in another network namespace perhaps".to_owned()));
    }
    let link = PinnedLink::from_pin(pin).map_err(|error| foreign(innermost(&error)))?;
    Ok(Some(link.into()))
}

/// The link's descriptor. aya tells nobody but whoever hashes its number.
fn descriptor(link: &FdLink) -> RawFd {
    #[derive(Default)]
    struct Number(RawFd);
    impl Hasher for Number {
        fn write(&mut self, bytes: &[u8]) {
            self.0 = bytes.try_into().map_or(-1, RawFd::from_ne_bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut number = Number(-1);
    link.id().hash(&mut number);
    number.0
}

/// The innermost cause: "Operation not supported" says more than "`bpf_link_create` failed".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
