//! Seeing servers' replies leave through the guarded interfaces: a second program, on the way out, that only counts.
//!
//! It is attached by TCX (kernel 6.6), where programs stand in a row and each says who decides next, and through a BPF link,
//! so that the agent's end takes it off, however it comes. Where the kernel has no TCX, nobody is told "no replies": nobody
//! is told anything. What another program sends by XDP_REDIRECT, or what a driver sends without the kernel, is not seen.

use std::sync::{Arc, Weak, atomic::Ordering};

use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, links::FdLink, tc::TcAttachOptions};
use dhcp_guard_common::{layout::PortCounters, verdict::MessageType};

use super::{
    DataPlane, Error,
    attach::reason,
    interface::{self, Interface},
};

/// Name of the program, in the object and in the kernel.
pub const PROGRAM: &str = "dhcp_replies";

/// The program on an interface's way out; it comes off when this is dropped.
#[derive(Debug)]
pub struct ReplyWatch {
    /// Kernel index of the interface.
    pub ifindex: u32,
    pub(super) link: Arc<FdLink>,
}

/// Interfaces that are watched, by index, for as long as somebody keeps the [`ReplyWatch`].
#[derive(Debug, Default)]
pub(super) struct Watched(Vec<(u32, Weak<FdLink>)>);

impl Watched {
    fn is_seen(&self, ifindex: u32) -> bool {
        self.0.iter().any(|(index, link)| *index == ifindex && link.strong_count() > 0)
    }

    fn add(&mut self, ifindex: u32, link: &Arc<FdLink>) {
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
        let program = self.ebpf.program_mut(PROGRAM).ok_or(Error::NoProgram)?;
        let link = attach(program, &interface.name).map_err(|error| refused(reason(&error)))?;
        let link = FdLink::try_from(link).map_err(|_| refused("the kernel offers no BPF link".to_owned()))?;
        let link = Arc::new(link);
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

/// Attaches the program in front of all others: one that decides about a frame ends the row.
///
/// Not with aya's `attach`, which takes a netlink filter on kernels without TCX, and that outlives the agent.
fn attach(
    program: &mut aya::programs::Program,
    interface: &str,
) -> Result<aya::programs::tc::SchedClassifierLink, ProgramError> {
    let program: &mut SchedClassifier = program.try_into()?;
    if program.fd().is_err() {
        program.load()?;
    }
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, TcAttachType::Egress, first)?;
    program.take_link(id)
}
