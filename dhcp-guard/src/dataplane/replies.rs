//! Seeing servers' replies leave through the guarded interfaces: a second program, on the way out, that only counts.
//!
//! It is attached by TCX (kernel 6.6), where programs stand in a row and each says who decides next, and through a BPF link,
//! like the one that judges. Where the kernel has no TCX, nobody is told "no replies": nobody
//! is told anything. What another program sends by XDP_REDIRECT, or what a driver sends without the kernel, is not seen.

use std::{
    path::Path,
    sync::{Arc, Weak, atomic::Ordering},
};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::FdLink,
    tc::{SchedClassifierLink, TcAttachOptions},
};
use dhcp_guard_common::{layout::PortCounters, verdict::MessageType};

use super::{
    DataPlane, Error,
    interface::{self, Interface},
    links::{self, Link, innermost},
    pins::LinkKind,
};

/// Name of the program, in the object and in the kernel.
pub const PROGRAM: &str = "dhcp_replies";

/// The program on an interface's way out. When this is dropped it comes off, unless its link is pinned.
#[derive(Debug)]
pub struct ReplyWatch {
    /// Kernel index of the interface.
    pub ifindex: u32,
    link: Arc<Link>,
}

impl ReplyWatch {
    /// Takes the program off, also where its link is pinned.
    pub fn take_off(self) {
        if let Some(link) = Arc::into_inner(self.link) {
            link.take_off();
        }
    }
}

/// Interfaces that are watched, by index, for as long as somebody keeps the [`ReplyWatch`].
#[derive(Debug, Default)]
pub(super) struct Watched(Vec<(u32, Weak<Link>)>);

impl Watched {
    fn is_seen(&self, ifindex: u32) -> bool {
        self.0.iter().any(|(index, link)| *index == ifindex && link.strong_count() > 0)
    }

    fn add(&mut self, ifindex: u32, link: &Arc<Link>) {
        self.0.retain(|(_, link)| link.strong_count() > 0);
        self.0.push((ifindex, Arc::downgrade(link)));
    }
}

impl DataPlane {
    /// Counts the servers' messages that leave through an interface, from now on: see
    /// [`Snapshot::replies`](super::Snapshot::replies). Frames pass as before, and so do other programs' chances.
    ///
    /// # Errors
    /// [`Error::Replies`]: they cannot be seen, and the guard does without.
    pub fn watch_replies(&mut self, interface: &Interface) -> Result<ReplyWatch, Error> {
        let refused = |reason| Error::Replies { name: interface.name.clone(), reason };
        // aya wants the name, which may be another interface's by now.
        if interface::index_of(&interface.name) != Some(interface.ifindex) {
            return Err(refused("it is not there any more".to_owned()));
        }
        let pin = self.maps.pin(LinkKind::Replies, interface);
        let program = self.ebpf.program_mut(PROGRAM).ok_or(Error::NoProgram)?;
        let program: &mut SchedClassifier = program.try_into().map_err(|error| refused(innermost(&error)))?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(innermost(&error)))?;
        }
        let link = Arc::new(attach(program, interface, pin.as_deref()).map_err(refused)?);
        self.watched.add(interface.ifindex, &link);
        Ok(ReplyWatch { ifindex: interface.ifindex, link })
    }

    /// Servers' messages that left, by slot.
    pub(super) fn read_replies(&self) -> Vec<Option<u64>> {
        let mut replies = vec![None; self.slots.highest() as usize + 1];
        for (_, slot) in self.slots.iter().filter(|(port, _)| self.watched.is_seen(port.ifindex)) {
            let word = self.replies.words(slot as usize).first();
            replies[slot as usize] = word.map(|word| word.load(Ordering::Relaxed));
        }
        replies
    }

    /// Servers' messages that came in by trusted ports.
    pub(super) fn server_messages(&self, ports: &[PortCounters]) -> u64 {
        let of_server = |port: &PortCounters| {
            let types = MessageType::ALL.iter().filter(|message| message.is_of_server());
            types.map(|message| port.messages[message.index()]).sum::<u64>()
        };
        self.trusted.iter().filter_map(|slot| ports.get(*slot as usize)).map(of_server).sum()
    }
}

/// Takes the place of the program that is pinned there; else attaches in front of all others: one that decides about a frame
/// ends the row.
///
/// Not with aya's `attach`, which takes a netlink filter on kernels without TCX, and anybody may take that off.
fn attach(program: &mut SchedClassifier, interface: &Interface, pin: Option<&Path>) -> Result<Link, String> {
    const EGRESS: TcAttachType = TcAttachType::Egress;
    if let Some(path) = pin {
        let on_it = SchedClassifier::query_tcx(&interface.name, EGRESS).map_err(|error| innermost(&error))?.1;
        let on_it: Vec<u32> = on_it.iter().map(|program| program.id()).collect();
        if let Some(link) = links::pinned(path, interface, &on_it).map_err(|error| error.to_string())? {
            return replace(program, link, path);
        }
    }
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&interface.name, EGRESS, first).map_err(|error| innermost(&error))?;
    let link = program.take_link(id).map_err(|error| innermost(&error))?;
    let link = FdLink::try_from(link).map_err(|_| "the kernel offers no BPF link".to_owned())?;
    Link::new(link, pin)
}

fn replace(program: &mut SchedClassifier, link: FdLink, pin: &Path) -> Result<Link, String> {
    let link = SchedClassifierLink::try_from(link).map_err(|error| innermost(&error))?;
    let id = program.attach_to_link(link).map_err(|error| innermost(&error))?;
    let link = program.take_link(id).map_err(|error| innermost(&error))?;
    let link = FdLink::try_from(link).map_err(|error| innermost(&error))?;
    Ok(Link::adopted(link, pin))
}
