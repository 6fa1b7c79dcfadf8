//! A frame that keeps an eye on its reader.

use std::cell::Cell;

use dhcp_guard_common::parse::Frame;

/// Bytes that may only be read as the kernel allows it.
pub struct Watched<'a> {
    bytes: &'a [u8],
    reads: Cell<usize>,
}

impl<'a> Watched<'a> {
    /// Watches over these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, reads: Cell::new(0) }
    }

    /// How often they were read since the last call.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.reads.take()
    }

    fn count(&self) {
        self.reads.set(self.reads.get() + 1);
    }
}

impl Frame for Watched<'_> {
    fn words<const N: usize>(&self, at: usize) -> Option<[u16; N]> {
        assert!(at.is_multiple_of(2), "words at the odd offset {at}: some machines cannot read them");
        self.count();
        self.bytes.words(at)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.count();
        self.bytes.byte(at)
    }

    fn longs<const N: usize, const LEN: usize>(&self, at: usize, offsets: [usize; N]) -> Option<[u64; N]> {
        for offset in offsets {
            let place = at + offset;
            assert!(place.is_multiple_of(2), "a long at the odd offset {place}: some machines cannot read it");
            assert!(offset + 8 <= LEN, "a long at {offset} of {LEN} bytes that were asked for");
        }
        self.count();
        self.bytes.longs::<N, LEN>(at, offsets)
    }
}
