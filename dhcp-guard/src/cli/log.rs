//! The log, on standard error, by a thread of its own: whoever reads it may be slow or stuck, and the agent must not be.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use env_logger::{Builder, Env, Target, WriteStyle};

use crate::agent::privileges;

/// Messages that may wait for the reader. More are lost, and the log says how many.
const QUEUE: usize = 1024;
/// How long the end of the program waits for the last messages to be read.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Keeps the log until the end; dropping it writes what is still waiting, if somebody reads it.
#[must_use]
pub(super) struct Log(Option<SyncSender<Message>>);

enum Message {
    Text(Vec<u8>),
    /// Everything before this is written.
    Flush(SyncSender<()>),
}

/// Logs what `RUST_LOG` asks for, or else `default`.
pub(super) fn start(default: &str) -> Log {
    let (queue, messages) = mpsc::sync_channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    let writer = Queue { queue: queue.clone(), lost: Arc::clone(&lost) };
    let body = move || {
        privileges::give_up_all();
        write_all(&messages, &lost);
    };
    let mut builder = Builder::from_env(Env::default().default_filter_or(default));
    // Without a thread there is still the log itself.
    if thread::Builder::new().name("log".into()).spawn(body).is_err() {
        builder.init();
        return Log(None);
    }
    let style = if io::stderr().is_terminal() { WriteStyle::Always } else { WriteStyle::Never };
    builder.target(Target::Pipe(Box::new(writer))).write_style(style).init();
    Log(Some(queue))
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(queue) = &self.0 {
            let (done, written) = mpsc::sync_channel(1);
            if queue.try_send(Message::Flush(done)).is_ok() {
                let _ = written.recv_timeout(LAST_WORDS);
            }
        }
    }
}

/// What env_logger writes to: one call a message.
struct Queue {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Write for Queue {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Text(text.to_vec())) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(messages: &mpsc::Receiver<Message>, lost: &AtomicU64) {
    let mut out = io::stderr();
    for message in messages {
        // A log that nobody can read is no reason to stop.
        match message {
            Message::Text(text) => drop(out.write_all(&text)),
            Message::Flush(done) => drop(done.try_send(())),
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => drop(writeln!(out, "... {lost} log messages lost, because nobody read the log in time")),
        }
    }
}
