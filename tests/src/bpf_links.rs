//! What somebody else does to the guard's place on an interface: `bpftool link detach`, without bpftool.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::Netns;

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
    GetInfoByFd = 15,
    GetFdById = 30,
    GetNextId = 31,
    Detach = 34,
}

/// `BPF_LINK_TYPE_XDP`
const XDP: u32 = 6;

/// The part of `union bpf_attr` that these commands take.
#[repr(C)]
#[derive(Default)]
struct Attr {
    /// An id or a descriptor.
    first: u32,
    /// The next id, or the length of what is asked for.
    second: u32,
    address: u64,
}

/// `struct bpf_link_info` as far as XDP has it.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    rest: [u32; 19],
}

/// The XDP programs on a namespace's interfaces: name, mode as `ip` names it (1 native, 2 generic), the program's id.
pub fn programs(netns: &Netns) -> Result<Vec<(String, u64, u64)>> {
    let links: Value = serde_json::from_str(&netns.exec(&["ip", "-json", "link", "show"])?)?;
    let links = links.as_array().context("`ip -json link` did not answer a list")?;
    let program = |link: &Value| {
        let xdp = link.get("xdp")?;
        Some((link["ifname"].as_str()?.to_owned(), xdp["mode"].as_u64()?, xdp["prog"]["id"].as_u64()?))
    };
    Ok(links.iter().filter_map(program).collect())
}

/// Detaches the link that holds the XDP program on an interface.
pub fn detach(netns: &Netns, interface: &str) -> Result<()> {
    let ifindex = netns.ifindex(interface)?;
    let on_it = programs(netns)?.into_iter().find(|(name, ..)| name == interface);
    let program = on_it.with_context(|| format!("there is no program on `{interface}`"))?.2;
    let mut id = 0;
    loop {
        let mut attr = Attr { first: id, ..Attr::default() };
        call(Command::GetNextId, &mut attr).with_context(|| format!("no link holds the program on `{interface}`"))?;
        id = attr.second;
        let Ok(fd) = call(Command::GetFdById, &mut Attr { first: id, ..Attr::default() }) else { continue };
        // SAFETY: the kernel has just opened it, for nobody else.
        let link = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd)?) };
        let number = u32::try_from(link.as_raw_fd())?;
        let mut info = Info::default();
        let address = (&raw mut info) as u64;
        call(Command::GetInfoByFd, &mut Attr { first: number, second: size_of::<Info>() as u32, address })?;
        // The same index may be another interface's in another namespace, but not with this program.
        if (info.kind, info.ifindex, u64::from(info.program)) == (XDP, ifindex, program) {
            call(Command::Detach, &mut Attr { first: number, ..Attr::default() })?;
            return Ok(());
        }
    }
}

fn call(command: Command, attr: &mut Attr) -> io::Result<i64> {
    // SAFETY: what these commands read and write is in `attr`, or where its address says, for which the caller has room.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_mut(attr), size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
