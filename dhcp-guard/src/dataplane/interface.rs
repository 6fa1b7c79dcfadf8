//! What netlink knows of an interface.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    packet_core::Nla as _,
    packet_route::link::{
        InfoData, InfoKind, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
    },
};

use super::{
    Error, causes,
    hook::{Facts, Kind},
    tcx,
};

/// An interface of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its kernel index.
    pub ifindex: u32,
    /// Administratively up.
    pub up: bool,
    /// Kernel id of the XDP program on it.
    pub xdp_program: Option<u32>,
    /// It is there in generic mode.
    pub xdp_is_generic: bool,
    /// What decides which hook is right for it.
    pub facts: Facts,
}

impl Interface {
    /// One that is up with nothing on it, as whoever made it knows without asking, on a kernel that has TCX.
    #[must_use]
    pub fn bare(name: &str, ifindex: u32) -> Self {
        let facts = Facts { has_tcx: true, ..Facts::default() };
        Self { name: name.to_owned(), ifindex, up: true, facts, ..Self::default() }
    }

    /// Whether it still is here, under this name, as far as can be told.
    #[must_use]
    pub fn is_here(&self) -> bool {
        index_of(&self.name).map_or(true, |index| index == Some(self.ifindex))
    }

    /// For whoever is about to do something to whatever has its name.
    ///
    /// # Errors
    /// Why not, in words: the name may be another interface's by now.
    pub(super) fn must_be_here(&self) -> Result<(), String> {
        match index_of(&self.name) {
            Ok(index) if index == Some(self.ifindex) => Ok(()),
            Ok(_) => Err("it is not there any more".to_owned()),
            Err(error) => Err(format!("it cannot be told whether it still is there: {error}")),
        }
    }
}

/// Looks an interface up by name.
///
/// # Errors
/// [`Error::NoInterface`], [`Error::Netlink`].
pub async fn find(name: &str) -> Result<Interface, Error> {
    let netlink = |error: &(dyn std::error::Error + 'static)| Error::Netlink {
        name: name.to_owned(),
        reason: causes::in_full(error),
    };
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| netlink(&e))?;
    let connection = tokio::spawn(connection);
    let answer = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    connection.abort();
    match answer {
        Ok(Some(link)) => Ok(describe(name, &link)),
        Ok(None) => Err(Error::NoInterface { name: name.to_owned() }),
        // ENODEV; a name the kernel finds malformed (too long) comes back as ERANGE or EINVAL.
        Err(rtnetlink::Error::NetlinkError(e))
            if [-libc::ENODEV, -libc::ERANGE, -libc::EINVAL].contains(&e.raw_code()) =>
        {
            Err(Error::NoInterface { name: name.to_owned() })
        }
        Err(e) => Err(netlink(&e)),
    }
}

fn describe(name: &str, link: &LinkMessage) -> Interface {
    let xdp = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp.as_slice()),
        _ => None,
    });
    let xdp = xdp.and_then(on_xdp);
    Interface {
        name: name.to_owned(),
        ifindex: link.header.index,
        up: link.header.flags.contains(LinkFlags::Up),
        xdp_program: xdp.map(|xdp| xdp.program),
        xdp_is_generic: xdp.is_some_and(|xdp| xdp.is_generic),
        facts: Facts {
            kind: kind(link),
            strips_vlan_tags: strips_vlan_tags(name),
            // That it does not answer now is no sign of an old kernel, whose hook is another one.
            has_tcx: tcx::is_offered(link.header.index).unwrap_or(true),
        },
    }
}

/// The XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnXdp {
    /// Kernel id.
    pub program: u32,
    /// It is there in generic mode.
    pub is_generic: bool,
}

/// What netlink says of XDP on an interface; none: there is no program.
#[must_use]
pub fn on_xdp(attributes: &[LinkXdp]) -> Option<OnXdp> {
    let program = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    })?;
    Some(OnXdp { program, is_generic: attributes.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer)) })
}

fn kind(link: &LinkMessage) -> Kind {
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos.as_slice()),
        _ => None,
    });
    let infos = infos.unwrap_or_default();
    infos
        .iter()
        .find_map(|info| match info {
            LinkInfo::Kind(InfoKind::Vlan) => Some(Kind::Vlan),
            LinkInfo::Kind(InfoKind::Bridge) => Some(Kind::Bridge),
            LinkInfo::Kind(InfoKind::Bond) => Some(Kind::Bond),
            LinkInfo::Data(InfoData::Tun(data)) => data.iter().any(has_offloads).then_some(Kind::TapWithOffloads),
            _ => None,
        })
        .unwrap_or_default()
}

/// Whether this says that frames come with a header that describes offloads.
fn has_offloads(data: &InfoTun) -> bool {
    // include/uapi/linux/if_link.h
    const IFLA_TUN_VNET_HDR: u16 = 5;
    let mut value = [0];
    if data.kind() == IFLA_TUN_VNET_HDR && data.value_len() == value.len() {
        data.emit_value(&mut value);
    }
    value != [0]
}

/// The index of the interface with this name in this network namespace; none: there is no such interface.
///
/// # Errors
/// It cannot be told. To ask takes a descriptor, and whoever has none left must not take everything for gone.
pub fn index_of(name: &str) -> io::Result<Option<u32>> {
    // No interface has such a name.
    let Ok(name) = CString::new(name) else { return Ok(None) };
    // SAFETY: a C string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => absent(io::Error::last_os_error()),
        index => Ok(Some(index)),
    }
}

/// The name of the interface with this index in this network namespace; none: there is no such interface.
///
/// # Errors
/// As above.
pub fn name_of(index: u32) -> io::Result<Option<String>> {
    let mut name = [0u8; libc::IFNAMSIZ];
    // SAFETY: room for the longest name with its end.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null() {
        return absent(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    Ok(Some(name.to_string_lossy().into_owned()))
}

/// Whether the kernel says that there is no interface with this index. One that does not answer has not said so.
#[must_use]
pub fn is_gone(index: u32) -> bool {
    name_of(index).is_ok_and(|name| name.is_none())
}

/// Only these two errors say that there is none.
fn absent<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Ok(None),
        _ => Err(error),
    }
}

/// Whether the interface takes VLAN tags out of the frame before XDP sees it (`rx-vlan-offload`). Unknown counts as no.
#[must_use]
pub fn strips_vlan_tags(name: &str) -> bool {
    ethtool_flags(name).is_some_and(|flags| flags & (1 << 8) != 0)
}

/// Whether the interface makes one large packet of many before anybody sees them (LRO). Unknown counts as no.
#[must_use]
pub fn merges_packets(name: &str) -> bool {
    ethtool_flags(name).is_some_and(|flags| flags & (1 << 15) != 0)
}

/// `ETH_FLAG_*` (include/uapi/linux/ethtool.h).
fn ethtool_flags(name: &str) -> Option<u32> {
    const ETHTOOL_GFLAGS: u32 = 0x25;
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let mut value = EthtoolValue { command: ETHTOOL_GFLAGS, data: 0 };
    // SAFETY: no memory involved.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return None;
    }
    // SAFETY: just opened, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    if name.len() >= libc::IFNAMSIZ {
        return None;
    }
    // SAFETY: all zeros is a valid request without a name and without data; both follow.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: a terminated name, and a place for the answer of the size that the command has; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    (result == 0).then_some(value.data)
}

/// The name the kernel knows a program by, or "of unknown name".
#[must_use]
pub fn program_name(id: u32) -> String {
    known_name(id).unwrap_or_else(|| "of unknown name".to_owned())
}

/// The name the kernel knows a program by; none: it has none, or the kernel does not say so to us.
#[must_use]
pub fn known_name(id: u32) -> Option<String> {
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_from_what_cannot_be_told() {
        assert_eq!(index_of("lo").unwrap(), Some(1));
        assert_eq!(name_of(1).unwrap().as_deref(), Some("lo"));
        let too_long = "n".repeat(40);
        for name in ["no-such-link", "", "a\0b", &too_long] {
            assert_eq!(index_of(name).unwrap(), None, "{name:?}");
        }
        assert_eq!(name_of(i32::MAX as u32).unwrap(), None);
        assert!(!is_gone(1) && is_gone(i32::MAX as u32));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EPERM] {
            assert!(absent::<u32>(io::Error::from_raw_os_error(code)).is_err(), "{code} is no answer");
        }
    }
}
