//! What drivers say of XDP, through the generic netlink family `netdev` (kernel 6.3): the only way to know without attaching.

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    Nla as _, ParseableParametrized,
};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use crate::doctor::facts::XdpFeatures;

/// include/uapi/linux/netdev.h
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_RX_SG: u64 = 1 << 5;

/// What the driver of an interface says; none where the kernel does not know.
pub(super) fn of(ifindex: u32) -> Option<XdpFeatures> {
    let socket = open()?;
    let family = family(&socket)?;
    let asked = NetDev(vec![DefaultNla::new(NETDEV_A_DEV_IFINDEX, ifindex.to_ne_bytes().to_vec())]);
    let mut message = GenlMessage::from_payload(asked);
    message.set_resolved_family_id(family);
    let NetDev(answer) = ask(&socket, message)?;
    let mut bits = [0; 8];
    let features = answer.iter().find(|attribute| attribute.kind() == NETDEV_A_DEV_XDP_FEATURES)?;
    if features.value_len() != bits.len() {
        return None;
    }
    features.emit_value(&mut bits);
    let bits = u64::from_ne_bytes(bits);
    Some(XdpFeatures { native: bits & NETDEV_XDP_ACT_BASIC != 0, multi_buffer: bits & NETDEV_XDP_ACT_RX_SG != 0 })
}

fn open() -> Option<Socket> {
    let mut socket = Socket::new(NETLINK_GENERIC).ok()?;
    socket.bind_auto().ok()?;
    socket.connect(&SocketAddr::new(0, 0)).ok()?;
    Some(socket)
}

/// The number that the family has in this kernel.
fn family(socket: &Socket) -> Option<u16> {
    let name = GenlCtrlAttrs::FamilyName(NetDev::family_name().to_owned());
    let answer = ask(socket, GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![name] }))?;
    answer.nlas.iter().find_map(|attribute| match attribute {
        GenlCtrlAttrs::FamilyId(id) => Some(*id),
        _ => None,
    })
}

/// One question, one answer: the kernel gives it before `send` returns.
fn ask<F>(socket: &Socket, mut question: GenlMessage<F>) -> Option<F>
where
    F: GenlFamily + std::fmt::Debug,
    GenlMessage<F>: NetlinkSerializable + NetlinkDeserializable,
{
    question.finalize();
    let mut message = NetlinkMessage::from(question);
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).ok()?;
    let (answer, _) = socket.recv_from_full().ok()?;
    match NetlinkMessage::<GenlMessage<F>>::deserialize(&answer).ok()?.payload {
        NetlinkPayload::InnerMessage(answer) => Some(answer.payload),
        _ => None,
    }
}

/// A message of the family, as its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NetDev(Vec<DefaultNla>);

impl GenlFamily for NetDev {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        NETDEV_CMD_DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for NetDev {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for NetDev {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Self, netlink_packet_core::DecodeError> {
        use netlink_packet_core::{NlasIterator, Parseable as _};
        NlasIterator::new(bytes).map(|attribute| DefaultNla::parse(&attribute?)).collect::<Result<_, _>>().map(Self)
    }
}
