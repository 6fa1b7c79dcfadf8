//! Quarantines, hold, allowlist, undo: what is asked for, what is answered.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Kind, State};
use crate::{
    governor::{Author, ClientName, Sanction, Subject},
    mac::Mac,
};

/// Somebody, as a request names them: a port, or a MAC on it. A MAC without a port is nobody in particular.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Port name: `eth0`, `eth0.100`, `eth0.100.20`.
    pub port: String,
    /// Source MAC; none: the whole port.
    pub mac: Option<Mac>,
}

/// `POST /v1/quarantine/add`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineRequest {
    /// Whom. One, unless `max` and `confirm` both say how many.
    pub targets: Vec<Named>,
    /// `mute` or `isolate`.
    #[serde(default)]
    pub action: Sanction,
    /// For how many seconds; none: as long as an automatic one would last.
    pub ttl_s: Option<u64>,
    /// How many the request may name.
    pub max: Option<usize>,
    /// How many it names.
    pub confirm: Option<usize>,
    /// Why; one sentence.
    pub reason: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// 1 to 64 visible ASCII characters, different for each request: one that was carried out is not carried out again.
    /// A request with several targets must have one.
    pub request_id: Option<String>,
}

/// `POST /v1/quarantine/release`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// By its number. Either this or `target`.
    pub id: Option<u64>,
    /// By whom it covers.
    pub target: Option<Named>,
    /// Why.
    pub reason: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// See [`QuarantineRequest::request_id`].
    pub request_id: Option<String>,
}

/// `POST /v1/hold`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// On or off.
    pub hold: bool,
    /// Why.
    pub reason: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// See [`QuarantineRequest::request_id`].
    pub request_id: Option<String>,
}

/// `POST /v1/undo`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndoRequest {
    /// How many seconds ago everything was as it shall be again.
    pub since_s: u64,
    /// Why.
    pub reason: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// See [`QuarantineRequest::request_id`].
    pub request_id: Option<String>,
}

/// `POST /v1/reload`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Why.
    pub reason: String,
    /// Only say what would be different.
    #[serde(default)]
    pub dry_run: bool,
    /// See [`QuarantineRequest::request_id`].
    pub request_id: Option<String>,
}

/// `POST /v1/allow/add` and `POST /v1/allow/remove`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRequest {
    /// Whom.
    pub target: Named,
    /// For how many seconds; none: for good. Not for `remove`.
    pub for_s: Option<u64>,
    /// Why.
    pub reason: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// See [`QuarantineRequest::request_id`].
    pub request_id: Option<String>,
}

/// The answer to every request that can change something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Nothing was changed; this is what would be.
    pub dry_run: bool,
    /// What changed, one sentence each. Empty: it was so already.
    pub changes: Vec<String>,
}

/// `GET /v1/quarantine`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantines {
    /// When this was so.
    pub as_of: Timestamp,
    /// Automatic quarantine is on hold: by whom and why.
    pub hold: Option<String>,
    /// The latest first.
    pub quarantines: Vec<QuarantineReport>,
}

/// One quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineReport {
    /// Its number.
    pub id: u64,
    /// `client`, or `port` if a whole port is in it.
    pub kind: Kind,
    /// All ports and clients it covers.
    pub covers: Vec<Covered>,
    /// From the inventory.
    pub server_id: Option<String>,
    /// From the inventory.
    pub server_name: Option<String>,
    /// From the inventory.
    pub owner: Option<String>,
    /// `mute` or `isolate`.
    pub action: Sanction,
    /// `engine`, or who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when. An automatic one goes on while it is not quiet, within the configured longest time.
    pub expires_at: Timestamp,
    /// Seconds until then.
    pub expires_in_s: u64,
    /// How many it had before, as far as they are remembered.
    pub repeat: u32,
    /// Where the time went; none: a person's.
    pub times: Option<Times>,
    /// What became of each actuator, the data plane included.
    pub outcomes: Vec<OutcomeReport>,
}

/// A port or client in a quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// Interface name.
    pub interface: String,
    /// Port name.
    pub port: String,
    /// VLAN ids, outer first.
    pub vlans: Vec<u16>,
    /// Source MAC; none: the whole port.
    pub mac: Option<String>,
}

impl From<&Subject> for Covered {
    fn from(subject: &Subject) -> Self {
        let port = &subject.port;
        let mac = match &subject.client {
            None => None,
            Some(ClientName::Mac(mac)) => Some(mac.to_string()),
            Some(ClientName::Behind(behind)) => Some(behind.who().to_string()),
        };
        Self { interface: port.interface.clone(), port: port.to_string(), vlans: port.vlans.clone(), mac }
    }
}

/// From the first packet over the limit to the last word about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The first packet over a limit, and so the first drop: they are the same packet.
    pub first_excess: Option<Timestamp>,
    /// When it was reported as an offender.
    pub detected: Option<Timestamp>,
    /// When the data plane had the quarantine.
    pub quarantined: Option<Timestamp>,
    /// When the first actuator that tells somebody (`command`, `webhook`) was done.
    pub notified: Option<Timestamp>,
}

/// What became of one actuator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeReport {
    /// `data_plane`, `link_down`, `command`, `webhook`.
    pub actuator: String,
    /// When.
    pub at: Timestamp,
    /// Done, or why not.
    pub error: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}

/// `GET /v1/allow`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allows {
    /// When this was so.
    pub as_of: Timestamp,
    /// Those of the configuration first.
    pub allowed: Vec<AllowReport>,
}

/// An entry of the allowlist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowReport {
    /// Who.
    #[serde(flatten)]
    pub who: Covered,
    /// `configuration`, or who asked.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// Since when; none: since the agent started.
    pub since: Option<Timestamp>,
    /// Until when; none: for good.
    pub expires_at: Option<Timestamp>,
}

/// `GET /v1/explain?port=eth0.100&mac=…`: the numbers behind the present state of everybody that fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// When the maps were read.
    pub as_of: Timestamp,
    /// Ports and clients. Empty: nobody fits.
    pub subjects: Vec<Explanation>,
}

/// Why somebody stands where they stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Client or port.
    pub kind: Kind,
    /// Who.
    #[serde(flatten)]
    pub who: Covered,
    /// From the inventory.
    pub server_id: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Why, in one sentence with the numbers.
    pub because: String,
    /// What would have to happen for it to change, and how long that takes at least.
    pub next: String,
    /// Seconds until then, if that is certain.
    pub next_in_s: Option<u64>,
    /// Why it is not in quarantine although it would be.
    pub held_back: Option<String>,
    /// The numbers.
    pub evidence: Evidence,
    /// The quarantine that covers it.
    pub quarantine: Option<QuarantineReport>,
}

/// The numbers that a decision was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Packets a second it may send; a client: the larger of its limits for DHCPv4 and DHCPv6.
    pub limit_pps: u64,
    /// Packets in each of the last windows of a second, the latest last.
    pub packets: Vec<u64>,
    /// Of these, over its own limit.
    pub own_excess: Vec<u64>,
    /// Windows running with excess.
    pub windows_over_limit: u32,
    /// Windows running at the rate that leads to quarantine.
    pub windows_at_quarantine_rate: u32,
    /// A port: strangers in the last window; none: too many to tell, or a client.
    pub distinct_macs: Option<u64>,
    /// Automatic quarantines that it had, as far as they are remembered.
    pub repeat: u32,
}

/// One line of the audit log: every change, every request that was refused, and what became of each actuator's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// Who; none: its time had come.
    pub author: Option<Author>,
    /// `quarantine_add`, `quarantine_change`, `quarantine_end`, `hold_on`, `hold_off`, `allow_add`, `allow_end`, `undo`, `reload`, …
    pub action: String,
    /// About whom.
    pub subjects: Vec<Subject>,
    /// Why.
    pub reason: String,
    /// None: done. Else why it was refused.
    pub refused: Option<String>,
    /// The numbers it was decided from.
    pub evidence: Option<Evidence>,
    /// What was there.
    pub before: Option<serde_json::Value>,
    /// What is there now.
    pub after: Option<serde_json::Value>,
}

impl AuditRecord {
    /// What happened, when and why; all else is for whoever knows it.
    #[must_use]
    pub fn new(at: Timestamp, action: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            at,
            author: None,
            action: action.into(),
            subjects: Vec::new(),
            reason: reason.into(),
            refused: None,
            evidence: None,
            before: None,
            after: None,
        }
    }
}
