//! The flood generator, run by `BPF_PROG_TEST_RUN` with live frames: it finishes the template frame in place, counts
//! it, and redirects it to the egress interface.
//!
//! Pages come back and are not rewritten between runs, and the kernel that received them may have changed them (taking
//! a VLAN tag off moves the MAC addresses four bytes into the page). So every run writes the whole link-layer header
//! and the client hardware address again.
//!
//! One thread runs one instance of this program, so the counters need no atomics.

use aya_ebpf::{
    Global,
    bindings::xdp_action,
    helpers::bpf_redirect,
    macros::{map, xdp},
    maps::Array,
    programs::XdpContext,
};

/// Which source MAC the frames carry; the numbers are known to `tests::flood`.
mod mode {
    /// All frames as in the template.
    pub(super) const ONE: u32 = 0;
    /// Round robin over `MAC_COUNT` addresses: the base with its last two bytes replaced by the index.
    pub(super) const MACS: u32 = 1;
    /// A random source MAC, and the same address as client hardware address.
    pub(super) const RANDOM: u32 = 2;
    /// One source MAC, a random client hardware address.
    pub(super) const RANDOM_CHADDR: u32 = 3;
}

/// Most MACs of a round robin, as many as two bytes can tell apart.
const MAX_MACS: u32 = 1 << 16;
/// Room for Ethernet and two VLAN tags, in 16-bit words.
const HEADER_WORDS: usize = 11;
/// Every template is longer than this, so that one comparison covers every write. The furthest is the client hardware
/// address: 22 bytes of link layer, 20 of IPv4, 8 of UDP, 28 into the message, 6 long.
const TOUCHED: usize = 84;
/// Where the source MAC is, in words.
const SOURCE_WORD: usize = 3;

#[unsafe(no_mangle)]
static EGRESS_IFINDEX: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static MODE: Global<u32> = Global::new(mode::ONE);
/// Number of MACs of a round robin.
#[unsafe(no_mangle)]
static MAC_COUNT: Global<u32> = Global::new(1);
/// The link-layer header of the template, words as they are in the frame.
#[unsafe(no_mangle)]
static HEADER: Global<[u16; HEADER_WORDS]> = Global::new([0; HEADER_WORDS]);
/// How many of these words are in use.
#[unsafe(no_mangle)]
static HEADER_LEN: Global<u32> = Global::new(7);
/// Where the client hardware address is in the frame, in bytes.
#[unsafe(no_mangle)]
static CHADDR_OFFSET: Global<u32> = Global::new(70);

/// What one run leaves for the next; the same layout is in `tests::flood`.
#[repr(C)]
struct State {
    /// Frames redirected so far.
    sent: u64,
    /// State of the xorshift generator, never 0; user space puts the seed.
    random: u64,
    /// Whose turn it is in a round robin.
    next: u64,
}

#[map]
static STATE: Array<State> = Array::with_max_entries(1, 0);

/// Frames per MAC of a round robin.
#[map]
static SENT: Array<u64> = Array::with_max_entries(MAX_MACS, 0);

/// Finishes one frame and sends it.
#[xdp]
#[expect(clippy::needless_pass_by_value, reason = "the shape that the xdp attribute wants")]
pub(crate) fn flood(ctx: XdpContext) -> u32 {
    let Some(state) = STATE.get_ptr_mut(0) else { return xdp_action::XDP_DROP };
    // SAFETY: the map's only entry, which nothing else uses while this program runs.
    let state = unsafe { &mut *state };
    let frame = ctx.data();
    if frame + TOUCHED > ctx.data_end() {
        return xdp_action::XDP_DROP;
    }
    let frame = frame as *mut u8;

    let mut header = HEADER.load();
    let mut mac = [header[SOURCE_WORD], header[SOURCE_WORD + 1], header[SOURCE_WORD + 2]];
    let mode = MODE.load();
    match mode {
        mode::MACS => mac[2] = (next_index(state) as u16).to_be(),
        mode::RANDOM | mode::RANDOM_CHADDR => mac = random_mac(&mut state.random),
        _ => {}
    }
    if mode != mode::RANDOM_CHADDR {
        header[SOURCE_WORD] = mac[0];
        header[SOURCE_WORD + 1] = mac[1];
        header[SOURCE_WORD + 2] = mac[2];
    }
    // SAFETY: all below TOUCHED bytes, which are there; even offsets in a page-aligned buffer are aligned for words.
    unsafe { write(frame, &header, mac) };

    state.sent += 1;
    // SAFETY: a helper without pointers. The frame goes to the interface after the batch.
    unsafe { bpf_redirect(EGRESS_IFINDEX.load(), 0) as u32 }
}

/// Writes the link-layer header and the client hardware address.
///
/// # Safety
/// `frame` must be good for [`TOUCHED`] bytes.
#[inline(always)]
unsafe fn write(frame: *mut u8, header: &[u16; HEADER_WORDS], mac: [u16; 3]) {
    let used = HEADER_LEN.load() as usize;
    for (index, word) in header.iter().enumerate() {
        if index < used {
            // SAFETY: promised by the caller; 22 bytes at most.
            unsafe { frame.add(2 * index).cast::<u16>().write(*word) };
        }
    }
    let chaddr = CHADDR_OFFSET.load() as usize;
    if chaddr <= TOUCHED - 6 {
        for (index, word) in mac.iter().enumerate() {
            // SAFETY: promised by the caller, and the offset was checked.
            unsafe { frame.add(chaddr + 2 * index).cast::<u16>().write(*word) };
        }
    }
}

/// Whose turn it is; counts the frame for this index.
#[inline(always)]
fn next_index(state: &mut State) -> u32 {
    let index = state.next as u32;
    let following = index + 1;
    state.next = if following >= MAC_COUNT.load() { 0 } else { u64::from(following) };
    if let Some(sent) = SENT.get_ptr_mut(index) {
        // SAFETY: an entry of the map, which nothing else writes while this program runs.
        unsafe { *sent += 1 };
    }
    index
}

/// A random, locally administered unicast address, `0a:…`: never one of the lab's machines, whose first byte is 02.
#[inline(always)]
fn random_mac(state: &mut u64) -> [u16; 3] {
    // xorshift64, Marsaglia 2003.
    let mut x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    [(x as u16 & 0x00ff | 0x0a00).to_be(), (x >> 16) as u16, (x >> 32) as u16]
}
