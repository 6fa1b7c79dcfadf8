//! Maps of any shape, pinned where the agent expects another: what `bpftool map create` does, without bpftool.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapInfo, MapType};

/// What the kernel says of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Its type.
    pub kind: MapType,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Most entries.
    pub entries: u32,
}

impl Shape {
    /// That of a pinned map.
    pub fn of(pin: &Path) -> Result<Self> {
        let info = MapInfo::from_pin(pin).with_context(|| format!("no map at {}", pin.display()))?;
        Ok(Self { kind: info.map_type()?, key: info.key_size(), value: info.value_size(), entries: info.max_entries() })
    }

    /// Makes such a map, empty, and pins it.
    pub fn pin(self, pin: &Path) -> Result<()> {
        let path = CString::new(pin.as_os_str().as_bytes())?;
        let create = Create { kind: self.kind as u32, key: self.key, value: self.value, entries: self.entries };
        let map = call(CREATE, &create).with_context(|| format!("cannot make {self:?}"))?;
        // SAFETY: the kernel has just opened it, for nobody else.
        let map = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(map)?) };
        let attr = Pin { path: path.as_ptr() as u64, fd: u32::try_from(map.as_raw_fd())?, flags: 0 };
        call(PIN, &attr).map(drop).with_context(|| format!("cannot pin {self:?} at {}", pin.display()))
    }
}

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const CREATE: libc::c_int = 0;
const PIN: libc::c_int = 6;

/// The parts of `union bpf_attr` that these commands take.
#[repr(C)]
struct Create {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
}

#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

fn call<T>(command: libc::c_int, attr: &T) -> io::Result<i64> {
    // SAFETY: these commands only read what is in `attr`, and where its path says, which the caller keeps.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
