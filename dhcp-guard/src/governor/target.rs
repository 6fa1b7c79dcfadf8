//! Who can be in quarantine, in names that outlive a restart: slots and interface indexes do not.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{config::port_name, mac::Mac, who::Behind};

/// A port by its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortName {
    /// Interface name.
    pub interface: String,
    /// VLAN ids, outer first.
    pub vlans: Vec<u16>,
}

/// A client on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientName {
    /// It sends for itself, from this MAC.
    Mac(Mac),
    /// It is behind a relay.
    Behind(Behind),
}

/// A port, or a client on it. Never a MAC on its own: a source address can be forged, a port cannot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// The port.
    pub port: PortName,
    /// The client; none: everybody on the port.
    pub client: Option<ClientName>,
}

/// What one decision is about: all ports and clients on this host that are one machine's. It counts as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// The inventory's server id; none: it is not in it.
    pub machine: Option<String>,
    /// Sorted, without duplicates. The governor refuses a target without any.
    pub subjects: Vec<Subject>,
    /// 0, but where a start found that the same subjects are in more than one quarantine, such as an hour's mute and five
    /// minutes' isolation: then what tells them apart.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beside: u8,
}

/// As serde wants it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Subject {
    /// The source MAC of its frames; none: a whole port, or behind a relay.
    #[must_use]
    pub fn source(&self) -> Option<Mac> {
        match self.client {
            Some(ClientName::Mac(mac)) => Some(mac),
            _ => None,
        }
    }
}

impl Target {
    /// One machine's ports and clients.
    #[must_use]
    pub fn new(machine: Option<String>, mut subjects: Vec<Subject>) -> Self {
        subjects.sort();
        subjects.dedup();
        Self { machine, subjects, beside: 0 }
    }

    /// One port or client that is nobody's in particular.
    #[must_use]
    pub fn one(subject: Subject) -> Self {
        Self { machine: None, subjects: vec![subject], beside: 0 }
    }

    /// Whether a whole port is in it.
    #[must_use]
    pub fn has_port(&self) -> bool {
        self.subjects.iter().any(|subject| subject.client.is_none())
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&port_name(&self.interface, &self.vlans))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client {
            None => write!(f, "port {}", self.port),
            Some(ClientName::Mac(mac)) => write!(f, "client {mac} on port {}", self.port),
            Some(ClientName::Behind(behind)) => write!(f, "client {} on port {}", behind.who(), self.port),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.machine, self.subjects.as_slice()) {
            (Some(machine), [subject]) => write!(f, "{subject} (machine {machine})"),
            (Some(machine), subjects) => write!(f, "machine {machine} ({} ports and clients)", subjects.len()),
            (None, [subject]) => subject.fmt(f),
            (None, subjects) => write!(f, "{} ports and clients", subjects.len()),
        }
    }
}
