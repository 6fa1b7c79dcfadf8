//! What `doctor --json` answers. It is not asked of the agent: the command finds out by itself.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How much a finding matters. In this order, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Packets that should be judged are not, or not as the configuration says.
    Blind,
    /// The guard works, and less well than it could.
    Weak,
    /// Good to know.
    Info,
    /// Looked at, and as it should be.
    Ok,
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Subject {
    /// This machine.
    Host,
    /// A guarded interface, by name.
    Interface(String),
    /// A file or folder, by path.
    File(String),
}

/// One row of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check it is of, the same in every version: `vlan_offload`.
    pub id: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about.
    pub subject: Subject,
    /// What is so, in one sentence without its end.
    pub what: String,
    /// What to do, with the exact command; none where nothing has to be done.
    pub remedy: Option<String>,
}

impl Finding {
    /// What it is about, what is so and what to do, in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let about = match &self.subject {
            Subject::Host => String::new(),
            Subject::Interface(name) => format!("interface {name}: "),
            Subject::File(path) => format!("{path}: "),
        };
        let remedy = self.remedy.as_ref().map_or_else(String::new, |remedy| format!("; {remedy}"));
        format!("{about}{}{remedy}", self.what)
    }
}

/// `doctor --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkup {
    /// When the host was looked at.
    pub as_of: Timestamp,
    /// Version of the command.
    pub version: String,
    /// Findings of severity `blind`.
    pub blind: u64,
    /// Findings of severity `weak`.
    pub weak: u64,
    /// All findings, worst first.
    pub findings: Vec<Finding>,
}
