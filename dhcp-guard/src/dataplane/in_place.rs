//! Whether a program is still where it was put. Whoever may do so can take one off (`bpftool link detach`), or put another
//! one into its place, and the kernel tells nobody: so it has to be asked, one cheap system call for each link.

use std::{
    hash::{Hash as _, Hasher},
    io,
    os::fd::RawFd,
};

use aya::programs::links::{FdLink, Link as _};

use super::{attach::Attachment, replies::ReplyWatch};

/// `BPF_OBJ_GET_INFO_BY_FD` of `enum bpf_cmd` (include/uapi/linux/bpf.h).
const GET_INFO_BY_FD: libc::c_int = 15;

/// `struct bpf_link_info` as far as it is the same for XDP and TCX: `xdp.ifindex` and `tcx.ifindex` are at one place.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
    rest: [u64; 8],
}

/// The part of `union bpf_attr` that asks for information.
#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

impl Attachment {
    /// Whether our program still is on the interface, as far as can be told.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        is_in_place(&self.link, self.interface.ifindex)
    }
}

impl ReplyWatch {
    /// Whether our program still is on the interface's way out, as far as can be told.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        is_in_place(&self.link, self.ifindex)
    }
}

/// A kernel that does not answer has not said no.
fn is_in_place(link: &FdLink, ifindex: u32) -> bool {
    facts(link).map_or(true, |info| info.ifindex == ifindex)
}

fn facts(link: &FdLink) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let fd = u32::try_from(descriptor(link)).map_err(io::Error::other)?;
    let mut attr = InfoAttr { fd, len: size_of::<LinkInfo>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: room of the length that is named, which outlives the call; the link keeps its descriptor open meanwhile.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, GET_INFO_BY_FD, std::ptr::from_mut(&mut attr), size_of::<InfoAttr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info) }
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
