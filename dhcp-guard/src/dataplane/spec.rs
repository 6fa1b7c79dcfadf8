//! What the data plane is to enforce, in the units of people: packets a second and packets in a burst.

use dhcp_guard_common::{
    gcra::Limit,
    layout::{
        HOST_DROP_ROGUE_SERVERS, HOST_LIMITED, HostPolicy, PORT_ALLOWED, PORT_DROP_CHADDR_MISMATCH,
        PORT_LIMITS_DISCOVER, PORT_MONITOR, PORT_PRESENT, PORT_TRUSTED, PortKey, PortPolicy, Shared,
    },
};

/// A rate limit: packets a second, and packets in a burst.
pub type Rate = (u32, u32);

/// What to load: a policy to begin with, who is known from the start, and how large the tables are.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// What is enforced from the first packet.
    pub policy: Policy,
    /// Clients known from the start, by port and source MAC.
    pub known_clients: Vec<(PortKey, [u8; 6])>,
    /// Clients whose packets always pass, by port and source MAC.
    pub allowed_clients: Vec<(PortKey, [u8; 6])>,
    /// Room for ports.
    pub port_capacity: u32,
    /// Room for known clients.
    pub known_capacity: u32,
    /// Room for strangers.
    pub stranger_capacity: u32,
    /// Kernel-side debug logging.
    pub debug_kernel: bool,
}

/// Everything that comes into force at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// All ports.
    pub ports: Vec<PortSpec>,
    /// All untrusted ports together.
    pub host: HostSpec,
}

/// One port and its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Interface and VLANs.
    pub key: PortKey,
    /// Everything together.
    pub total: Rate,
    /// What strangers may take of it.
    pub strangers: Rate,
    /// What DISCOVERs and Solicits may take of it; `None`: all.
    pub discover: Option<Rate>,
    /// New MACs that get an entry though their packet is dropped.
    pub new_clients: Rate,
    /// Each client's DHCPv4.
    pub client_v4: Rate,
    /// Each client's DHCPv6.
    pub client_v6: Rate,
    /// Only `total` applies.
    pub trusted: bool,
    /// Count, do not drop.
    pub monitor: bool,
    /// Always pass.
    pub allowed: bool,
    /// Drop messages that name another hardware address than their frame.
    pub drop_chaddr_mismatch: bool,
}

/// All untrusted ports together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSpec {
    /// Everything, and what strangers may take of it; `None`: no limit.
    pub limit: Option<(Rate, Rate)>,
    /// Drop servers' messages that come from a port that is not trusted.
    pub drop_rogue_servers: bool,
}

impl PortSpec {
    pub(super) fn policy(&self, ticks_per_s: u32) -> PortPolicy {
        let limit = |(rate, burst)| Limit::new(rate, burst, ticks_per_s);
        let flag = |on, flag| if on { flag } else { 0 };
        PortPolicy {
            total: limit(self.total),
            strangers: Shared::new(limit(self.strangers)),
            discover: self.discover.map(limit).unwrap_or_default(),
            new_clients: limit(self.new_clients),
            client_v4: limit(self.client_v4),
            client_v6: limit(self.client_v6),
            flags: PORT_PRESENT
                | flag(self.trusted, PORT_TRUSTED)
                | flag(self.monitor, PORT_MONITOR)
                | flag(self.allowed, PORT_ALLOWED)
                | flag(self.drop_chaddr_mismatch, PORT_DROP_CHADDR_MISMATCH)
                | flag(self.discover.is_some(), PORT_LIMITS_DISCOVER),
        }
    }
}

impl HostSpec {
    pub(super) fn policy(&self, ticks_per_s: u32) -> HostPolicy {
        let limit = |(rate, burst)| Limit::new(rate, burst, ticks_per_s);
        let rogue = if self.drop_rogue_servers { HOST_DROP_ROGUE_SERVERS } else { 0 };
        match self.limit {
            Some((total, strangers)) => HostPolicy {
                total: limit(total),
                strangers: Shared::new(limit(strangers)),
                flags: rogue | HOST_LIMITED,
            },
            None => HostPolicy { flags: rogue, ..HostPolicy::default() },
        }
    }
}
