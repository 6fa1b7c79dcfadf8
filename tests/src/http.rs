//! Raw requests to a Unix socket: what the guard's own command line would never send.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Status and body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, 400, …
    pub status: u16,
    /// Whatever came after the headers.
    pub body: String,
}

/// Sends a JSON document, or what claims to be one.
pub fn post(socket: &Path, path: &str, body: &str) -> Result<Answer> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    send(socket, (head + body).as_bytes())
}

/// Sends bytes, and reads what comes back until the other side closes.
pub fn send(socket: &Path, request: &[u8]) -> Result<Answer> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("cannot reach {}", socket.display()))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    // Whoever refuses a request may do so before it has read all of it.
    let written = stream.write_all(request);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    parse(&answer).with_context(|| format!("no answer: {answer:?} (sent: {written:?}, read: {read:?})"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split_whitespace().next()?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        assert_eq!(answer, Answer { status: 400, body: "{}".into() });
        assert_eq!(parse("HTTP/1.1 200 OK\r\n"), None);
    }
}
