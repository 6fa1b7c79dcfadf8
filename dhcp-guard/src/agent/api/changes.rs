//! What can be changed: who may, whether it makes sense, and the way to the decision loop, which alone decides.

use axum::{
    Json,
    body::Body,
    extract::{ConnectInfo, RawQuery, State},
    http::StatusCode,
};
use jiff::Timestamp;

use super::{
    Api, Refusal,
    document::{self, What},
    refusal,
    replays::Replay,
};
use crate::{
    agent::{
        peers::{Peer, Right},
        requests::Denied,
    },
    governor::Author,
    model::Changed,
};

/// What can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    QuarantineAdd,
    QuarantineRelease,
    Hold,
    Undo,
    AllowAdd,
    AllowRemove,
    Reload,
}

impl Endpoint {
    pub(super) const ALL: [Self; 7] = [
        Self::QuarantineAdd,
        Self::QuarantineRelease,
        Self::Hold,
        Self::Undo,
        Self::AllowAdd,
        Self::AllowRemove,
        Self::Reload,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::QuarantineAdd => "/v1/quarantine/add",
            Self::QuarantineRelease => "/v1/quarantine/release",
            Self::Hold => "/v1/hold",
            Self::Undo => "/v1/undo",
            Self::AllowAdd => "/v1/allow/add",
            Self::AllowRemove => "/v1/allow/remove",
            Self::Reload => "/v1/reload",
        }
    }

    /// What is attempted, as the beginning of a sentence.
    fn attempt(self) -> &'static str {
        match self {
            Self::QuarantineAdd => "cannot quarantine anybody",
            Self::QuarantineRelease => "cannot release anybody",
            Self::Hold => "cannot change the hold",
            Self::Undo => "cannot undo anything",
            Self::AllowAdd => "cannot allow anybody",
            Self::AllowRemove => "cannot take anybody off the allowlist",
            Self::Reload => "cannot reload the configuration",
        }
    }

    /// What the audit log calls it, as in [`AuditRecord::action`](crate::model::AuditRecord::action).
    fn action(self, hold: Option<bool>) -> &'static str {
        match (self, hold) {
            (Self::QuarantineAdd, _) => "quarantine_add",
            (Self::QuarantineRelease, _) => "quarantine_end",
            (Self::Hold, Some(true)) => "hold_on",
            (Self::Hold, Some(false)) => "hold_off",
            (Self::Hold, None) => "hold",
            (Self::Undo, _) => "undo",
            (Self::AllowAdd, _) => "allow_add",
            (Self::AllowRemove, _) => "allow_end",
            (Self::Reload, _) => "reload",
        }
    }
}

/// A request that changes nothing.
struct No {
    status: StatusCode,
    sentence: String,
    /// It got as far as the decision loop, which puts on record what it refuses.
    by_loop: bool,
}

impl No {
    fn new(status: StatusCode, sentence: String) -> Self {
        Self { status, sentence, by_loop: false }
    }
}

impl From<Denied> for No {
    fn from(denied: Denied) -> Self {
        let (status, by_loop) = match denied {
            Denied::Rules(_) => (StatusCode::CONFLICT, true),
            Denied::Nonsense(_) => (StatusCode::BAD_REQUEST, true),
            Denied::Busy => (StatusCode::SERVICE_UNAVAILABLE, false),
        };
        Self { status, sentence: denied.to_string(), by_loop }
    }
}

pub(super) async fn change(
    endpoint: Endpoint,
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Json<Changed>, Refusal> {
    // Whoever asks may go away at any moment. What they asked for is seen through, and put on record, all the same.
    let seen_through = tokio::spawn(async move { api.change(endpoint, &peer, query.as_deref(), body).await });
    seen_through.await.unwrap_or_else(|e| {
        let sentence = format!("the agent failed ({e}), and perhaps changed something: please report it");
        Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, &sentence))
    })
}

impl Api {
    async fn change(
        &self,
        endpoint: Endpoint,
        peer: &Peer,
        query: Option<&str>,
        body: Body,
    ) -> Result<Json<Changed>, Refusal> {
        let body = document::read(body).await;
        let readable = document::skim(body.as_deref().unwrap_or_default());
        match self.carry_out(endpoint, peer, query, body).await {
            Ok(changed) => Ok(Json(changed)),
            Err(no) => {
                if !no.by_loop {
                    self.refuse(peer, endpoint.action(readable.hold), readable, &no.sentence).await;
                }
                Err(refusal(no.status, &no.sentence))
            }
        }
    }

    async fn carry_out(
        &self,
        endpoint: Endpoint,
        peer: &Peer,
        query: Option<&str>,
        body: Result<Vec<u8>, document::Unread>,
    ) -> Result<Changed, No> {
        // First, so that whoever may not is told nothing but that.
        if self.shared.rights.of(peer) < Right::Change {
            return Err(No::new(StatusCode::FORBIDDEN, self.shared.rights.sentence(peer, Right::Change)));
        }
        let because = |status, why: &str| No::new(status, document::sentence(endpoint.attempt(), why));
        let body = body.map_err(|unread| because(unread.status(), &unread.to_string()))?;
        // Somebody may take `?dry_run=true` for one.
        if query.is_some_and(|query| !query.is_empty()) {
            return Err(because(
                StatusCode::BAD_REQUEST,
                "the request has its parameters in its document, not its address",
            ));
        }
        let wanted = document::understand(endpoint, &body).map_err(|why| because(StatusCode::BAD_REQUEST, &why))?;
        let id = wanted.request_id.filter(|_| !wanted.dry_run);
        let ticket = id.map(|id| self.replays.begin(&id).map_err(|replay| replayed(&id, replay))).transpose()?;
        let author = self.names.author(peer).await;
        let changed = match wanted.what {
            What::Change(change) => self.shared.requests.change(change, author).await?,
            What::Reload { reason } => self.reload(author, reason, wanted.dry_run).await?,
        };
        if let Some(ticket) = ticket {
            ticket.granted(Timestamp::now());
        }
        Ok(changed)
    }
}

impl Api {
    /// It does not pass the decision loop, so what is refused is put on record here.
    async fn reload(&self, author: Author, reason: String, dry_run: bool) -> Result<Changed, No> {
        let reloaded = self.shared.reloads.ask(Some(author), reason, dry_run).await;
        reloaded.map_err(|denied| No { by_loop: dry_run, ..No::from(denied) })
    }
}

fn replayed(id: &str, replay: Replay) -> No {
    let sentence = match replay {
        Replay::Done(at) => {
            format!("request {id} was carried out already at {}; nothing was changed", at.strftime("%FT%TZ"))
        }
        Replay::InFlight => {
            format!("request {id} is being carried out at this moment; nothing was changed by this one")
        }
    };
    No::new(StatusCode::CONFLICT, sentence)
}
