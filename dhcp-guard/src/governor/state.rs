//! What there is: quarantines, hold, allowlist; and how it changes.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Subject, Target};

/// Which frames are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sanction {
    /// DHCP.
    #[default]
    Mute,
    /// All.
    Isolate,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// The decision engine.
    Engine,
    /// Somebody, through the control API.
    Person {
        /// As the kernel says.
        uid: u32,
        /// The uid's name, if it has one.
        user: Option<String>,
        /// As the kernel says.
        pid: Option<i32>,
    },
}

/// A quarantine. Times are those of the governor's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Its number; never used again.
    pub id: u64,
    /// Who.
    pub target: Target,
    /// What.
    pub sanction: Sanction,
    /// Who decided it.
    pub author: Author,
    /// Why: one sentence.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when, whatever happens.
    pub until: Timestamp,
    /// That it lasts so long, a start found in the maps, and not who had said so: it may have been a person, so it lasts as
    /// long as a person's may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    /// How many the target had before, as far as they are remembered.
    pub repeat: u32,
}

/// Automatic quarantine is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who said so.
    pub author: Author,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// An entry of the allowlist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Who said so.
    pub author: Author,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; none: for good.
    pub until: Option<Timestamp>,
}

/// Everything that can be changed. Each machine has at most one quarantine, but for what a start finds (see
/// [`Target::beside`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By target.
    pub quarantines: BTreeMap<Target, Quarantine>,
    /// None: automation works.
    pub hold: Option<Hold>,
    /// By subject.
    pub allowed: BTreeMap<Subject, Allowance>,
    /// The number of the next quarantine.
    pub next_id: u64,
}

/// One place of the state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The quarantine of this target.
    Quarantine(Target),
    /// The hold.
    Hold,
    /// What is allowed to this subject.
    Allowed(Subject),
}

/// What can be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// In [`State::quarantines`].
    Quarantine(Quarantine),
    /// In [`State::hold`].
    Hold(Hold),
    /// In [`State::allowed`].
    Allowed(Allowance),
}

/// One place that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// By whom; none: its time had come.
    pub author: Option<Author>,
    /// Why: one sentence.
    pub reason: String,
    /// Where.
    pub key: Key,
    /// What was there.
    pub before: Option<Entry>,
    /// What is there now.
    pub after: Option<Entry>,
}

impl State {
    /// What is at this place.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Entry> {
        match key {
            Key::Quarantine(target) => self.quarantines.get(target).cloned().map(Entry::Quarantine),
            Key::Hold => self.hold.clone().map(Entry::Hold),
            Key::Allowed(subject) => self.allowed.get(subject).cloned().map(Entry::Allowed),
        }
    }

    /// Puts something there, or nothing. An entry that does not belong there is nothing.
    pub(super) fn set(&mut self, key: &Key, entry: Option<Entry>) {
        match (key, entry) {
            (Key::Quarantine(target), Some(Entry::Quarantine(quarantine))) => {
                self.quarantines.insert(target.clone(), quarantine);
            }
            (Key::Quarantine(target), _) => {
                self.quarantines.remove(target);
            }
            (Key::Hold, Some(Entry::Hold(hold))) => self.hold = Some(hold),
            (Key::Hold, _) => self.hold = None,
            (Key::Allowed(subject), Some(Entry::Allowed(allowance))) => {
                self.allowed.insert(subject.clone(), allowance);
            }
            (Key::Allowed(subject), _) => {
                self.allowed.remove(subject);
            }
        }
    }

    /// The quarantine with this number.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<&Quarantine> {
        self.quarantines.values().find(|quarantine| quarantine.id == id)
    }

    /// The quarantine that covers a port or client: its own, or its port's.
    #[must_use]
    pub fn covering(&self, subject: &Subject) -> Option<&Quarantine> {
        let covers = |one: &Subject| one == subject || (one.client.is_none() && one.port == subject.port);
        self.quarantines.values().find(|quarantine| quarantine.target.subjects.iter().any(covers))
    }
}

impl Author {
    /// Whether it is the engine.
    #[must_use]
    pub fn is_engine(&self) -> bool {
        matches!(self, Self::Engine)
    }
}

/// `engine`, or the user's name or number.
impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => f.write_str("engine"),
            Self::Person { user: Some(user), .. } => f.write_str(user),
            Self::Person { uid, .. } => write!(f, "uid {uid}"),
        }
    }
}
