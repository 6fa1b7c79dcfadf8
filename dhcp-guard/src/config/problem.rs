//! What can be wrong with a configuration, and the sentences that say so.

use std::{fmt, io, path::PathBuf};

use crate::{
    actuators::EndpointError,
    human::{count, counted},
    mac::Mac,
};

use super::{ActuatorName, KeyPath};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {reason}; name a file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The file can be read, and is wrong.
    #[error("the configuration {} is not valid: {}", path.display(), sentences(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it, in the order of its lines.
        problems: Vec<Problem>,
    },
}

fn sentences(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, from 1; none: not known, or not from a file.
    pub line: Option<usize>,
    /// The key it is about; empty: the document.
    pub key: KeyPath,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// `line 3: limits.client_burst: 0 is out of range, use 1 to 1,000,000`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}")?;
            if let ProblemKind::Syntax { column, .. } = self.kind {
                write!(f, ", column {column}")?;
            }
            f.write_str(": ")?;
        }
        if !self.key.0.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        self.kind.fmt(f)
    }
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// Not TOML.
    #[error("{message}")]
    Syntax {
        /// Column, from 1.
        column: usize,
        /// The parser's words.
        message: String,
    },
    /// A value of the wrong type, or a key that is missing.
    #[error("{0}")]
    Type(String),
    /// There is no such key.
    #[error("there is no such key{}", did_you_mean(nearest.as_ref()))]
    UnknownKey {
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// A number that is too small or too large.
    #[error("{} is out of range, use {} to {}", count((*value).into()), count((*min).into()), count((*max).into()))]
    OutOfRange {
        /// The number.
        value: u32,
        /// Smallest one permitted.
        min: u32,
        /// Largest one permitted.
        max: u32,
    },
    /// More VLAN tags than the data plane reads.
    #[error("{0} VLAN ids are too many, use at most two, outer first")]
    TooManyVlans(usize),
    /// Not a VLAN id.
    #[error("{0} is not a VLAN id, use 1 to 4094")]
    VlanId(u16),
    /// The kernel would not accept this name for an interface.
    #[error("`{0}` cannot be the name of an interface, use 1 to 15 characters without blanks and slashes")]
    InterfaceName(String),
    /// The interface is listed twice.
    #[error("`{0}` is listed twice, remove one")]
    DuplicateInterface(String),
    /// The port is configured twice.
    #[error("port {port} is configured already, at {first}: remove one")]
    DuplicatePort {
        /// The port's name.
        port: String,
        /// Where it is configured first.
        first: KeyPath,
    },
    /// The client is configured twice.
    #[error("client {mac} on {port} is listed already, at {first}: remove one")]
    DuplicateClient {
        /// The client's MAC.
        mac: Mac,
        /// The port's name.
        port: String,
        /// Where it is listed first.
        first: KeyPath,
    },
    /// The client, or the port, is allowed twice.
    #[error("{} is allowed already, at {first}: remove one", whom(*mac, port))]
    DuplicateAllow {
        /// The client's MAC; none: everybody on the port.
        mac: Option<Mac>,
        /// The port's name.
        port: String,
        /// Where it is allowed first.
        first: KeyPath,
    },
    /// More allowed clients than the kernel has room for.
    #[error("{} clients are too many, use at most {}, or allow whole ports", count(*clients as u64), count(*max as u64))]
    TooManyAllowed {
        /// How many there are.
        clients: usize,
        /// How many there may be.
        max: usize,
    },
    /// A client on a port that nobody has configured.
    #[error("there is no port {0}, add a [[port]] with these VLANs")]
    NoSuchPort(String),
    /// There is no such class.
    #[error("there is no class `{name}`{}", did_you_mean(nearest.as_ref()))]
    UndefinedClass {
        /// The name.
        name: String,
        /// The class that was probably meant.
        nearest: Option<String>,
    },
    /// No client can send from this MAC.
    #[error("{0} cannot be a client's MAC, use a unicast address")]
    NotUnicast(Mac),
    /// More of something than the table for it holds.
    #[error("{} do not fit, raise capacity.{key} (now {}) or configure fewer", counted(*wanted, one), count((*capacity).into()))]
    OverCapacity {
        /// How many there are.
        wanted: u64,
        /// What, in the singular.
        one: &'static str,
        /// The key that sets the capacity.
        key: &'static str,
        /// The capacity.
        capacity: u32,
    },
    /// The path cannot be that of a Unix socket.
    #[error("a socket's path has 1 to 107 bytes, this one has {0}")]
    SocketPath(usize),
    /// The path is empty.
    #[error("this is no folder's path, name one")]
    NoFolder,
    /// The first quarantine would be longer than the longest.
    #[error("{} is more than quarantine.longest_s ({}), lower it or raise the other", count((*first).into()), count((*longest).into()))]
    FirstOverLongest {
        /// Seconds of the first one.
        first: u32,
        /// Seconds of the longest one.
        longest: u32,
    },
    /// No group can have this name.
    #[error("`{}` cannot be the name of a group", .0.escape_debug())]
    GroupName(String),
    /// The group is listed twice.
    #[error("`{0}` is listed twice, remove one")]
    DuplicateGroup(String),
    /// The class lists the actuator twice.
    #[error("`{0}` is listed twice, remove one")]
    DuplicateActuator(ActuatorName),
    /// The class asks for an actuator that has no table.
    #[error("nothing says what `{0}` is to do, add a table [actuator.{0}]")]
    UnconfiguredActuator(ActuatorName),
    /// Not the words of a command.
    #[error("the first word must be the absolute path of a program, no word may hold NUL")]
    Argv,
    /// Not an address that the webhook can use.
    #[error("{0}")]
    Url(EndpointError),
}

impl ProblemKind {
    /// Whether it is about a single value, whatever the others are.
    pub(super) fn is_of_one_value(&self) -> bool {
        matches!(
            self,
            Self::OutOfRange { .. }
                | Self::TooManyVlans(_)
                | Self::VlanId(_)
                | Self::InterfaceName(_)
                | Self::NotUnicast(_)
                | Self::SocketPath(_)
                | Self::NoFolder
                | Self::GroupName(_)
                | Self::Argv
                | Self::Url(_)
        )
    }
}

fn whom(mac: Option<Mac>, port: &str) -> String {
    mac.map_or_else(|| format!("everybody on {port}"), |mac| format!("client {mac} on {port}"))
}

fn did_you_mean(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean `{name}`?"))
}
