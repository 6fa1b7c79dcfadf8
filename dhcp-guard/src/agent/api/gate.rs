//! How many may be connected at once. Connections cost the agent file descriptors, of which it needs some for the guard
//! itself; so nobody may hold many, and those who may change something always get in.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream, unix::SocketAddr},
    time::sleep,
};

use crate::agent::peers::Peer;

/// Connections of one user at once; followers of events are such. Root and the agent's own user have no limit.
const OF_ONE_USER: usize = 32;
/// Of all those users together.
const OF_ALL: usize = 256;
/// Before the next attempt when the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket, with so many places.
#[derive(Debug)]
pub(super) struct Gate {
    listener: UnixListener,
    places: Arc<Places>,
}

/// Connections of users that have a limit, by uid.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<u32, usize>>);

/// One of them; given back when it is dropped.
#[derive(Debug)]
struct Place {
    uid: u32,
    places: Arc<Places>,
}

/// A connection that has a place.
#[derive(Debug)]
pub(super) struct Held {
    stream: UnixStream,
    _place: Option<Place>,
}

impl Gate {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self { listener, places: Arc::default() }
    }

    /// The connection with its place; none: there is none for this user, who is told so.
    fn admit(&self, stream: UnixStream) -> Option<Held> {
        let uid = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
        if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
            return Some(Held { stream, _place: None });
        }
        if let Some(place) = Places::take(&self.places, uid) {
            return Some(Held { stream, _place: Some(place) });
        }
        let error = r#"{"error":"too many connections to the agent are open: close some, and ask again"}"#;
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{error}",
            error.len()
        );
        // It fits into an empty socket's buffer, or nobody is there to read it.
        let _ = stream.try_write(answer.as_bytes());
        None
    }
}

impl Places {
    fn take(this: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut taken = this.taken();
        let all: usize = taken.values().sum();
        let own = taken.entry(uid).or_default();
        if *own >= OF_ONE_USER || all >= OF_ALL {
            return None;
        }
        *own += 1;
        Some(Place { uid, places: Arc::clone(this) })
    }

    /// Numbers are never left half-changed.
    fn taken(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
        }
        taken.retain(|_, own| *own > 0);
    }
}

impl axum::serve::Listener for Gate {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    if let Some(held) = self.admit(stream) {
                        return (held, address);
                    }
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Gate>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Gate>) -> Self {
        Self::of(&stream.io().stream)
    }
}

impl AsyncRead for Held {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_holds_many_places_and_they_come_back() {
        let places = Arc::new(Places::default());
        let mut held: Vec<Place> = (0..OF_ONE_USER).filter_map(|_| Places::take(&places, 1000)).collect();
        assert_eq!(held.len(), OF_ONE_USER);
        assert!(Places::take(&places, 1000).is_none());
        let others: Vec<Place> = (1001..2000).filter_map(|uid| Places::take(&places, uid)).collect();
        assert_eq!(held.len() + others.len(), OF_ALL);
        held.pop();
        assert!(Places::take(&places, 1000).is_some());
        drop((held, others));
        assert!(places.taken().is_empty());
    }
}
