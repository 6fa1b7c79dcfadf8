//! Loading the program and writing what it is to enforce.

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, RingBuf},
    programs::Xdp,
};
use dhcp_guard_common::gcra::Limit;
use dhcp_guard_common::layout::{
    ClientKey, ClientState, Event, NO_PORT_SLOT, PORT_MONITOR, PORT_TRUSTED, PortKey, PortPolicy,
};

use super::{
    Error, OBJECT,
    attach::{self, Attachment},
    clock,
    interface::Interface,
};

/// Name of the XDP program, in the object and in the kernel.
pub(super) const PROGRAM: &str = "dhcp_guard";

/// What the data plane is to enforce, and how large its tables are.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// All ports. A port's slot in the maps is its place here plus one.
    pub ports: Vec<PortSpec>,
    /// Clients known from the start: a place in `ports`, and the MAC.
    pub known_clients: Vec<(usize, [u8; 6])>,
    /// Room for ports.
    pub port_capacity: u32,
    /// Room for known clients.
    pub known_capacity: u32,
    /// Room for strangers.
    pub stranger_capacity: u32,
    /// Kernel-side debug logging.
    pub debug_kernel: bool,
}

/// One port and its limits, as packets a second and packets in a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Interface and VLANs.
    pub key: PortKey,
    /// Everything together.
    pub total: (u32, u32),
    /// What strangers may take of it.
    pub strangers: (u32, u32),
    /// New MACs that get an entry though their packet is dropped.
    pub new_clients: (u32, u32),
    /// Each client.
    pub client: (u32, u32),
    /// Only `total` applies.
    pub trusted: bool,
    /// Count, do not drop.
    pub monitor: bool,
}

impl PortSpec {
    fn policy(&self, ticks_per_s: u32) -> PortPolicy {
        let limit = |(rate, burst)| Limit::new(rate, burst, ticks_per_s);
        let flags = if self.trusted { PORT_TRUSTED } else { 0 } | if self.monitor { PORT_MONITOR } else { 0 };
        PortPolicy {
            total: limit(self.total),
            strangers: limit(self.strangers),
            new_clients: limit(self.new_clients),
            client: limit(self.client),
            flags,
        }
    }
}

/// A port's slot, from its place in [`Spec::ports`].
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
    pub(super) interface_mask: u32,
}

impl DataPlane {
    /// Loads the program and writes `spec` into its maps. Nothing is attached yet.
    ///
    /// # Errors
    /// [`Error::NoProgram`], [`Error::Capabilities`], [`Error::NoBtf`], [`Error::Load`], [`Error::Map`].
    pub fn load(spec: &Spec) -> Result<Self, Error> {
        check_kernel()?;
        let ticks_per_s = clock::ticks_per_s();
        let interface_mask = interface_mask(spec.ports.iter().map(|p| p.key.ifindex));
        // One more than there are ports: slot 0 is nobody's.
        let slots = slot_of(spec.ports.len().max(spec.port_capacity as usize));
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("PORTS", slots)
            .map_max_entries("POLICIES", slots)
            .map_max_entries("PORT_STATES", slots)
            .map_max_entries("PORT_COUNTERS", slots)
            .map_max_entries("NON_DHCP", interface_mask + 1)
            .map_max_entries("KNOWN", spec.known_capacity.max(1))
            .map_max_entries("STRANGERS", spec.stranger_capacity.max(1));
        let hz = u64::from(ticks_per_s);
        // aya-log's levels: 0 is none, 4 is debug. The verifier removes what a level leaves out.
        let log_level: u8 = if spec.debug_kernel { 4 } else { 0 };
        loader
            .override_global("TICKS_PER_S", &hz, true)
            .override_global("INTERFACE_MASK", &interface_mask, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true);
        let mut ebpf = loader.load(OBJECT).map_err(Error::load("loading its maps"))?;
        for name in [PROGRAM, "read_clock"] {
            program_mut(&mut ebpf, name)?.load().map_err(Error::program("verifying it"))?;
        }
        let mut plane = Self { ebpf, ticks_per_s, interface_mask };
        plane.write(spec)?;
        Ok(plane)
    }

    /// Attaches the program to an interface.
    ///
    /// # Errors
    /// See [`attach::attach`].
    pub fn attach(&mut self, interface: Interface) -> Result<Attachment, Error> {
        attach::attach(program_mut(&mut self.ebpf, PROGRAM)?, interface)
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

    /// Policies first, then the ports that refer to them.
    fn write(&mut self, spec: &Spec) -> Result<(), Error> {
        let mut policies: Array<_, PortPolicy> = map_mut(&mut self.ebpf, "POLICIES")?;
        for (place, port) in spec.ports.iter().enumerate() {
            let policy = port.policy(self.ticks_per_s);
            policies.set(slot_of(place), policy, 0).map_err(Error::map("write", "POLICIES"))?;
        }
        let mut ports: HashMap<_, PortKey, u32> = map_mut(&mut self.ebpf, "PORTS")?;
        for (place, port) in spec.ports.iter().enumerate() {
            ports.insert(port.key, slot_of(place), 0).map_err(Error::map("write", "PORTS"))?;
        }
        let mut known: HashMap<_, ClientKey, ClientState> = map_mut(&mut self.ebpf, "KNOWN")?;
        for (place, mac) in &spec.known_clients {
            let key = ClientKey::from_mac(slot_of(*place), *mac);
            known.insert(key, ClientState::default(), 0).map_err(Error::map("write", "KNOWN"))?;
        }
        Ok(())
    }
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    ebpf.program_mut(name).ok_or(Error::NoProgram)?.try_into().map_err(Error::program("finding it"))
}

fn map_mut<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<T, Error>
where
    T: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.map_mut(name).ok_or(Error::NoProgram)?;
    T::try_from(map).map_err(Error::map("open", name))
}

/// The smallest mask under which no two of these interfaces share a place in the per-interface counters, within reason.
fn interface_mask(ifindexes: impl Iterator<Item = u32>) -> u32 {
    let mut all: Vec<u32> = ifindexes.collect();
    all.sort_unstable();
    all.dedup();
    (8..=16)
        .map(|bits| (1u32 << bits) - 1)
        .find(|mask| {
            let mut places: Vec<u32> = all.iter().map(|i| i & mask).collect();
            places.sort_unstable();
            places.windows(2).all(|pair| pair[0] != pair[1])
        })
        .unwrap_or(u32::from(u16::MAX))
}

/// Says in one sentence what is missing, before the kernel says it in a page.
///
/// # Errors
/// [`Error::Capabilities`], [`Error::NoBtf`], [`Error::NoProgram`].
pub fn check_kernel() -> Result<(), Error> {
    use caps::{CapSet, Capability};
    let missing: Vec<_> = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON]
        .into_iter()
        .filter(|cap| !caps::has_cap(None, CapSet::Effective, *cap).unwrap_or(false))
        .map(|cap| cap.to_string())
        .collect();
    if !missing.is_empty() {
        return Err(Error::Capabilities { missing: missing.join(", ") });
    }
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
    fn the_interface_mask_separates_the_interfaces() {
        assert_eq!(interface_mask([].into_iter()), 255);
        assert_eq!(interface_mask([3, 4, 4].into_iter()), 255);
        assert_eq!(interface_mask([3, 3 + 256].into_iter()), 511);
        assert_eq!(interface_mask([3, 3 + 65536].into_iter()), 65535, "shared, but bounded");
    }
}
