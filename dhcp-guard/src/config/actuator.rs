//! What a quarantine sets in motion outside the data plane: which actuators there are, and what each needs to know.
//!
//! Nothing here happens unless a port class asks for it with its key `actuators`.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What automatic quarantine may do to a port of a class, and to the clients on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoQuarantine {
    /// Nothing: offenders are policed and reported.
    Off,
    /// Drop their DHCP.
    #[default]
    Mute,
    /// Drop all their frames.
    Isolate,
}

/// An actuator outside the data plane, by the name it has in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActuatorName {
    /// Sets the interface down.
    LinkDown,
    /// Runs a program.
    Command,
    /// Sends an HTTP request.
    Webhook,
}

impl ActuatorName {
    /// As in the configuration and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinkDown => "link_down",
            Self::Command => "command",
            Self::Webhook => "webhook",
        }
    }
}

impl fmt::Display for ActuatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The actuators that need to be told something. `link_down` does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actuators {
    /// The program; none: no class may ask for `command`.
    pub command: Option<Command>,
    /// The endpoint; none: no class may ask for `webhook`.
    pub webhook: Option<Webhook>,
}

/// A program that is run at the beginning and at the end of a quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program's absolute path and its arguments. No shell reads them.
    pub argv: Vec<String>,
    /// Seconds that it may take; 1 to 300.
    #[serde(default = "command_timeout_s")]
    pub timeout_s: u32,
}

/// An endpoint that is told about the beginning and the end of a quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// `http://HOST[:PORT][/PATH]`.
    pub url: String,
    /// File with the secret that requests are signed with; none: they are not signed.
    pub secret_file: Option<PathBuf>,
    /// Seconds that one attempt may take; 1 to 60.
    #[serde(default = "webhook_timeout_s")]
    pub timeout_s: u32,
    /// Attempts, the first included; 1 to 10.
    #[serde(default = "webhook_attempts")]
    pub attempts: u32,
}

fn command_timeout_s() -> u32 {
    10
}

fn webhook_timeout_s() -> u32 {
    5
}

fn webhook_attempts() -> u32 {
    4
}
