//! The control API: HTTP + JSON on a Unix socket.
//!
//! Queries are answered from the latest picture and never touch the decision loop or the maps. Changes, and what only the
//! loop has the numbers for, go to it through [`requests`](super::requests). Whatever is not right about a request ends
//! here, before the loop sees it, and changes nothing.
//!
//! * `socket`: takes the socket. [`peers`](super::peers): who is at its other end, and what they may do.
//! * `queries`: what can be asked. `changes`: what can be changed, and by whom.
//! * `document`: from the bytes of a request to what is wanted, or to what is wrong with it.
//! * `replays`: what was carried out is not carried out again.
//! * `gate`: how many may be connected at once.
//! * `refusals`: what is refused here is on record.

mod changes;
mod document;
mod gate;
mod queries;
mod refusals;
mod replays;
mod socket;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use tokio::sync::watch;

pub use self::socket::{Listener, bind};
use self::{changes::Endpoint, document::Document, gate::Gate, refusals::Refusals, replays::Replays};
use super::{
    follow::Reloads,
    journal::Journal,
    peers::{Names, Peer, Right, Rights},
    picture::Picture,
    requests::Requests,
};
use crate::{audit, model::ApiError};

/// What the handlers answer from.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Events.
    pub journal: Arc<Journal>,
    /// The latest picture.
    pub pictures: watch::Receiver<Arc<Picture>>,
    /// The way to the decision loop.
    pub requests: Requests,
    /// The way to whoever reads the configuration again.
    pub reloads: Reloads,
    /// Where refused requests are put on record.
    pub audit: audit::Handle,
    /// Who may do what.
    pub rights: Arc<Rights>,
}

impl Shared {
    fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.pictures.borrow())
    }
}

/// What is shared, and what the API keeps for itself.
#[derive(Clone, Debug)]
struct Api {
    shared: Shared,
    names: Names,
    replays: Arc<Replays>,
    refusals: Arc<Refusals>,
}

/// Any answer but 200.
type Refusal = (StatusCode, Json<ApiError>);

/// Serves until it is told to stop. Followers are cut off then, not waited for.
///
/// # Errors
/// If the socket breaks.
pub async fn serve(listener: Listener, shared: Shared, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let Listener { listener, file: _removed_at_the_end } = listener;
    let service = router(shared).into_make_service_with_connect_info::<Peer>();
    tokio::select! {
        result = axum::serve(Gate::new(listener), service).into_future() => result.context("the control API's socket broke"),
        _ = stopped.changed() => Ok(()),
    }
}

fn router(shared: Shared) -> Router {
    let api = Api { shared, names: Names::default(), replays: Arc::default(), refusals: Arc::default() };
    let mut router = Router::new()
        .route("/v1/status", get(queries::status))
        .route("/v1/offenders", get(queries::offenders))
        .route("/v1/ports", get(queries::ports))
        .route("/v1/clients", get(queries::clients))
        .route("/v1/quarantine", get(queries::quarantines))
        .route("/v1/allow", get(queries::allowed))
        .route("/v1/explain", get(queries::explain))
        .route("/v1/events", get(queries::events))
        .route("/v1/events/follow", get(queries::follow));
    for endpoint in Endpoint::ALL {
        let handler = move |api, peer, query, body| changes::change(endpoint, api, peer, query, body);
        router = router.route(endpoint.path(), post(handler));
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(api.clone(), only_readers))
        .with_state(api)
}

/// Whoever may not ask is told nothing but that. Changes look for themselves, because a refusal there is put on record.
async fn only_readers(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let rights = &api.shared.rights;
    if is_question(request.method()) && rights.of(&peer) < Right::Read {
        return refusal(StatusCode::FORBIDDEN, &rights.sentence(&peer, Right::Read)).into_response();
    }
    next.run(request).await
}

fn is_question(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

async fn unknown(State(api): State<Api>, ConnectInfo(peer): ConnectInfo<Peer>, method: Method) -> Refusal {
    let sentence = "there is nothing here: ask (GET) for /v1/status, /v1/offenders, /v1/ports, /v1/clients, \
                    /v1/quarantine, /v1/allow, /v1/explain, /v1/events or /v1/events/follow; change (POST) with \
                    /v1/quarantine/add, /v1/quarantine/release, /v1/hold, /v1/undo, /v1/allow/add, /v1/allow/remove or /v1/reload";
    not_here(&api, &peer, &method, StatusCode::NOT_FOUND, sentence).await
}

async fn wrong_method(State(api): State<Api>, ConnectInfo(peer): ConnectInfo<Peer>, method: Method) -> Refusal {
    let sentence = if is_question(&method) {
        "this is a change (POST), not a question"
    } else {
        "this can only be asked (GET), not changed"
    };
    not_here(&api, &peer, &method, StatusCode::METHOD_NOT_ALLOWED, sentence).await
}

/// Who tries to change what cannot be is on record, too.
async fn not_here(api: &Api, peer: &Peer, method: &Method, status: StatusCode, sentence: &str) -> Refusal {
    if !is_question(method) {
        api.refuse(peer, "unknown", Document::default(), sentence).await;
    }
    refusal(status, sentence)
}

fn refusal(status: StatusCode, sentence: &str) -> Refusal {
    (status, Json(ApiError { error: sentence.to_owned() }))
}
