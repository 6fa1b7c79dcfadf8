//! The memory of an array map, shared with the program: no system call to read it, and single words can be changed while
//! the program runs.
//!
//! aya has no such thing; the map must have BPF_F_MMAPABLE (kernel 5.5).

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Pod,
    maps::{Map, MapData},
};

use super::Error;

/// An array map of `T`s, each a whole number of words.
#[derive(Debug)]
pub struct Mapped<T> {
    start: NonNull<AtomicU64>,
    elements: usize,
    bytes: usize,
    values: PhantomData<T>,
}

// SAFETY: the memory stays mapped until `drop`, and is only ever touched as atomic words.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8, "a value is a whole number of words");
        size_of::<T>() / 8
    };

    /// Maps the whole of a map, by the name that it has for people.
    ///
    /// # Errors
    /// [`Error::Map`], or [`Error::ForeignMap`] if there is no such array.
    pub(super) fn of(map: Option<&Map>, name: &'static str) -> Result<Self, Error> {
        let Some(Map::Array(map)) = map else { return Err(Error::ForeignMap(name)) };
        Self::new(map).map_err(Error::map("map", name))
    }

    /// Maps the whole of `map`.
    ///
    /// # Errors
    /// The kernel's, or `InvalidInput` if the map's values have another size than `T`.
    pub fn new(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        if info.value_size() as usize != size_of::<T>() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the map's values have another size than expected",
            ));
        }
        let elements = info.max_entries() as usize;
        let bytes = elements * size_of::<T>();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, of a file descriptor that is open.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.fd().as_fd().as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, elements, bytes, values: PhantomData })
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements
    }

    /// Whether there are none, which the kernel does not make.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// The words of an element; none beyond the end.
    #[must_use]
    pub fn words(&self, index: usize) -> &[AtomicU64] {
        if index >= self.elements {
            return &[];
        }
        // SAFETY: inside the mapping, which lives as long as `self`; the kernel's memory is aligned to pages.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(index * Self::WORDS), Self::WORDS) }
    }

    /// Writes an element, word by word; nothing beyond the end.
    pub fn write(&self, index: usize, value: &T) {
        for (place, word) in self.words(index).iter().enumerate() {
            // SAFETY: `value` has as many words as an element, and a Pod has no padding that is not written.
            word.store(unsafe { ptr::from_ref(value).cast::<u64>().add(place).read() }, Ordering::Release);
        }
    }

    /// A copy of what is at byte `offset` of an element, each word as it is when its turn comes; `None` beyond the end.
    #[must_use]
    pub fn field<F: Pod>(&self, index: usize, offset: usize) -> Option<F> {
        const { assert!(size_of::<F>().is_multiple_of(8), "a field is a whole number of words") };
        let words = self.words(index).get(offset / 8..offset / 8 + size_of::<F>() / 8)?;
        let mut value = MaybeUninit::<F>::uninit();
        for (place, word) in words.iter().enumerate() {
            // SAFETY: `value` has as many words as were asked for.
            unsafe { value.as_mut_ptr().cast::<u64>().add(place).write_unaligned(word.load(Ordering::Acquire)) };
        }
        // SAFETY: all its words are written, and a Pod has no invalid values.
        Some(unsafe { value.assume_init() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, which nothing borrows any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
