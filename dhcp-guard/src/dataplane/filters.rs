//! The filters of tc on an interface's way in or out, as netlink tells of them: aya puts filters there and takes them off, but
//! does not say which program one runs.

use std::io;

use aya::programs::TcAttachType;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_ECHO, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NlasIterator, Parseable as _,
    parse_string, parse_u32,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage},
};

/// include/uapi/linux/rtnetlink.h
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
/// Length of `struct tcmsg`.
const HEADER: usize = 20;
/// include/uapi/linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// What filters see: all protocols (include/uapi/linux/if_ether.h).
pub(super) const ETH_P_ALL: u16 = 3;

/// A filter; with handle 0 what all of a priority have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Those with lower numbers come first.
    pub(super) priority: u16,
    pub(super) protocol: u16,
    pub(super) handle: u32,
    /// What sort of filter: `bpf`, `flower`, …
    pub(super) kind: String,
    /// Kernel id of the program that it runs.
    pub(super) program: Option<u32>,
    /// What whoever made it called that program.
    pub(super) name: String,
}

impl Entry {
    /// Whether filters with programs for all protocols can have its priority, too.
    pub(super) fn shares_its_priority(&self) -> bool {
        self.kind == TcFilterBpf::KIND && self.protocol == ETH_P_ALL
    }
}

/// All filters on a way, in the order in which they see frames.
///
/// # Errors
/// The kernel's.
pub(super) fn all(ifindex: u32, way: TcAttachType) -> io::Result<Vec<Entry>> {
    let message = TcMessage::from_parts(header(ifindex, parent(way))?, Vec::new());
    let answers = nothing_is_none(ask(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_REQUEST | NLM_F_DUMP))?;
    Ok(answers.iter().filter_map(|answer| entry(answer)).collect())
}

/// The filter for all protocols with this priority and handle, if there is one.
///
/// # Errors
/// The kernel's, where it does not answer.
pub(super) fn one(ifindex: u32, way: TcAttachType, priority: u16, handle: u32) -> io::Result<Option<Entry>> {
    let info = u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be());
    let header = TcHeader { handle: handle.into(), info, ..header(ifindex, parent(way))? };
    let message = RouteNetlinkMessage::GetTrafficFilter(TcMessage::from_parts(header, Vec::new()));
    let answers = nothing_is_none(ask(message, NLM_F_REQUEST | NLM_F_ACK))?;
    Ok(answers.iter().find_map(|answer| entry(answer)))
}

/// What filters of an interface can be attached to: `clsact`, `ingress`; `None`: nothing.
///
/// # Errors
/// The kernel's, where it does not answer.
pub(super) fn queueing(ifindex: u32) -> io::Result<Option<String>> {
    let message = TcMessage::from_parts(header(ifindex, TcHandle::CLSACT)?, Vec::new());
    let message = RouteNetlinkMessage::GetQueueDiscipline(message);
    // Without NLM_F_ECHO the kernel tells everybody who listens, but not who asked (`qdisc_get_notify`).
    let answers = nothing_is_none(ask(message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO))?;
    Ok(answers.iter().find_map(|answer| attribute(answer, TCA_KIND).and_then(|kind| parse_string(&kind).ok())))
}

/// The kernel says so in several ways: no such filter, interface, or place for filters; another filter at this priority; no
/// filters at all in this kernel.
fn nothing_is_none(result: io::Result<Vec<Vec<u8>>>) -> io::Result<Vec<Vec<u8>>> {
    const NOTHING: [i32; 4] = [libc::ENOENT, libc::ENODEV, libc::EINVAL, libc::EOPNOTSUPP];
    match result {
        Err(error) if error.raw_os_error().is_some_and(|code| NOTHING.contains(&code)) => Ok(Vec::new()),
        other => other,
    }
}

fn parent(way: TcAttachType) -> TcHandle {
    let of = |minor| TcHandle { major: TcHandle::CLSACT.major, minor };
    match way {
        TcAttachType::Ingress => of(TcHandle::MIN_INGRESS),
        TcAttachType::Egress => of(TcHandle::MIN_EGRESS),
        TcAttachType::Custom(parent) => parent.into(),
    }
}

fn header(ifindex: u32, parent: TcHandle) -> io::Result<TcHeader> {
    Ok(TcHeader { index: i32::try_from(ifindex).map_err(io::Error::other)?, parent, ..TcHeader::default() })
}

/// Asks, and answers with what the kernel says before it says that this was all.
fn ask(question: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<Vec<u8>>> {
    let mut message = NetlinkMessage::from(question);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            match message.message_type() {
                NLMSG_DONE | NLMSG_ERROR => {
                    match message.payload().first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
                        0 => return Ok(answers),
                        code => return Err(io::Error::from_raw_os_error(-code)),
                    }
                }
                _ => answers.push(message.payload().to_vec()),
            }
            rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// A filter that frames meet without being sent to it. Read by hand, because the attributes of some other filter that
/// nobody here knows must not hide ours.
fn entry(message: &[u8]) -> Option<Entry> {
    let TcHeader { handle, info, .. } = TcHeader::parse(message).ok()?;
    if attribute(message, TCA_CHAIN).is_some_and(|chain| parse_u32(&chain).is_ok_and(|chain| chain != 0)) {
        return None;
    }
    let mut entry = Entry {
        priority: (info >> 16) as u16,
        protocol: u16::from_be(info as u16),
        handle: handle.into(),
        kind: parse_string(&attribute(message, TCA_KIND)?).ok()?,
        ..Entry::default()
    };
    if entry.kind == TcFilterBpf::KIND {
        let options = attribute(message, TCA_OPTIONS).unwrap_or_default();
        for option in NlasIterator::new(options.as_slice()).filter_map(Result::ok) {
            match TcFilterBpfOption::parse(&option) {
                Ok(TcFilterBpfOption::ProgId(id)) => entry.program = Some(id),
                Ok(TcFilterBpfOption::ProgName(name)) => entry.name = name,
                _ => {}
            }
        }
    }
    Some(entry)
}

fn attribute(message: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(message.get(HEADER..)?).filter_map(Result::ok);
    attributes.find(|attribute| attribute.kind() == kind).map(|attribute| attribute.value().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute, padded.
    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(priority: u16, handle: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[8..12].copy_from_slice(&handle.to_ne_bytes());
        let info = u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be());
        bytes[16..20].copy_from_slice(&info.to_ne_bytes());
        bytes.extend(attributes.concat());
        bytes
    }

    #[test]
    fn a_filter_says_its_program() {
        let options = [nla(7, b"guard\0"), nla(11, &9u32.to_ne_bytes())].concat();
        let read = entry(&message(7, 5, &[nla(TCA_KIND, b"bpf\0"), nla(TCA_OPTIONS, &options)])).unwrap();
        let expected = Entry {
            priority: 7,
            protocol: ETH_P_ALL,
            handle: 5,
            kind: "bpf".into(),
            program: Some(9),
            name: "guard".into(),
        };
        assert_eq!(read, expected);
        assert!(read.shares_its_priority());
    }

    #[test]
    fn filters_of_other_kinds_and_other_chains_are_no_programs() {
        // Options that nobody could read as those of a flower filter.
        let other = entry(&message(1, 1, &[nla(TCA_KIND, b"flower\0"), nla(TCA_OPTIONS, &[1, 2, 3])])).unwrap();
        assert_eq!((other.kind.as_str(), other.program), ("flower", None));
        assert!(!other.shares_its_priority());
        let chained = [nla(TCA_KIND, b"bpf\0"), nla(TCA_CHAIN, &4u32.to_ne_bytes())];
        assert_eq!(entry(&message(1, 1, &chained)), None);
        assert_eq!(entry(&[0; 7]), None);
        assert_eq!(entry(&message(1, 1, &[])), None);
    }
}
