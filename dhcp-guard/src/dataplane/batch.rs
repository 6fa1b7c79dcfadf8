//! Reading a whole hash map with few system calls.
//!
//! aya reads one entry at a time (two system calls each), and its iterator starts over when the entry it stands on is
//! deleted. BPF_MAP_LOOKUP_BATCH (kernel 5.6) walks bucket by bucket: it ends whatever happens to the entries, and never
//! answers one twice.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{Pod, maps::MapData};

/// Entries asked for in one call. It must exceed the longest bucket, or the kernel answers ENOSPC.
const CHUNK: usize = 4096;

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// `union bpf_attr`, its part for batch operations (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `visit` with every entry of a hash map.
///
/// # Errors
/// The kernel's, or `InvalidInput` if the map's key or value size is not that of `K` or `V`.
pub fn for_each<K: Pod, V: Pod>(map: &MapData, mut visit: impl FnMut(K, V)) -> io::Result<()> {
    check_sizes::<K, V>(map)?;
    let mut keys = vec![MaybeUninit::<K>::uninit(); CHUNK];
    let mut values = vec![MaybeUninit::<V>::uninit(); CHUNK];
    let (mut position, mut next) = (0u32, 0u32);
    let mut started = false;
    loop {
        let mut attr = BatchAttr {
            in_batch: if started { (&raw const position) as u64 } else { 0 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: CHUNK as u32,
            map_fd: u32::try_from(map.fd().as_fd().as_raw_fd()).map_err(io::Error::other)?,
            ..BatchAttr::default()
        };
        // SAFETY: `attr` names buffers of CHUNK keys and values of the map's sizes (checked above) and two words for
        // the position (a hash map's position is a u32 bucket number); all outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>()) };
        let finished = match (result, io::Error::last_os_error()) {
            (0, _) => false,
            (_, e) if e.raw_os_error() == Some(libc::ENOENT) => true,
            (_, e) => return Err(e),
        };
        for (key, value) in keys.iter().zip(&values).take(attr.count as usize) {
            // SAFETY: the kernel filled the first `count` of both, and Pod types have no invalid values.
            unsafe { visit(key.assume_init(), value.assume_init()) };
        }
        if finished {
            return Ok(());
        }
        position = next;
        started = true;
    }
}

/// A value larger than its buffer would be written past the end of it.
fn check_sizes<K, V>(map: &MapData) -> io::Result<()> {
    let info = map.info().map_err(io::Error::other)?;
    if info.key_size() as usize == size_of::<K>() && info.value_size() as usize == size_of::<V>() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "the map's key or value has another size than expected"))
}
