//! The client of the control API: HTTP over the agent's Unix socket.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use crate::model::{ApiError, Event};

/// How long an agent may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// More than one event ever has; what is longer is not a line of events.
const MAX_LINE: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "no agent answers on {}: start one with `dhcp-guard run -i IF`, or name its socket with --socket",
        socket.display()
    )]
    NoAgent {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is not for this user.
    #[error("you may not ask the agent on {}: be root, or join the socket's group", socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket cannot be used.
    #[error("cannot talk to the agent on {}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The deadline has passed.
    #[error("the agent on {} did not answer {path} within {} s: see its log", socket.display(), deadline.as_secs_f32())]
    TooSlow {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        path: String,
        /// The deadline.
        deadline: Duration,
    },
    /// Whoever listened there went away before the answer was complete.
    #[error("the agent on {} has ended: ask again once it runs", socket.display())]
    Ended {
        /// The socket.
        socket: PathBuf,
    },
    /// Whoever answers does not speak HTTP.
    #[error("the answer to {path} on {} broke off: is it the agent's socket?", socket.display())]
    Http {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        path: String,
        /// Why.
        source: hyper::Error,
    },
    /// The agent said no, in one sentence.
    #[error("{0}")]
    Refused(String),
    /// The agent understood, and its safety rules say no. Nothing was changed.
    #[error("refused: {0}")]
    AgainstRules(String),
    /// A change was asked for, and whoever should say what became of it does not.
    #[error("the agent on {} {why}: it is not known whether it was done", socket.display())]
    Unanswered {
        /// The socket.
        socket: PathBuf,
        /// What it did instead, as the rest of a sentence.
        why: String,
    },
    /// The answer is not what was asked for.
    #[error("the answer to {path} on {} is not understood: are agent and command of the same version?", socket.display())]
    NotUnderstood {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Asks the agent behind one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

impl Client {
    /// For the agent that listens on `socket`. Nothing is asked yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), deadline: DEADLINE }
    }

    /// With another deadline than 5 s.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The document at `path` (`/v1/status`).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.in_time(path, async {
            let response = self.request(path).await?;
            response.into_body().collect().await.map_err(|source| self.http(path, source))
        });
        let body = body.await?.to_bytes();
        serde_json::from_slice(&body).map_err(|source| self.not_understood(path, source))
    }

    /// Asks for a change at `path` (`/v1/hold`) and returns what became of it.
    ///
    /// # Errors
    /// See [`ClientError`]. Only after [`ClientError::Unanswered`] may it have been done all the same.
    pub async fn post<T: Serialize, R: DeserializeOwned>(&self, path: &str, body: &T) -> Result<R, ClientError> {
        let body = serde_json::to_vec(body);
        let body = body.map_err(|e| ClientError::Refused(format!("cannot write the request to {path}: {e}")))?;
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        let answer = self.in_time(path, async {
            let response = self.send(path, request, body.into()).await?;
            response.into_body().collect().await.map_err(|source| self.http(path, source))
        });
        let answer = answer.await.map_err(|error| Self::unanswered(path, error))?.to_bytes();
        let answer = serde_json::from_slice(&answer).map_err(|source| self.not_understood(path, source));
        answer.map_err(|error| Self::unanswered(path, error))
    }

    /// The stream of events from now on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn follow(&self) -> Result<EventStream, ClientError> {
        const PATH: &str = "/v1/events/follow";
        let response = self.in_time(PATH, self.request(PATH)).await?;
        Ok(EventStream { client: self.clone(), path: PATH, body: response.into_body(), lines: Lines::default() })
    }

    async fn in_time<T>(
        &self,
        path: &str,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        timeout(self.deadline, work).await.unwrap_or_else(|_| {
            Err(ClientError::TooSlow { socket: self.socket.clone(), path: path.to_owned(), deadline: self.deadline })
        })
    }

    async fn request(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        self.send(path, Request::get(path), Bytes::new()).await
    }

    async fn send(
        &self,
        path: &str,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        // Fails only for a path that no caller builds.
        let request = request.header(HOST, "localhost").body(Full::new(body));
        let request = request.map_err(|e| ClientError::Refused(format!("cannot ask for `{path}`: {e}")))?;
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.connect_error(e))?;
        let http = |source| self.http(path, source);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // Ends with the response; what goes wrong on it is reported by the request or its body.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(http)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(http)?.to_bytes();
        Err(match serde_json::from_slice::<ApiError>(&body) {
            Ok(refusal) if status == StatusCode::CONFLICT => ClientError::AgainstRules(refusal.error),
            Ok(refusal) => ClientError::Refused(refusal.error),
            Err(_) => {
                ClientError::Refused(format!("the agent on {} answers {path} with {status}", self.socket.display()))
            }
        })
    }

    /// The same for a change, which may have been made although its answer is missing. What is certainly not the agent,
    /// or was never reached, has changed nothing.
    fn unanswered(path: &str, error: ClientError) -> ClientError {
        let (socket, why) = match error {
            ClientError::Ended { socket } => (socket, format!("ended before it answered {path}")),
            ClientError::TooSlow { socket, deadline, .. } => {
                (socket, format!("did not answer {path} within {} s", deadline.as_secs_f32()))
            }
            ClientError::Http { socket, source, .. } if !source.is_parse() => {
                (socket, format!("broke off its answer to {path} ({source})"))
            }
            ClientError::NotUnderstood { socket, .. } => {
                (socket, format!("is perhaps of another version, because its answer to {path} is not understood"))
            }
            other => return other,
        };
        ClientError::Unanswered { socket, why }
    }

    fn connect_error(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoAgent { socket },
            io::ErrorKind::PermissionDenied => ClientError::Denied { socket },
            _ => ClientError::Io { socket, source },
        }
    }

    fn http(&self, path: &str, source: hyper::Error) -> ClientError {
        if is_cut_off(&source) {
            return ClientError::Ended { socket: self.socket.clone() };
        }
        ClientError::Http { socket: self.socket.clone(), path: path.to_owned(), source }
    }

    fn not_understood(&self, path: &str, source: serde_json::Error) -> ClientError {
        ClientError::NotUnderstood { socket: self.socket.clone(), path: path.to_owned(), source }
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    path: &'static str,
    body: Incoming,
    lines: Lines,
}

impl EventStream {
    /// The next event, whenever it comes; none: the agent has ended the stream. Can be cancelled without loss.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(line) = self.lines.next() {
                let event = serde_json::from_slice(&line);
                return event.map(Some).map_err(|source| self.client.not_understood(self.path, source));
            }
            match self.body.frame().await {
                None => return Ok(None),
                // A stream has no end of its own: an agent that ends cuts it off.
                Some(Err(source)) if is_cut_off(&source) => return Ok(None),
                Some(Err(source)) => return Err(self.client.http(self.path, source)),
                Some(Ok(frame)) => self.lines.push(frame.data_ref().map_or(&[], |data| data)),
            }
            if self.lines.0.len() > MAX_LINE {
                let path = self.path;
                return Err(ClientError::Refused(format!("the answer to {path} has no line ends: not the agent's")));
            }
        }
    }
}

/// `path` with a query of these names and values, whatever bytes the values have.
#[must_use]
pub fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut text = path.to_owned();
    for (i, (name, value)) in query.iter().enumerate() {
        text += &format!("{}{name}=", if i == 0 { '?' } else { '&' });
        for byte in value.bytes() {
            match byte {
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' | b':' => text.push(byte.into()),
                _ => text += &format!("%{byte:02X}"),
            }
        }
    }
    text
}

/// The other side went away.
fn is_cut_off(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    error.is_incomplete_message()
        || error.is_canceled()
        || matches!(
            cause,
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        )
}

/// Bytes that arrive in pieces, taken out by the line.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// The next line that is complete and not blank.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.0.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.0.drain(..=end).collect();
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        os::unix::fs::PermissionsExt,
        thread,
    };

    use axum::{Json, Router, body::Body, http, routing};
    use futures_util::{StreamExt, stream};
    use serde_json::{Value, json};
    use tempfile::TempDir;
    use tokio::net::UnixListener;

    use super::*;

    fn event(seq: u64) -> Value {
        json!({
            "seq": seq, "at": "2025-01-17T15:23:00Z", "kind": "offender_found", "interface": "eth0", "port": "eth0",
            "vlans": [], "mac": null, "server_id": null, "message": "m",
        })
    }

    /// A server on a socket of its own; it ends with the test's runtime.
    fn serve(routes: Router) -> (TempDir, Client) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async { axum::serve(listener, routes).await });
        (dir, Client::new(&socket))
    }

    #[tokio::test]
    async fn a_document_is_fetched() {
        let answer = routing::get(|uri: http::Uri| async move { Json(json!({ "query": uri.query() })) });
        let (_dir, client) = serve(Router::new().route("/v1/events", answer));
        let value: Value = client.get("/v1/events?limit=3").await.unwrap();
        assert_eq!(value, json!({ "query": "limit=3" }));
        let error = client.get::<ApiError>("/v1/events").await.unwrap_err();
        assert!(error.to_string().contains("same version"), "{error}");
    }

    #[tokio::test]
    async fn the_agent_s_own_sentence_is_passed_on() {
        let refusal = routing::get(|| async { (StatusCode::BAD_REQUEST, Json(json!({ "error": "no, because" }))) });
        let (_dir, client) = serve(Router::new().route("/v1/status", refusal));
        assert_eq!(client.get::<Value>("/v1/status").await.unwrap_err().to_string(), "no, because");
        let error = client.get::<Value>("/v1/nothing").await.unwrap_err().to_string();
        assert!(error.contains("/v1/nothing") && error.contains("404"), "{error}");
    }

    #[tokio::test]
    async fn a_change_is_asked_for_and_its_answer_read() {
        let echo = routing::post(|Json(body): Json<Value>| async move { Json(json!({ "asked": body })) });
        let (_dir, client) = serve(Router::new().route("/v1/hold", echo));
        let answer: Value = client.post("/v1/hold", &json!({ "hold": true })).await.unwrap();
        assert_eq!(answer, json!({ "asked": { "hold": true } }));
    }

    #[tokio::test]
    async fn what_the_rules_refuse_is_told_from_other_refusals() {
        for (status, expected) in [(409, "refused: no, because"), (400, "no, because"), (403, "no, because")] {
            let status = StatusCode::from_u16(status).unwrap();
            let refusal = routing::post(move || async move { (status, Json(json!({ "error": "no, because" }))) });
            let (_dir, client) = serve(Router::new().route("/v1/undo", refusal));
            let error = client.post::<_, Value>("/v1/undo", &json!({})).await.unwrap_err();
            assert_eq!(error.to_string(), expected, "{status}");
            assert_eq!(matches!(error, ClientError::AgainstRules(_)), status == StatusCode::CONFLICT);
        }
    }

    #[tokio::test]
    async fn a_change_without_an_answer_may_have_been_made() {
        let of = async |client: Client| client.post::<_, ApiError>("/v1/hold", &json!({})).await.unwrap_err();
        for (text, why) in [
            ("", " ended before it answered /v1/hold: it is not known whether it was done"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", " ended before it answered /v1/hold: "),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "its answer to /v1/hold is not understood: "),
        ] {
            let (_dir, client) = say(text);
            let error = of(client).await;
            assert!(matches!(error, ClientError::Unanswered { .. }), "{text:?}: {error:?}");
            assert!(error.to_string().contains(why), "{text:?}: {error}");
        }
        let hang = routing::post(|| async { std::future::pending::<()>().await });
        let (_dir, client) = serve(Router::new().route("/v1/hold", hang));
        let error = of(client.with_deadline(Duration::from_millis(50))).await.to_string();
        assert!(
            error.ends_with("did not answer /v1/hold within 0.05 s: it is not known whether it was done"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_change_that_never_reached_an_agent_was_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(&dir.path().join("agent.sock"));
        let error = client.post::<_, Value>("/v1/hold", &json!({})).await.unwrap_err();
        assert!(matches!(error, ClientError::NoAgent { .. }), "{error}");
        let (_dir, client) = say("220 mail.example ESMTP\r\n");
        let error = client.post::<_, Value>("/v1/hold", &json!({})).await.unwrap_err();
        assert!(matches!(error, ClientError::Http { .. }), "{error}");
    }

    #[test]
    fn a_query_survives_any_value() {
        assert_eq!(with_query("/v1/x", &[]), "/v1/x");
        let query = [("port", "a&b=%?#é.100"), ("mac", "02:00:5e:10:00:01")];
        assert_eq!(with_query("/v1/x", &query), "/v1/x?port=a%26b%3D%25%3F%23%C3%A9.100&mac=02:00:5e:10:00:01");
    }

    #[tokio::test]
    async fn without_an_agent_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let expected = format!(
            "no agent answers on {}: start one with `dhcp-guard run -i IF`, or name its socket with --socket",
            socket.display()
        );
        let client = Client::new(&socket);
        assert_eq!(client.get::<Value>("/v1/status").await.unwrap_err().to_string(), expected);
        drop(UnixListener::bind(&socket).unwrap());
        assert_eq!(client.get::<Value>("/v1/status").await.unwrap_err().to_string(), expected, "refused");
    }

    #[tokio::test]
    async fn without_permission_the_error_says_who_may() {
        let denied = Client::new(Path::new("/s")).connect_error(io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.to_string(), "you may not ask the agent on /s: be root, or join the socket's group");
        // For root there is no such thing; for everyone else it must come from the kernel like this.
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
        if let Err(e) = UnixStream::connect(&socket).await {
            assert!(matches!(Client::new(&socket).connect_error(e), ClientError::Denied { .. }));
        }
    }

    #[tokio::test]
    async fn an_agent_that_hangs_is_given_up() {
        let hang = routing::get(|| async { std::future::pending::<()>().await });
        let (_dir, client) = serve(Router::new().route("/v1/status", hang));
        let error = client.with_deadline(Duration::from_millis(50)).get::<Value>("/v1/status").await.unwrap_err();
        assert!(matches!(error, ClientError::TooSlow { .. }), "{error}");
        assert!(error.to_string().contains("within 0.05 s"), "{error}");
    }

    /// A server that says this, whatever is asked, and hangs up.
    fn say(text: &'static str) -> (TempDir, Client) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("other.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        });
        (dir, Client::new(&socket))
    }

    #[tokio::test]
    async fn a_socket_that_is_something_else_is_recognised() {
        let (_dir, client) = say("220 mail.example ESMTP\r\n");
        let error = client.get::<Value>("/v1/status").await.unwrap_err();
        assert!(error.to_string().contains("is it the agent's socket?"), "{error}");
    }

    #[tokio::test]
    async fn an_agent_that_ends_before_it_has_answered_is_said_to_have_ended() {
        for text in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
            let (_dir, client) = say(text);
            let error = client.get::<Value>("/v1/status").await.unwrap_err();
            assert!(matches!(error, ClientError::Ended { .. }), "{text:?}: {error:?}");
            assert!(error.to_string().ends_with("has ended: ask again once it runs"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_killed_ends_the_stream() {
        let (_dir, client) = say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"se\r\n");
        assert_eq!(client.follow().await.unwrap().next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn events_are_followed_however_they_are_cut() {
        let text = format!("{}\n\n{}\n{}\n", event(1), event(2), event(3));
        let pieces: Vec<_> = text.as_bytes().chunks(100).map(<[u8]>::to_vec).collect();
        let answer = routing::get(move || async { Body::from_stream(stream::iter(pieces).map(Ok::<_, io::Error>)) });
        let (_dir, client) = serve(Router::new().route("/v1/events/follow", answer));
        let mut events = client.follow().await.unwrap();
        for seq in 1..=3 {
            assert_eq!(events.next().await.unwrap().unwrap().seq, seq);
        }
        assert_eq!(events.next().await.unwrap(), None, "the end of the stream");
    }
}
