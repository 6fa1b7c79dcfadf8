//! From the bytes of a request to what is wanted, or to one sentence about what is wrong with them.

use std::{fmt, time::Duration};

use axum::{body::Body, http::StatusCode};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::changes::Endpoint;
use crate::{
    agent::requests::Change,
    human::{counted, one_line},
    mac::Mac,
    model::{AllowRequest, HoldRequest, Named, QuarantineRequest, ReleaseRequest, ReloadRequest, UndoRequest, values},
};

/// Bytes of a document, at most.
pub(super) const MAX_BYTES: usize = 64 << 10;
/// Bytes that are read of one that is too long, so that whoever writes it gets to read the answer.
const MAX_DRAINED: usize = 4 << 20;
/// How long a document may take to arrive.
const DEADLINE: Duration = Duration::from_secs(5);
/// Characters of a sentence: a parser's may quote what it was given.
const LONGEST_SENTENCE: usize = 400;
/// Targets that a record names.
const RECORDED_TARGETS: usize = 16;

/// Why there is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    #[error("the request is longer than {} bytes", MAX_BYTES)]
    TooLong,
    #[error("the request was not complete after {} s", DEADLINE.as_secs())]
    TooSlow,
    #[error("the request broke off")]
    BrokenOff,
}

impl Unread {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenOff => StatusCode::BAD_REQUEST,
        }
    }
}

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// For the decision loop.
    Change(Change),
    /// For whoever reads the configuration.
    Reload { reason: String },
}

/// What is wanted, by a request that makes sense in itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) what: What,
    pub(super) request_id: Option<String>,
    pub(super) dry_run: bool,
}

/// What can be read of a request, also of one that is wrong: for the record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    pub(super) reason: String,
    pub(super) targets: Vec<Named>,
    pub(super) hold: Option<bool>,
}

/// All bytes of a request.
pub(super) async fn read(body: Body) -> Result<Vec<u8>, Unread> {
    timeout(DEADLINE, read_all(body)).await.unwrap_or(Err(Unread::TooSlow))
}

async fn read_all(mut body: Body) -> Result<Vec<u8>, Unread> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Unread::BrokenOff)?;
        let piece = frame.data_ref().map_or(&[][..], |piece| piece);
        length += piece.len();
        if length <= MAX_BYTES {
            bytes.extend_from_slice(piece);
        } else if length > MAX_DRAINED {
            break;
        }
    }
    if length > MAX_BYTES { Err(Unread::TooLong) } else { Ok(bytes) }
}

/// `cannot undo anything: the reason is empty: say in a few words why`
pub(super) fn sentence(attempt: &str, why: &str) -> String {
    format!("{attempt}: {}", one_line(why, LONGEST_SENTENCE))
}

/// What can be read of it without any conditions.
pub(super) fn skim(bytes: &[u8]) -> Document {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return Document::default() };
    let reason = document["reason"].as_str().unwrap_or_default();
    let several = document["targets"].as_array().into_iter().flatten();
    let targets = several.chain([&document["target"]]).take(RECORDED_TARGETS);
    Document {
        reason: one_line(reason.trim(), values::LONGEST_REASON),
        targets: targets.filter_map(|target| serde_json::from_value(target.clone()).ok()).collect(),
        hold: document["hold"].as_bool(),
    }
}

/// What is wanted, or what is wrong with it. What the host and the rules have to say to it is the decision loop's.
pub(super) fn understand(endpoint: Endpoint, bytes: &[u8]) -> Result<Wanted, String> {
    match endpoint {
        Endpoint::QuarantineAdd => quarantine(parse(bytes)?),
        Endpoint::QuarantineRelease => release(parse(bytes)?),
        Endpoint::Hold => hold(parse(bytes)?),
        Endpoint::Undo => undo(parse(bytes)?),
        Endpoint::AllowAdd => allow(parse(bytes)?),
        Endpoint::AllowRemove => disallow(parse(bytes)?),
        Endpoint::Reload => reload(parse(bytes)?),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.trim_ascii().is_empty() {
        return Err("the request is empty: post a JSON document".to_owned());
    }
    let not_understood = |why: &dyn fmt::Display| format!("the document is not understood: {why}");
    let values: Value = serde_json::from_slice(bytes).map_err(|e| not_understood(&e))?;
    // The parser would take lists for objects whose keys are left out.
    if !values.is_object() {
        return Err(not_understood(&"it must be an object, in braces"));
    }
    let mut targets = values["targets"].as_array().into_iter().flatten().chain([&values["target"]]);
    if targets.any(Value::is_array) {
        return Err(not_understood(&"a target is an object with a port and perhaps a mac"));
    }
    serde_json::from_slice(bytes).map_err(|e| not_understood(&e))
}

fn quarantine(mut request: QuarantineRequest) -> Result<Wanted, String> {
    common(&mut request.reason, request.request_id.as_deref())?;
    if request.targets.is_empty() {
        return Err("the request names nobody, and nobody is not everybody: name one port, or one MAC on a port".into());
    }
    request.targets.iter().try_for_each(target)?;
    if request.targets.len() > 1 && request.request_id.is_none() {
        let several = counted(request.targets.len() as u64, "target");
        return Err(format!("a request with {several} needs a request_id, so that it cannot come twice"));
    }
    request.ttl_s.map_or(Ok(()), values::seconds)?;
    let (request_id, dry_run) = (request.request_id.clone(), request.dry_run);
    Ok(Wanted { what: What::Change(Change::Quarantine(request)), request_id, dry_run })
}

fn release(mut request: ReleaseRequest) -> Result<Wanted, String> {
    common(&mut request.reason, request.request_id.as_deref())?;
    match (request.id, &request.target) {
        (Some(_), None) => {}
        (None, Some(one)) => target(one)?,
        (None, None) => return Err("the request names nobody: give the id of a quarantine, or a target".to_owned()),
        (Some(_), Some(_)) => return Err("both an id and a target are given: leave one of them out".to_owned()),
    }
    let (request_id, dry_run) = (request.request_id.clone(), request.dry_run);
    Ok(Wanted { what: What::Change(Change::Release(request)), request_id, dry_run })
}

fn hold(mut request: HoldRequest) -> Result<Wanted, String> {
    common(&mut request.reason, request.request_id.as_deref())?;
    let (request_id, dry_run) = (request.request_id.clone(), request.dry_run);
    Ok(Wanted { what: What::Change(Change::Hold(request)), request_id, dry_run })
}

fn undo(mut request: UndoRequest) -> Result<Wanted, String> {
    common(&mut request.reason, request.request_id.as_deref())?;
    values::seconds(request.since_s)?;
    let (request_id, dry_run) = (request.request_id.clone(), request.dry_run);
    Ok(Wanted { what: What::Change(Change::Undo(request)), request_id, dry_run })
}

fn allow(mut request: AllowRequest) -> Result<Wanted, String> {
    common(&mut request.reason, request.request_id.as_deref())?;
    target(&request.target)?;
    request.for_s.map_or(Ok(()), values::seconds)?;
    let (request_id, dry_run) = (request.request_id.clone(), request.dry_run);
    Ok(Wanted { what: What::Change(Change::Allow(request)), request_id, dry_run })
}

fn disallow(mut request: AllowRequest) -> Result<Wanted, String> {
    common(&mut request.reason, request.request_id.as_deref())?;
    target(&request.target)?;
    if request.for_s.is_some() {
        return Err("whoever is taken off the list is off it for good: leave for_s out".to_owned());
    }
    let (request_id, dry_run) = (request.request_id.clone(), request.dry_run);
    Ok(Wanted { what: What::Change(Change::Disallow(request)), request_id, dry_run })
}

fn reload(mut request: ReloadRequest) -> Result<Wanted, String> {
    common(&mut request.reason, request.request_id.as_deref())?;
    let ReloadRequest { reason, dry_run, request_id } = request;
    Ok(Wanted { what: What::Reload { reason }, request_id, dry_run })
}

/// What all requests have.
fn common(reason: &mut String, request_id: Option<&str>) -> Result<(), String> {
    *reason = values::reason(reason)?;
    request_id.map_or(Ok(()), values::request_id)
}

fn target(target: &Named) -> Result<(), String> {
    values::port(&target.port)?;
    match target.mac {
        Some(mac) if !Mac::is_unicast(mac) => Err(format!("{mac} cannot be a client's MAC: name a unicast address")),
        _ => Ok(()),
    }
}
