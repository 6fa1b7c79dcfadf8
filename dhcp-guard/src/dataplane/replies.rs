//! Seeing servers' replies leave through the guarded interfaces: a second program, on the way out, that only counts.
//!
//! It is attached by TCX, where programs stand in a row and each says who decides next, and through a BPF link, like the one
//! that judges; or, where the kernel has no TCX (before 6.6), as a filter of tc. Where neither can be, nobody is told "no
//! replies": nobody is told anything. What another program sends by XDP_REDIRECT, or what a driver sends without the kernel,
//! is not seen.

use std::{
    io,
    path::Path,
    sync::{Arc, Weak, atomic::Ordering},
};

use aya::programs::{Program, TcAttachType};
use dhcp_guard_common::{layout::PortCounters, verdict::MessageType};

use super::{
    DataPlane, Error, attach, clsact,
    hook::Hook,
    interface::Interface,
    links::{self, Link},
    pins::LinkKind,
    sys::Row,
    tcx,
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
    /// Whether our program still is on the interface's way out, as far as can be told.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.link.is_in_place(self.ifindex)
    }

    /// Pins again what holds the program, where somebody has removed the pin. Answers whether that was so.
    ///
    /// # Errors
    /// It cannot be pinned.
    pub fn pin_again(&self) -> io::Result<bool> {
        self.link.pin_again(self.ifindex)
    }

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
    pub fn watch_replies(&mut self, interface: &Interface, hook: Hook) -> Result<ReplyWatch, Error> {
        let refused = |reason| Error::Replies { name: interface.name.clone(), reason };
        let pins = [LinkKind::Replies, LinkKind::ClsactReplies].map(|kind| self.maps.pin(kind, interface));
        let program = self.ebpf.program_mut(PROGRAM).ok_or(Error::NoProgram)?;
        let by_filter = hook == Hook::Clsact || !interface.facts.has_tcx;
        let pins = pins.each_ref().map(Option::as_deref);
        let link = Arc::new(watch(program, interface, by_filter, pins).map_err(refused)?);
        self.watched.add(interface.ifindex, &link);
        Ok(ReplyWatch { ifindex: interface.ifindex, link })
    }

    /// Servers' messages that left, by slot.
    pub(super) fn read_replies(&self) -> Vec<Option<u64>> {
        let mut replies = vec![None; self.slots.last() as usize + 1];
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

/// Takes the place of the program that was left there, or attaches anew; what was left at the other hook comes off then.
fn watch(
    program: &mut Program,
    interface: &Interface,
    by_filter: bool,
    [pin, filters_pin]: [Option<&Path>; 2],
) -> Result<Link, String> {
    const OUT: TcAttachType = TcAttachType::Egress;
    let words = |error: Error| error.to_string();
    let on_it = tcx::programs_on(interface, Row::Egress);
    let by_tcx = pin.map_or(Ok(None), |pin| links::pinned(pin, interface, &on_it)).map_err(words)?;
    let (mut filters, others): (Vec<_>, Vec<_>) = clsact::left(interface, OUT, filters_pin)
        .map_err(words)?
        .into_iter()
        .partition(|filter| by_filter && filter.is_pinned() == filters_pin.is_some());
    let link = match (by_filter, filters.pop(), by_tcx.zip(pin)) {
        (true, left, by_tcx) => {
            let filter = match left {
                Some(left) => clsact::replace(program, interface, left)?,
                None => clsact::attach_first(program, interface, OUT, filters_pin)?,
            };
            if let Some((link, pin)) = by_tcx {
                Link::adopted(link, pin).take_off();
            }
            Link::Filter(filter)
        }
        (false, _, Some((link, pin))) => Link::adopted(attach::replace_tcx(program, link)?, pin),
        (false, _, None) => Link::new(tcx::attach_first(program, interface, OUT)?, pin)?,
    };
    filters.into_iter().chain(others).for_each(clsact::Left::take_off);
    Ok(link)
}
