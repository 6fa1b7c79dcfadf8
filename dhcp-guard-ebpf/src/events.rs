//! State changes, told to the agent: never one for each packet, and never more than the CPU's budget.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use dhcp_guard_common::{
    gcra::{self, Decision, GRAIN_BITS, Limit, Word as _},
    layout::{ClientKey, Event, PortKey, QUIET_S, UNATTENDED_S},
};

use crate::{
    atomic::Shared,
    clock::{self, Now},
    count, maps,
};

/// Events a second that one CPU may send, as a power of two, and how many at once.
const RATE_BITS: u32 = 6;
const BURST: u64 = 128;

/// Sets a mark to now, and says whether that is a state change: it never was set, or not for [`QUIET_S`].
///
/// At most one write a tick, so that a flood on many CPUs does not fight for the cache line.
#[inline(always)]
pub(crate) fn mark(mark: Shared, now: Now) -> bool {
    let before = mark.load();
    if before == now.ticks {
        return false;
    }
    mark.store(now.ticks);
    // Another CPU may have a later tick already; that is no news.
    now.ticks.saturating_sub(before) > QUIET_S * clock::ticks_per_s()
}

/// [`mark`], which also says so if it is somebody else than was told of last (`told`: who, and when), and that is
/// [`QUIET_S`] ago: a steady one must not hide those that come after it, and many in turn must not become one event for
/// each packet.
#[inline(always)]
pub(crate) fn mark_who(last: Shared, told: [Shared; 2], who: u64, now: Now) -> bool {
    let [told_of, told_at] = told;
    let is_another =
        told_of.load() != who && now.ticks.saturating_sub(told_at.load()) >= QUIET_S * clock::ticks_per_s();
    if is_another {
        told_of.store(who);
        told_at.store(now.ticks);
    }
    mark(last, now) || is_another
}

/// Sends an event.
#[inline(always)]
pub(crate) fn send(kind: u32, slot: u32, client: ClientKey, port: PortKey, ticks: u64) {
    dhcp_guard_send_event(kind, slot, client.0, port.word(), ticks);
}

/// A global function: the verifier looks at it once, and not again for every place and state it is called from.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dhcp_guard_send_event(kind: u32, slot: u32, client: u64, port: u64, ticks: u64) -> u32 {
    if !within_budget(ticks) {
        count::trouble(|t| &mut t.events_suppressed);
        return 0;
    }
    if is_unattended(ticks) {
        count::trouble(|t| &mut t.events_unheard);
    }
    let port = PortKey::from_word(port);
    log_event(kind, ClientKey(client), port);
    match maps::EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(Event { kind, slot, at: ticks, client, port });
            entry.submit(0);
            1
        }
        None => {
            count::trouble(|t| &mut t.events_lost);
            0
        }
    }
}

/// Whether the agent's latest word is so old that there can be none. One that has yet to say its first word is there: it has
/// just loaded this.
#[inline(always)]
fn is_unattended(ticks: u64) -> bool {
    let Some(meta) = maps::META.get_ptr(0) else { return false };
    // SAFETY: a word of a map value that user space may change at any time; volatile, so that it is one load.
    let heartbeat = unsafe { (&raw const (*meta).heartbeat).read_volatile() };
    heartbeat != 0 && ticks.saturating_sub(heartbeat) > UNATTENDED_S * clock::ticks_per_s()
}

/// Kernel-side debug log. Off by default: user space sets the log level at load, and the verifier then removes this.
#[inline(always)]
fn log_event(kind: u32, client: ClientKey, port: PortKey) {
    // The logger wants a context to name a program type, and never looks into it.
    let ctx = XdpContext::new(core::ptr::null_mut());
    debug!(
        &ctx,
        "event {}: ifindex {} vlans {}.{} client {:x}", kind, port.ifindex, port.outer_vlan, port.inner_vlan, client.0
    );
}

#[inline(always)]
fn within_budget(ticks: u64) -> bool {
    let Some(troubles) = maps::TROUBLES.get_ptr_mut(0) else { return false };
    let interval = clock::ticks_per_s() << (GRAIN_BITS - RATE_BITS);
    let limit = Limit { interval, tolerance: interval * (BURST - 1) };
    // SAFETY: a per-CPU value that only this CPU changes.
    let word = unsafe { &mut (*troubles).event_budget };
    match gcra::decide(*word, ticks << GRAIN_BITS, &limit) {
        Decision::Conforms(next) => {
            *word = next;
            true
        }
        Decision::ExceedsUntil(_) => false,
    }
}
