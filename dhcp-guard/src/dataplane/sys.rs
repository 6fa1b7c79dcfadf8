//! The few BPF system calls that aya has no function for.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(crate) enum Command {
    LookupElem = 1,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgTestRun = 10,
    GetInfoByFd = 15,
    ProgQuery = 16,
    LookupBatch = 24,
    LinkDetach = 34,
}

/// Makes the call; answers what the kernel does.
///
/// # Safety
/// `Attr` must be what the command takes: `repr(C)`, and whatever addresses are in it must be good for what the command
/// reads and writes there.
pub(crate) unsafe fn bpf<Attr>(command: Command, attr: &mut Attr) -> io::Result<libc::c_long> {
    // SAFETY: promised by the caller; `attr` outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_mut(attr), size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The number of a descriptor, as `union bpf_attr` wants it.
pub(crate) fn number(fd: &impl AsFd) -> io::Result<u32> {
    let fd: RawFd = fd.as_fd().as_raw_fd();
    u32::try_from(fd).map_err(io::Error::other)
}

/// Its part for single elements.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Copies an element of an array map into `value`.
///
/// # Errors
/// The kernel's; `InvalidInput` if `value` does not have the size of the map's values, which is `value_size`.
pub(super) fn element(map: &impl AsFd, value_size: u32, index: u32, value: &mut [u8]) -> io::Result<()> {
    if value.len() != value_size as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the size of the map's values"));
    }
    let mut attr = ElementAttr {
        map_fd: number(map)?,
        key: (&raw const index) as u64,
        value: value.as_mut_ptr() as u64,
        ..ElementAttr::default()
    };
    // SAFETY: a key of an array's four bytes, and room for a value of the map's size; both outlive the call.
    unsafe { bpf(Command::LookupElem, &mut attr) }.map(drop)
}

/// What the kernel says of a link. aya's [`LinkInfo`](aya::programs::links::LinkInfo) lacks the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkFacts {
    /// Kernel id of its program.
    pub(super) program: u32,
    /// Kernel index of its interface, in that one's network namespace; 0: it is on none any more.
    pub(super) ifindex: u32,
}

/// The part of `union bpf_attr` that asks for information.
#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// Its part for pinned objects.
#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Its part for asking what is attached.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    attach_flags_of_each: u64,
    links: u64,
    link_flags_of_each: u64,
    revision: u64,
}

/// A row of programs that TCX runs; `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Row {
    Ingress = 46,
    Egress = 47,
}

/// Kernel ids of the programs in a row of an interface. aya's `query_tcx` opens each of them, which takes CAP_SYS_ADMIN.
///
/// # Errors
/// The kernel's; `InvalidInput` from one that has no TCX (before 6.6).
pub(super) fn programs_in(row: Row, ifindex: u32) -> io::Result<Vec<u32>> {
    // The kernel allows 64 in a row (`BPF_MPROG_MAX`, include/linux/bpf_mprog.h).
    let mut programs = [0u32; 64];
    let mut attr = QueryAttr {
        ifindex,
        attach_type: row as u32,
        programs: programs.as_mut_ptr() as u64,
        count: programs.len() as u32,
        ..QueryAttr::default()
    };
    // SAFETY: room for as many ids as are named, which outlives the call.
    unsafe { bpf(Command::ProgQuery, &mut attr)? };
    Ok(programs.into_iter().take(attr.count as usize).collect())
}

/// Its part for links.
#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    fd: u32,
}

/// Opens a pinned object.
///
/// # Errors
/// The kernel's; `NotFound` if there is no such pin.
fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, ..ObjectAttr::default() };
    // SAFETY: a C string that outlives the call.
    let fd = unsafe { bpf(Command::ObjGet, &mut attr)? };
    // SAFETY: the kernel has just opened it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(io::Error::other)?) })
}

/// Pins an open object.
///
/// # Errors
/// The kernel's; `AlreadyExists` if something is there.
pub(super) fn pin(object: RawFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = u32::try_from(object).map_err(io::Error::other)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd, flags: 0 };
    // SAFETY: a C string that outlives the call.
    unsafe { bpf(Command::ObjPin, &mut attr) }.map(drop)
}

/// Asks the kernel about a pinned link, which must be XDP or TCX.
///
/// # Errors
/// The kernel's; `NotFound` if there is no such pin.
pub(super) fn link_facts(pin: &Path) -> io::Result<LinkFacts> {
    let link = open(pin)?;
    if !is_link(link.as_raw_fd()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no link"));
    }
    facts_of(link.as_raw_fd())
}

/// Whether an open object is a link: what the kernel says of a map can look like one. Without procfs, nobody knows.
fn is_link(object: RawFd) -> bool {
    let name = std::fs::read_link(format!("/proc/self/fd/{object}"));
    name.map_or(true, |name| ["bpf-link", "bpf_link"].iter().any(|kind| name.to_string_lossy().contains(kind)))
}

/// The same about an open one.
///
/// # Errors
/// The kernel's.
pub(super) fn facts_of(link: RawFd) -> io::Result<LinkFacts> {
    // `enum bpf_link_type`.
    const XDP: u32 = 6;
    const TCX: u32 = 11;
    // `struct bpf_link_info` as far as it is the same for XDP and TCX: `xdp.ifindex` and `tcx.ifindex` are at one place.
    let [kind, _id, program, _padding, ifindex, _attach_type] = info(u32::try_from(link).map_err(io::Error::other)?)?;
    if ![XDP, TCX].contains(&kind) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a link of another kind"));
    }
    Ok(LinkFacts { program, ifindex })
}

/// The first words of what the kernel says of an open object.
///
/// # Errors
/// The kernel's.
pub(crate) fn info<const WORDS: usize>(fd: u32) -> io::Result<[u32; WORDS]> {
    let mut info = [0; WORDS];
    let mut attr = InfoAttr { fd, len: size_of_val(&info) as u32, info: info.as_mut_ptr() as u64 };
    // SAFETY: room of the length that is named, which outlives the call.
    unsafe { bpf(Command::GetInfoByFd, &mut attr)? };
    Ok(info)
}

/// Takes what a pinned link holds off its interface, at once and whoever else has the link open, and removes the pin.
///
/// # Errors
/// The kernel's.
pub(super) fn take_off(pin: &Path) -> io::Result<()> {
    let link = open(pin)?;
    detach(link.as_raw_fd())?;
    std::fs::remove_file(pin)
}

/// The first half of it, for a link that is open.
///
/// # Errors
/// The kernel's.
pub(super) fn detach(link: RawFd) -> io::Result<()> {
    let mut attr = LinkAttr { fd: u32::try_from(link).map_err(io::Error::other)? };
    // SAFETY: no addresses.
    unsafe { bpf(Command::LinkDetach, &mut attr) }.map(drop)
}
