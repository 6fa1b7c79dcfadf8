//! Loading the program and writing what it is to enforce.

use std::{
    collections::HashMap as StdHashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    mem::offset_of,
    path::Path,
    sync::atomic::Ordering,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, RingBuf},
    programs::Xdp,
};
use dhcp_guard_common::{
    hash::Seeds,
    layout::{
        Bucket, ClientKey, ClientRule, Control, Event, Head, LAYOUT_VERSION, META_FORMAT, Meta, NO_PORT_SLOT, Places,
        PortState, WAYS,
    },
};

use log::warn;

use super::{
    Error, OBJECT,
    attach::{self, Attachment},
    carried::Carried,
    clock, features,
    heritage::Copied,
    hook::Hook,
    interface::{self, Interface},
    mapped::Mapped,
    pins::{LinkPin, PinFolder},
    policy::Slots,
    reading,
    replies::Watched,
    spec::Spec,
    state_maps::{self, META, Maps},
};

/// Where the number of a program is in the versions of its policies.
const PROGRAM_SHIFT: u32 = 32;

/// Name of the XDP program, in the object and in the kernel.
pub const PROGRAM: &str = "dhcp_guard";

/// A port's slot, from its place in the first policy's ports.
#[must_use]
pub fn slot_of(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX).saturating_add(NO_PORT_SLOT + 1)
}

/// An item of the event buffer; None if it is something else.
#[must_use]
pub fn decode_event(item: &[u8]) -> Option<Event> {
    if item.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: the length is right, and Event is plain integers without padding; the buffer's alignment does not matter
    // to read_unaligned.
    Some(unsafe { item.as_ptr().cast::<Event>().read_unaligned() })
}

/// The loaded program and its maps.
#[derive(Debug)]
pub struct DataPlane {
    pub(super) ebpf: Ebpf,
    pub(super) ticks_per_s: u32,
    pub(super) seeds: Seeds,
    /// Slots of the maps, the one that nobody has included.
    pub(super) slot_capacity: u32,
    pub(super) slots: Slots,
    /// As last written.
    pub(super) control: Control,
    /// As last written: only this process writes rules.
    pub(super) rules: StdHashMap<ClientKey, ClientRule>,
    /// What rules, and the quarantines of ports, are made from.
    pub(super) carried: Carried,
    /// Slots of the trusted ports in force.
    pub(super) trusted: Vec<u32>,
    pub(super) watched: Watched,
    pub(super) replies: Mapped<u64>,
    pub(super) port_states: Mapped<PortState>,
    pub(super) strangers: Mapped<Bucket>,
    pub(super) strangers_bits: u32,
    pub(super) heads: Mapped<Head>,
    pub(super) heads_bits: u32,
    pub(super) meta: Mapped<Meta>,
    pub(super) maps: Maps,
    /// What was brought over from other maps, until the programs have changed places.
    pub(super) copied: Option<Copied>,
}

/// Sizes of the maps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) slots: u32,
    pub(super) known: u32,
    pub(super) rules: u32,
    pub(super) strangers_bits: u32,
    pub(super) heads_bits: u32,
}

/// Most clients with a rule: in quarantine, or on the allowlist.
const MAX_RULES: u32 = 4096;
/// Keys that user space may list, for each head. Each sets one of the head's 64 bits, so with two of them one in 32 keys
/// that are not listed looks as if it were, when all tables are full. Bits are never cleared: where clients come and go for
/// years, more of them look so, and lose the short way, no more.
const LISTED_PER_HEAD: u64 = 2;

impl Sizes {
    fn of(spec: &Spec) -> Self {
        // One more than there are ports: slot 0 is nobody's.
        let slots = slot_of(spec.policy.ports.len().max(spec.port_capacity as usize));
        let known = spec.known_capacity.max(1);
        let keys = u64::from(slots) + u64::from(known) + u64::from(MAX_RULES);
        let buckets = u64::from(spec.stranger_capacity).div_ceil(WAYS as u64);
        Self {
            slots,
            known,
            rules: MAX_RULES,
            strangers_bits: power_of_two_for(buckets),
            // As many as there are buckets, or the tags of entries would displace each other.
            heads_bits: power_of_two_for(buckets.max(keys / LISTED_PER_HEAD)),
        }
    }
}

/// The smallest power of two that is at least `count`, between 2^1 and 2^20.
fn power_of_two_for(count: u64) -> u32 {
    count.next_power_of_two().trailing_zeros().clamp(1, 20)
}

impl DataPlane {
    /// Loads the program with maps of its own, which end with it, and puts `spec` into force. Nothing is attached yet.
    ///
    /// # Errors
    /// Those of [`check_kernel`], [`Error::Load`], [`Error::Map`].
    pub fn load(spec: &Spec) -> Result<Self, Error> {
        check_kernel()?;
        Self::with_maps(spec, Maps::unpinned())
    }

    /// The same with maps that outlive it: those that an agent before this one has left in the folder, if they fit, or else
    /// new ones with all that must not be lost. Until [`DataPlane::stays`] is called, whatever is on an interface goes on
    /// as it was.
    ///
    /// # Errors
    /// As above, and [`Error::Pins`]. Whatever judges packets goes on as it did.
    pub fn load_pinned(spec: &Spec, pins: PinFolder) -> Result<Self, Error> {
        check_kernel()?;
        let maps = Maps::choose(pins, &Sizes::of(spec), clock::ticks_per_s())?;
        Self::with_maps(spec, maps)
    }

    fn with_maps(spec: &Spec, maps: Maps) -> Result<Self, Error> {
        let ticks_per_s = clock::ticks_per_s();
        let seeds = maps.seeds.unwrap_or_else(random_seeds);
        let sizes = Sizes::of(spec);
        let mut ebpf = load_object(&sizes, seeds, ticks_per_s, spec.debug_kernel, &maps)?;
        for name in [PROGRAM, "read_clock"] {
            program_mut(&mut ebpf, name)?.load().map_err(Error::program("verifying it"))?;
        }
        let mut plane = Self {
            ticks_per_s,
            seeds,
            slot_capacity: sizes.slots,
            slots: Slots::default(),
            control: Control::default(),
            rules: StdHashMap::new(),
            carried: Carried::default(),
            trusted: Vec::new(),
            watched: Watched::default(),
            replies: Mapped::of(ebpf.map("REPLIES"), "REPLIES")?,
            port_states: Mapped::of(ebpf.map("PORT_STATES"), "PORT_STATES")?,
            strangers: Mapped::of(ebpf.map("STRANGERS"), "STRANGERS")?,
            strangers_bits: sizes.strangers_bits,
            heads: Mapped::of(ebpf.map("HEADS"), "HEADS")?,
            heads_bits: sizes.heads_bits,
            meta: Mapped::of(ebpf.map(META), META)?,
            copied: None,
            maps,
            ebpf,
        };
        plane.describe_maps();
        if plane.maps.reused {
            plane.take_over()?;
        } else if let Some(found) = plane.maps.heritage.clone() {
            let mut problems = plane.inherit(&found);
            plane.maps.warnings.append(&mut problems);
        }
        plane.apply(&spec.policy)?;
        let mut problems = plane.name_clients(spec);
        plane.maps.warnings.append(&mut problems);
        Ok(plane)
    }

    /// Says in new maps what they are, and in all of them that there is another program: its versions begin beyond all
    /// those that anything in the maps was remembered under.
    fn describe_maps(&mut self) {
        let word = |offset: usize| &self.meta.words(0)[offset / 8];
        if !self.maps.reused {
            let own = Meta {
                format: META_FORMAT,
                layout: LAYOUT_VERSION.into(),
                seeds: self.seeds.0,
                ticks_per_s: self.ticks_per_s.into(),
                places: Places::OWN,
                ..Meta::default()
            };
            self.meta.write(0, &own);
        }
        let programs = word(offset_of!(Meta, programs)).fetch_add(1, Ordering::AcqRel) + 1;
        self.control.version = programs << PROGRAM_SHIFT;
    }

    /// Takes over maps of this very layout: the slots that ports have, and the rules there are.
    fn take_over(&mut self) -> Result<(), Error> {
        self.adopt_slots(&reading::ports(self.map_data("PORTS")?)?)?;
        self.rules = reading::rules(self.map_data("RULES")?)?;
        // Interfaces that went while nobody looked: their slots may be needed for those that came.
        self.give_up(|port| interface::is_gone(port.ifindex)).map(drop)
    }

    /// The programs are on their interfaces: these maps stay, whatever happens to this process, and those of an agent before
    /// it go.
    ///
    /// # Errors
    /// [`Error::Map`]: the host's budget could not be settled.
    pub fn stays(&mut self) -> Result<(), Error> {
        let settled = self.stays_beside_others();
        self.maps.remove_others();
        settled
    }

    /// The same where the programs are on some of their interfaces only. On the others those of an agent before it go on,
    /// with its maps.
    ///
    /// # Errors
    /// As above. They stay all the same.
    pub fn stays_beside_others(&mut self) -> Result<(), Error> {
        self.maps.kept = true;
        let settled = self.settle();
        // Times can be told without an agent.
        let told = self.tell_of_agent();
        self.meta.words(0)[offset_of!(Meta, complete) / 8].store(1, Ordering::Release);
        settled.and(told)
    }

    /// The programs are on no interface any more: new maps go with this.
    pub fn goes(&mut self) {
        self.maps.kept = self.maps.reused || !self.is_pinned();
    }

    /// Says in the maps that there is an agent now.
    ///
    /// # Errors
    /// The kernel refuses to tell its ticks.
    pub fn tell_of_agent(&mut self) -> Result<(), Error> {
        let ticks = self.ticks()?;
        self.beat(ticks);
        Ok(())
    }

    /// Whether an agent was here before, and left complete maps, since the host was started: whatever of them could be used.
    #[must_use]
    pub fn has_predecessor(&self) -> bool {
        self.maps.reused || self.maps.heritage.is_some()
    }

    /// Whether everything outlives this process.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.maps.pins.is_some()
    }

    /// Where what outlives this process is pinned; none: nothing does.
    #[must_use]
    pub fn pin_dir(&self) -> Option<&Path> {
        self.maps.pins.as_ref().map(PinFolder::dir)
    }

    /// The pinned links.
    #[must_use]
    pub fn pinned_links(&self) -> Vec<LinkPin> {
        let links = self.maps.pins.as_ref().map_or_else(|| Ok(Vec::new()), PinFolder::links);
        links.inspect_err(|error| warn!("cannot look for pinned links: {error}")).unwrap_or_default()
    }

    /// What could not be taken over from an agent before, one sentence each.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.maps.warnings)
    }

    /// Says in the maps that there is an agent, at this tick.
    pub fn beat(&self, ticks: u64) {
        let words = self.meta.words(0);
        words[offset_of!(Meta, heartbeat) / 8].store(ticks, Ordering::Relaxed);
        let now = u64::try_from(clock::monotonic().as_nanos()).unwrap_or(u64::MAX);
        words[offset_of!(Meta, heartbeat_ns) / 8].store(now, Ordering::Relaxed);
    }

    /// Attaches the program to an interface. Where the pins are gone and cannot be made again, a guard that ends with its agent
    /// is better than none.
    ///
    /// # Errors
    /// See [`attach::attach`].
    pub fn attach(&mut self, interface: Interface, hook: Hook) -> Result<Attachment, Error> {
        let pins = self.maps.pins.as_mut().and_then(|pins| pins.restore().is_ok().then_some(&*pins));
        let attachment = attach::attach(&mut self.ebpf, interface, hook, pins)?;
        // From here on they are in use, and whatever fails must not take their names.
        self.maps.kept = true;
        Ok(attachment)
    }

    /// The program, for running it on test packets.
    ///
    /// # Errors
    /// [`Error::Load`] if the object has no such program.
    pub fn program(&mut self) -> Result<&mut Xdp, Error> {
        program_mut(&mut self.ebpf, PROGRAM)
    }

    /// The kernel's events. None if somebody has taken them before.
    pub fn take_events(&mut self) -> Option<RingBuf<MapData>> {
        RingBuf::try_from(self.ebpf.take_map("EVENTS")?).ok()
    }

    /// The loaded object, for the kernel-side log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn load_object(sizes: &Sizes, seeds: Seeds, ticks_per_s: u32, debug_kernel: bool, maps: &Maps) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    if let Some(generation) = &maps.generation {
        for name in state_maps::names() {
            loader.map_pin_path(name, generation.map(name));
        }
    }
    for (name, entries) in state_maps::entries(sizes) {
        loader.map_max_entries(name, entries);
    }
    // In two banks.
    loader.map_max_entries("POLICIES", 2 * sizes.slots);
    let hz = u64::from(ticks_per_s);
    // aya-log's levels: 0 is none, 4 is debug. The verifier removes what a level leaves out.
    let log_level: u8 = if debug_kernel { 4 } else { 0 };
    loader
        .override_global("TICKS_PER_S", &hz, true)
        .override_global("SEED_A", &seeds.0[0], true)
        .override_global("SEED_B", &seeds.0[1], true)
        .override_global("STRANGERS_BITS", &sizes.strangers_bits, true)
        .override_global("HEADS_BITS", &sizes.heads_bits, true)
        .override_global("AYA_LOG_LEVEL", &log_level, true);
    loader.load(OBJECT).map_err(Error::load("loading its maps"))
}

/// Multipliers that nobody outside can guess. The standard library's hasher has keys from the operating system.
fn random_seeds() -> Seeds {
    let random = || RandomState::new().build_hasher().finish();
    Seeds::new([random(), random()])
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    ebpf.program_mut(name).ok_or(Error::NoProgram)?.try_into().map_err(Error::program("finding it"))
}

pub(super) fn map_mut<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<T, Error>
where
    T: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.map_mut(name).ok_or(Error::ForeignMap(name))?;
    T::try_from(map).map_err(Error::map("open", name))
}

/// The capabilities that loading and attaching take, and that this process has not.
#[must_use]
pub fn missing_capabilities() -> Vec<String> {
    use caps::{CapSet, Capability};
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON]
        .into_iter()
        .filter(|cap| !caps::has_cap(None, CapSet::Effective, *cap).unwrap_or(false))
        .map(|cap| cap.to_string())
        .collect()
}

/// Says in one sentence what is missing, before the kernel says it in a page.
///
/// # Errors
/// [`Error::Capabilities`], [`Error::Kernel`], [`Error::NoBtf`], [`Error::NoProgram`].
pub fn check_kernel() -> Result<(), Error> {
    let missing = missing_capabilities();
    if !missing.is_empty() {
        return Err(Error::Capabilities { missing: missing.join(", ") });
    }
    let release = features::release();
    features::check(&release, &features::all(&release))?;
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(Error::NoBtf);
    }
    if OBJECT.is_empty() {
        return Err(Error::NoProgram);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_large_enough_and_bounded() {
        let sizes = Sizes::of(&Spec { known_capacity: 16_384, stranger_capacity: 65_536, ..Spec::default() });
        assert_eq!((sizes.slots, sizes.strangers_bits, sizes.heads_bits), (1, 14, 14));
        assert_eq!([0, 1, 3, 4, 5, u64::from(u32::MAX)].map(power_of_two_for), [1, 1, 2, 2, 3, 20]);
    }
}
