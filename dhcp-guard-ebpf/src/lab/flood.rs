//! The flood generator, run by `BPF_PROG_TEST_RUN` with live frames: it finishes the template frame in place, counts
//! it, and redirects it to the egress interface.
//!
//! Pages come back and are not rewritten between runs, and the kernel that received them may have changed them (taking
//! a VLAN tag off moves the MAC addresses four bytes into the page). So every run writes the whole link-layer header
//! again, and every field of the message that is its own.
//!
//! What a mode does not need costs nothing: mode, offsets and counts are constants to the verifier, which removes the
//! branches that are not taken. What random fields cost is one step of the generator for every 64 bits.
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
    /// Everything random, each on its own: source MAC, client hardware address, transaction id, relay address, and a
    /// message type of 1 to 8.
    pub(super) const RANDOM_ALL: u32 = 4;
}

/// Most MACs of a round robin, as many as two bytes can tell apart.
const MAX_MACS: u32 = 1 << 16;
/// Room for Ethernet and two VLAN tags, in 16-bit words.
const HEADER_WORDS: usize = 11;
/// Every template is longer than this, so that one comparison covers every write. The furthest is the message type: 22
/// bytes of link layer, 20 of IPv4, 8 of UDP, 242 into the message, 1 long.
const TOUCHED: usize = 293;
/// Where the source MAC is, in words.
const SOURCE_WORD: usize = 3;
/// Where a tag's identifier is (its priority bits are 0), in words, for the outer tag and the inner one.
const VLAN_WORDS: [usize; 2] = [7, 9];
/// Offsets in a DHCPv4 message (RFC 2131, figure 1), in bytes; the type is where the template has it, first of all
/// options. The same are in `tests::packets`.
const XID: usize = 4;
const GIADDR: usize = 24;
const CHADDR: usize = 28;
const MESSAGE_TYPE: usize = 242;

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
/// How many VLAN tags, from the outer one, get a random id.
#[unsafe(no_mangle)]
static RANDOM_VLANS: Global<u32> = Global::new(0);
/// Where the DHCP message is in the frame, in bytes.
#[unsafe(no_mangle)]
static MESSAGE_OFFSET: Global<u32> = Global::new(42);

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
    let mode = MODE.load();
    let own = Own::next(mode, [header[SOURCE_WORD], header[SOURCE_WORD + 1], header[SOURCE_WORD + 2]], state);
    header[SOURCE_WORD] = own.source[0];
    header[SOURCE_WORD + 1] = own.source[1];
    header[SOURCE_WORD + 2] = own.source[2];
    random_vlans(&mut header, state);
    // SAFETY: all below TOUCHED bytes, which are there; even offsets in a page-aligned buffer are aligned for words.
    unsafe {
        write_header(frame, &header);
        write_message(frame, mode, &own);
    }

    state.sent += 1;
    // SAFETY: a helper without pointers. The frame goes to the interface after the batch.
    unsafe { bpf_redirect(EGRESS_IFINDEX.load(), 0) as u32 }
}

/// What differs from frame to frame, as words in memory.
struct Own {
    source: [u16; 3],
    chaddr: [u16; 3],
    xid: [u16; 2],
    giaddr: [u16; 2],
    message_type: u8,
}

impl Own {
    /// Of the next frame. `base` is the source MAC of the template.
    #[inline(always)]
    fn next(mode: u32, base: [u16; 3], state: &mut State) -> Self {
        let mut own = Self { source: base, chaddr: base, xid: [0; 2], giaddr: [0; 2], message_type: 0 };
        match mode {
            mode::MACS => {
                own.source[2] = (next_index(state) as u16).to_be();
                own.chaddr = own.source;
            }
            mode::RANDOM => {
                own.source = random_mac(next_random(state));
                own.chaddr = own.source;
            }
            mode::RANDOM_CHADDR => own.chaddr = random_mac(next_random(state)),
            mode::RANDOM_ALL => {
                own.source = random_mac(next_random(state));
                let random = next_random(state);
                own.chaddr = random_mac(random);
                // Of the 64 bits the address leaves the last 16.
                own.message_type = (random >> 61) as u8 + 1;
                let random = next_random(state);
                own.xid = [random as u16, (random >> 16) as u16];
                own.giaddr = [(random >> 32) as u16, (random >> 48) as u16];
            }
            _ => {}
        }
        own
    }
}

/// Gives the first tags random ids of 12 bits.
#[inline(always)]
fn random_vlans(header: &mut [u16; HEADER_WORDS], state: &mut State) {
    let count = RANDOM_VLANS.load() as usize;
    if count == 0 {
        return;
    }
    let random = next_random(state);
    for (index, word) in VLAN_WORDS.iter().enumerate() {
        if index < count {
            header[*word] = ((random >> (16 * index)) as u16 & 0x0fff).to_be();
        }
    }
}

/// Writes the link-layer header.
///
/// # Safety
/// `frame` must be good for [`TOUCHED`] bytes.
#[inline(always)]
unsafe fn write_header(frame: *mut u8, header: &[u16; HEADER_WORDS]) {
    let used = HEADER_LEN.load() as usize;
    for (index, word) in header.iter().enumerate() {
        if index < used {
            // SAFETY: promised by the caller; 22 bytes at most.
            unsafe { frame.add(2 * index).cast::<u16>().write(*word) };
        }
    }
}

/// Writes the fields of the DHCP message that are the frame's own.
///
/// # Safety
/// `frame` must be good for [`TOUCHED`] bytes.
#[inline(always)]
unsafe fn write_message(frame: *mut u8, mode: u32, own: &Own) {
    let offset = MESSAGE_OFFSET.load() as usize;
    if offset >= TOUCHED - MESSAGE_TYPE {
        return;
    }
    // SAFETY: promised by the caller, and the offset was checked: all fields are before the message type's end.
    unsafe {
        let message = frame.add(offset);
        write_words(message.add(CHADDR), &own.chaddr);
        if mode == mode::RANDOM_ALL {
            write_words(message.add(XID), &own.xid);
            write_words(message.add(GIADDR), &own.giaddr);
            message.add(MESSAGE_TYPE).write(own.message_type);
        }
    }
}

/// Writes words one by one.
///
/// # Safety
/// `to` must be good for them, and even.
#[inline(always)]
unsafe fn write_words<const N: usize>(to: *mut u8, words: &[u16; N]) {
    for (index, word) in words.iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe { to.add(2 * index).cast::<u16>().write(*word) };
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

/// 64 random bits: xorshift64, Marsaglia 2003.
#[inline(always)]
fn next_random(state: &mut State) -> u64 {
    let mut x = state.random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    state.random = x;
    x
}

/// A random, locally administered unicast address, `0a:…`: never one of the lab's machines, whose first byte is 02.
#[inline(always)]
fn random_mac(random: u64) -> [u16; 3] {
    [(random as u16 & 0x00ff | 0x0a00).to_be(), (random >> 16) as u16, (random >> 32) as u16]
}
