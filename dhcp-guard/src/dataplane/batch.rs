//! Reading a whole hash map with few system calls.
//!
//! aya reads one entry at a time (two system calls each), and its iterator starts over when the entry it stands on is
//! deleted. BPF_MAP_LOOKUP_BATCH (kernel 5.6) walks bucket by bucket: it ends whatever happens to the entries, and never
//! answers one twice.

use std::io;

use aya::{Pod, maps::MapData};

use super::sys;

/// Entries asked for in one call. It must exceed the longest bucket, or the kernel answers ENOSPC.
const CHUNK: usize = 4096;

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
    let (key, value) = sizes(map)?;
    if (key, value) != (size_of::<K>(), size_of::<V>()) {
        let reason = "the map's key or value has another size than expected";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    for_each_bytes(map, |key, value| {
        // SAFETY: as long as the types (checked above), which are Pod and so have no invalid values.
        unsafe { visit(key.as_ptr().cast::<K>().read_unaligned(), value.as_ptr().cast::<V>().read_unaligned()) };
    })
}

/// The same for a map of whatever sizes.
///
/// # Errors
/// The kernel's.
pub fn for_each_bytes(map: &MapData, mut visit: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
    let (key_size, value_size) = sizes(map)?;
    let mut keys = vec![0u8; CHUNK * key_size];
    let mut values = vec![0u8; CHUNK * value_size];
    let (mut position, mut next) = (0u32, 0u32);
    let mut started = false;
    loop {
        let mut attr = BatchAttr {
            in_batch: if started { (&raw const position) as u64 } else { 0 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: CHUNK as u32,
            map_fd: sys::number(map.fd())?,
            ..BatchAttr::default()
        };
        // SAFETY: `attr` names buffers of CHUNK keys and values of the map's sizes and two words for the position (a
        // hash map's position is a u32 bucket number); all outlive the call.
        let finished = match unsafe { sys::bpf(sys::Command::LookupBatch, &mut attr) } {
            Ok(_) => false,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
            Err(e) => return Err(e),
        };
        let entries = keys.chunks_exact(key_size).zip(values.chunks_exact(value_size));
        entries.take(attr.count as usize).for_each(|(key, value)| visit(key, value));
        if finished {
            return Ok(());
        }
        position = next;
        started = true;
    }
}

/// Sizes of a map's keys and values: a value larger than its buffer would be written past the end of it.
fn sizes(map: &MapData) -> io::Result<(usize, usize)> {
    let info = map.info().map_err(io::Error::other)?;
    Ok((info.key_size() as usize, info.value_size() as usize))
}
