//! What the tests of the actuators share.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::{Concerned, Job, Outcome, Outcomes, What};
use crate::{
    config::ActuatorName,
    governor::Sanction,
    model::{Covered, Kind, QuarantineReport},
};

/// A job about all of tap0, for all actuators.
pub(super) fn job(what: What, id: u64) -> Job {
    let at = Timestamp::UNIX_EPOCH;
    let covered = Covered { interface: "tap0".into(), port: "tap0".into(), vlans: vec![], mac: None };
    let report = QuarantineReport {
        id,
        kind: Kind::Port,
        covers: vec![covered],
        server_id: Some("srv-1".into()),
        server_name: None,
        owner: None,
        action: Sanction::Mute,
        by: "engine".into(),
        reason: "a test".into(),
        since: at,
        expires_at: at,
        expires_in_s: 0,
        repeat: 0,
        times: None,
        outcomes: vec![],
    };
    let interface = Concerned {
        interface: "tap0".into(),
        ports: 1,
        default_route: false,
        one_machine: true,
        actuators: vec![ActuatorName::LinkDown, ActuatorName::Command, ActuatorName::Webhook],
    };
    Job { what, number: 1, report, interfaces: vec![interface] }
}

/// The next outcome, soon.
pub(super) async fn next(outcomes: &mut Outcomes) -> Outcome {
    timeout(Duration::from_secs(20), outcomes.recv()).await.unwrap().unwrap()
}
