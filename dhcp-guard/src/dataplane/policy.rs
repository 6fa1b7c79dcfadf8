//! Putting a policy into force: at once, or not at all.
//!
//! See `dhcp_guard_common::layout::policy` for the two banks. Here is the order that makes them safe: no program may still
//! be reading the idle bank when it is written (`grace`), every key must be listed in the filter before it is in its
//! table, and the version comes last.

use std::collections::HashMap;

use aya::maps::{Array, HashMap as BpfHashMap};
use dhcp_guard_common::layout::{Control, HostPolicy, NO_PORT_SLOT, PortKey, PortPolicy, policy_index};

use super::{DataPlane, Error, grace, load::map_mut, spec::Policy};

/// Name of the section, and so of the map, that holds the [`Control`] block.
const CONTROL: &str = ".bss";

/// Which slot each port has. A port keeps its slot, and with it its limiters and counters, from policy to policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    by_key: HashMap<PortKey, u32>,
    /// The highest slot that anybody has, or [`NO_PORT_SLOT`].
    last: u32,
}

impl Slots {
    /// The port's slot: the one it has, or the next.
    fn of(&mut self, key: PortKey) -> u32 {
        let next = self.last + 1;
        let slot = *self.by_key.entry(key).or_insert(next);
        self.last = self.last.max(slot);
        slot
    }

    /// A port has this slot, as it had under an agent before.
    pub(super) fn adopt(&mut self, key: PortKey, slot: u32) {
        self.by_key.insert(key, slot);
        self.last = self.last.max(slot);
    }

    /// The highest slot that anybody has.
    pub(super) fn highest(&self) -> u32 {
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
    /// have are no ports any more; their frames fall to the interface's default port, if there is one.
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
        let taken = policy.ports.iter().map(|port| (slots.of(port.key), port.key)).collect();
        if slots.highest() >= self.slot_capacity {
            return Err(Error::TooManyPorts { wanted: slots.highest(), capacity: self.slot_capacity - 1 });
        }
        self.slots = slots;
        Ok(taken)
    }

    /// Gives a port the slot that it had under an agent before. `false`: there is no such slot in these tables.
    pub(super) fn adopt_slot(&mut self, key: PortKey, slot: u32) -> Result<bool, Error> {
        if slot == NO_PORT_SLOT || slot >= self.slot_capacity {
            return Ok(false);
        }
        self.slots.adopt(key, slot);
        self.list_ports(&[(slot, key)])?;
        Ok(true)
    }

    /// The version in force, under which the program remembers things.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.control.version
    }

    fn write_bank(&mut self, policy: &Policy, slots: &[(u32, PortKey)], bank: u32) -> Result<(), Error> {
        let ticks_per_s = self.ticks_per_s;
        let nobody = no_port();
        let mut values = vec![nobody; self.slots.highest() as usize + 1];
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
