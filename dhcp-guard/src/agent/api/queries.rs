//! What can be asked.

use std::convert::Infallible;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{FromRequestParts, Query, State, rejection::QueryRejection},
    http::{StatusCode, request::Parts},
    response::IntoResponse,
};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::{Api, Refusal, refusal};
use crate::{
    agent::{report, requests::About},
    model::{Allows, Clients, Events, Explained, Offenders, Ports, Quarantines, Status},
};

/// The question has no parameters. One that is ignored would be taken for one that was obeyed.
pub(super) struct Whole;

impl<S: Sync> FromRequestParts<S> for Whole {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(_) => {
                let sentence = format!("{0} has no parameters: ask for {0} alone", parts.uri.path());
                Err(refusal(StatusCode::BAD_REQUEST, &sentence))
            }
        }
    }
}

pub(super) async fn status(State(api): State<Api>, _: Whole) -> Json<Status> {
    Json(report::status(&api.shared.picture()))
}

pub(super) async fn offenders(State(api): State<Api>, _: Whole) -> Json<Offenders> {
    Json(report::offenders(&api.shared.picture()))
}

pub(super) async fn ports(State(api): State<Api>, _: Whole) -> Json<Ports> {
    Json(report::ports(&api.shared.picture()))
}

pub(super) async fn clients(State(api): State<Api>, _: Whole) -> Json<Clients> {
    Json(report::clients(&api.shared.picture()))
}

pub(super) async fn quarantines(State(api): State<Api>, _: Whole) -> Json<Quarantines> {
    Json(report::quarantines(&api.shared.picture()))
}

pub(super) async fn allowed(State(api): State<Api>, _: Whole) -> Json<Allows> {
    Json(report::allowed(&api.shared.picture()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whom {
    port: Option<String>,
    mac: Option<String>,
}

pub(super) async fn explain(
    State(api): State<Api>,
    whom: Result<Query<Whom>, QueryRejection>,
) -> Result<Json<Explained>, Refusal> {
    let about = match whom {
        Ok(Query(whom)) => about(whom),
        Err(_) => Err("ask with port, mac or both, each once: /v1/explain?port=eth0&mac=02:00:5e:10:00:01".to_owned()),
    };
    let about = about.map_err(|sentence| refusal(StatusCode::BAD_REQUEST, &sentence))?;
    let explained = api.shared.requests.explain(about).await;
    explained.map(Json).map_err(|denied| refusal(StatusCode::SERVICE_UNAVAILABLE, &denied.to_string()))
}

fn about(Whom { port, mac }: Whom) -> Result<About, String> {
    if port.is_none() && mac.is_none() {
        return Err("nobody is to be explained: name a port, a MAC or both, as in /v1/explain?port=eth0".to_owned());
    }
    if port.as_deref() == Some("") {
        return Err("the port is missing: without one leave `port` out".to_owned());
    }
    let mac = mac.map(|mac| mac.parse()).transpose().map_err(|e: crate::mac::MacError| e.to_string())?;
    Ok(About { port, mac })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Latest {
    limit: Option<usize>,
}

pub(super) async fn events(
    State(api): State<Api>,
    latest: Result<Query<Latest>, QueryRejection>,
) -> Result<Json<Events>, Refusal> {
    let Ok(Query(latest)) = latest else {
        let sentence = "limit must be a number of events, and there is no other parameter: /v1/events?limit=100";
        return Err(refusal(StatusCode::BAD_REQUEST, sentence));
    };
    Ok(Json(Events { events: api.shared.journal.latest(latest.limit.unwrap_or(100)) }))
}

/// New events, one JSON document a line, until the asker goes away.
pub(super) async fn follow(State(api): State<Api>, _: Whole) -> impl IntoResponse {
    let events = futures_util::stream::unfold(api.shared.journal.follow(), |mut follower| async move {
        loop {
            match follower.recv().await {
                Ok(event) => {
                    let mut line = serde_json::to_vec(&event).unwrap_or_default();
                    line.push(b'\n');
                    return Some((Ok::<_, Infallible>(Bytes::from(line)), follower));
                }
                // Too slow: the gap shows in the events' numbers.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    ([("content-type", "application/x-ndjson")], Body::from_stream(events.boxed()))
}
