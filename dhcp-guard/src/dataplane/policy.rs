//! Putting a policy into force: at once, or not at all.
//!
//! See `dhcp_guard_common::layout::policy` for the two banks. Here is the order that makes them safe: no program may still
//! be reading the idle bank when it is written (`grace`), every key must be listed in the filter before it is in its
//! table, and the version comes last.

use std::collections::{HashMap, HashSet, VecDeque};

use aya::maps::{Array, HashMap as BpfHashMap};
use dhcp_guard_common::layout::{Control, HostPolicy, NO_PORT_SLOT, PortKey, PortPolicy, policy_index};

use super::{DataPlane, Error, grace, load::map_mut, spec::Policy};

/// Name of the section, and so of the map, that holds the [`Control`] block.
const CONTROL: &str = ".bss";

/// Which slot each port has. A port keeps its slot, and with it its limiters and counters, from policy to policy, until it is
/// [retired](DataPlane::retire).
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    by_key: HashMap<PortKey, u32>,
    /// Slots of ports that are gone, those that have been free for longest first.
    free: VecDeque<u32>,
    /// The same, of ports that a CPU still remembers packets of: they would be counted for a client of the next port that has
    /// the same MAC. So these come last, when there are no others.
    remembered: VecDeque<u32>,
    /// The highest slot that any port ever had.
    last: u32,
}

impl Slots {
    /// The port's slot: the one it has, or one that is free, or the next, as far as there are so many.
    fn of(&mut self, key: PortKey, capacity: u32) -> u32 {
        let Self { by_key, free, remembered, last } = self;
        *by_key.entry(key).or_insert_with(|| {
            let is_full = *last + 1 >= capacity;
            let used_before = free.pop_front().or_else(|| if is_full { remembered.pop_front() } else { None });
            used_before.unwrap_or_else(|| {
                // From the slot that nobody has.
                *last += 1;
                *last
            })
        })
    }

    /// Ports have these slots, as they had under an agent before. Those between them are free.
    pub(super) fn adopt(&mut self, ports: &[(PortKey, u32)]) {
        self.by_key.extend(ports.iter().copied());
        self.last = ports.iter().map(|(_, slot)| *slot).max().unwrap_or(NO_PORT_SLOT);
        let taken: HashSet<u32> = self.by_key.values().copied().collect();
        // What CPUs remember of them is not known: last, then.
        self.remembered = (NO_PORT_SLOT + 1..=self.last).filter(|slot| !taken.contains(slot)).collect();
    }

    /// Frees the slot of a port that is gone for good.
    pub(super) fn release(&mut self, key: PortKey) {
        self.remembered.extend(self.by_key.remove(&key));
    }

    /// Of the free slots only these are remembered by any CPU.
    pub(super) fn remembered_are(&mut self, slots: &HashSet<u32>) {
        let (remembered, forgotten) = self.remembered.iter().partition(|slot| slots.contains(slot));
        self.remembered = remembered;
        self.free.extend::<VecDeque<u32>>(forgotten);
    }

    /// Ports that have a slot.
    fn len(&self) -> u32 {
        u32::try_from(self.by_key.len()).unwrap_or(u32::MAX)
    }

    /// The highest slot that any port ever had: no more of the maps is in use.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PortKey, u32)> {
        self.by_key.iter().map(|(key, slot)| (*key, *slot))
    }

    pub(super) fn get(&self, key: PortKey) -> Option<u32> {
        self.by_key.get(&key).copied()
    }
}

impl DataPlane {
    /// Puts a policy into force as a whole: every packet meets either the old one or this one. Ports that it does not
    /// have are no ports any more; their frames fall to the interface's default port, if there is one. They keep their slots
    /// until [`DataPlane::retire`].
    ///
    /// Takes some milliseconds, because it waits for programs that may still be reading the policy before the last.
    ///
    /// # Errors
    /// [`Error::TooManyPorts`], and [`Error::Map`] if the kernel refuses to write a map. The old policy stays in force.
    pub fn apply(&mut self, policy: &Policy) -> Result<(), Error> {
        let slots = self.take_slots(policy)?;
        let version = Control::next_policy(self.control.version);
        let bank = Control::bank(version);
        grace::wait();
        self.write_bank(policy, &slots, bank)?;
        self.list_ports(&slots)?;
        self.set_control(Control { version, ..self.control })?;
        let trusted = slots.iter().zip(&policy.ports).filter(|(_, port)| port.trusted);
        self.trusted = trusted.map(|((slot, _), _)| *slot).collect();
        Ok(())
    }

    /// The slot of each of the policy's ports. If they do not fit, nobody gets one: a smaller policy still may.
    fn take_slots(&mut self, policy: &Policy) -> Result<Vec<(u32, PortKey)>, Error> {
        let mut slots = self.slots.clone();
        let taken = policy.ports.iter().map(|port| (slots.of(port.key, self.slot_capacity), port.key)).collect();
        if slots.len() >= self.slot_capacity {
            return Err(Error::TooManyPorts { wanted: slots.len(), capacity: self.slot_capacity - 1 });
        }
        self.slots = slots;
        Ok(taken)
    }

    /// Gives ports the slots that they had under an agent before, as far as these tables have them.
    pub(super) fn adopt_slots(&mut self, ports: &[(PortKey, u32)]) -> Result<(), Error> {
        let slots = NO_PORT_SLOT + 1..self.slot_capacity;
        let ports: Vec<(PortKey, u32)> = ports.iter().copied().filter(|(_, slot)| slots.contains(slot)).collect();
        self.slots.adopt(&ports);
        let listed: Vec<(u32, PortKey)> = ports.into_iter().map(|(key, slot)| (slot, key)).collect();
        self.list_ports(&listed)
    }

    /// The version in force, under which the program remembers things.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.control.version
    }

    fn write_bank(&mut self, policy: &Policy, slots: &[(u32, PortKey)], bank: u32) -> Result<(), Error> {
        let ticks_per_s = self.ticks_per_s;
        let nobody = no_port();
        let mut values = vec![nobody; self.slots.last() as usize + 1];
        for ((slot, _), port) in slots.iter().zip(&policy.ports) {
            values[*slot as usize] = port.policy(ticks_per_s);
        }
        let mut policies: Array<_, PortPolicy> = map_mut(&mut self.ebpf, "POLICIES")?;
        for (slot, value) in (NO_PORT_SLOT..).zip(&values) {
            policies.set(policy_index(slot, bank), value, 0).map_err(Error::map("write", "POLICIES"))?;
        }
        let mut host: Array<_, HostPolicy> = map_mut(&mut self.ebpf, "HOST_POLICIES")?;
        host.set(bank, policy.host.policy(ticks_per_s), 0).map_err(Error::map("write", "HOST_POLICIES"))
    }

    fn list_ports(&mut self, slots: &[(u32, PortKey)]) -> Result<(), Error> {
        for (_, key) in slots {
            self.list(key.listed_as());
        }
        let mut ports: BpfHashMap<_, PortKey, u32> = map_mut(&mut self.ebpf, "PORTS")?;
        for (slot, key) in slots {
            ports.insert(key, slot, 0).map_err(Error::map("write", "PORTS"))?;
        }
        Ok(())
    }

    /// Writes the control block, and with it decides what the program does from the next packet on.
    pub(super) fn set_control(&mut self, control: Control) -> Result<(), Error> {
        let mut block: Array<_, Control> = map_mut(&mut self.ebpf, CONTROL)?;
        // The kernel copies word by word, the version first. Whoever saw the new version must not miss what comes with it,
        // and remember what is wrong under it: so all else is there before.
        for version in [self.control.version, control.version] {
            block.set(0, Control { version, ..control }, 0).map_err(Error::map("write", CONTROL))?;
        }
        self.control = control;
        Ok(())
    }
}

/// The policy of a slot whose port is not in force.
fn no_port() -> PortPolicy {
    let none = super::spec::PortSpec {
        key: PortKey::default_of(0),
        total: (1, 1),
        strangers: (1, 1),
        discover: None,
        new_clients: (1, 1),
        client_v4: (1, 1),
        client_v6: (1, 1),
        trusted: false,
        monitor: false,
        allowed: false,
        drop_chaddr_mismatch: false,
    };
    PortPolicy { flags: 0, ..none.policy(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_kept_and_given_again_the_oldest_first() {
        let mut slots = Slots::default();
        let of = |slots: &mut Slots, ifindex| slots.of(PortKey::default_of(ifindex), 6);
        assert_eq!([1, 2, 3, 2].map(|ifindex| of(&mut slots, ifindex)), [1, 2, 3, 2]);
        [3, 1, 77].into_iter().for_each(|ifindex| slots.release(PortKey::default_of(ifindex)));
        slots.remembered_are(&HashSet::new());
        assert_eq!((slots.len(), slots.last()), (1, 3));
        assert_eq!([4, 2, 5, 6].map(|ifindex| of(&mut slots, ifindex)), [3, 2, 1, 4]);
        assert_eq!((slots.len(), slots.last()), (4, 4));
        // Slots that are remembered come last.
        [4, 5].into_iter().for_each(|ifindex| slots.release(PortKey::default_of(ifindex)));
        slots.remembered_are(&HashSet::from([1, 3, 9]));
        assert_eq!([7, 8].map(|ifindex| of(&mut slots, ifindex)), [5, 3]);
        slots.release(PortKey::default_of(7));
        slots.remembered_are(&HashSet::from([1]));
        assert_eq!([9, 10, 11].map(|ifindex| of(&mut slots, ifindex)), [5, 1, 6], "and then there are no more");
    }

    #[test]
    fn three_thousand_ports_that_come_and_go_need_no_more_slots_than_are_there_at_once() {
        let mut slots = Slots::default();
        for cycle in 0..1000 {
            let ports = [0, 1, 2].map(|n| PortKey::default_of(cycle * 3 + n));
            assert!(ports.map(|port| slots.of(port, 100)).iter().all(|slot| (1..=3).contains(slot)));
            ports.into_iter().for_each(|port| slots.release(port));
            slots.remembered_are(&HashSet::new());
        }
        assert_eq!((slots.len(), slots.free.len(), slots.last()), (0, 3, 3));
    }
}
