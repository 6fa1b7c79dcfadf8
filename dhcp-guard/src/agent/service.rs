//! What the service manager is told: that the host is guarded, that the decisions go on, that the agent is stopping.
//!
//! systemd restarts a service that is silent for longer than `WatchdogSec`. The sign of life comes from the decision loop
//! itself, once a window, after everything that a window takes: a loop that hangs, or a reader that no longer reads, is
//! silent. The socket is written to by a thread of its own, because a service manager that does not read would stop
//! whoever writes. Where nobody asked to be told (`NOTIFY_SOCKET`) there is neither thread nor message.

use std::{
    env,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use log::warn;
use sd_notify::NotifyState;

use super::{picture::Picture, privileges};
use crate::human::counted;

/// Messages that may wait for the service manager. More are lost: the next sign of life comes a second later.
const QUEUE: usize = 8;

/// The way to the service manager. Nothing here waits for it.
#[derive(Clone, Debug, Default)]
pub struct Service {
    messages: Option<SyncSender<Message>>,
    /// It wants signs of life.
    watchdog: bool,
    /// What is guarded, in a few words.
    guarding: String,
    /// As last said.
    status: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Message {
    Ready(String),
    Alive,
    Status(String),
    Stopping,
}

impl Service {
    /// The one that started this process, if it wants to hear of it. `guarding`: what is guarded, in a few words.
    #[must_use]
    pub fn of_environment(guarding: &str) -> Self {
        if env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
            return Self::default();
        }
        let (messages, inbox) = mpsc::sync_channel(QUEUE);
        let thread = thread::Builder::new().name("service".into()).spawn(move || pass_on(&inbox));
        if let Err(error) = thread {
            warn!("no thread to tell the service manager anything, so it will take this start for a failure: {error}");
            return Self::default();
        }
        let watchdog = sd_notify::watchdog_enabled().is_some();
        Self { messages: Some(messages), watchdog, guarding: guarding.to_owned(), status: guarding.to_owned() }
    }

    /// The host is guarded.
    pub fn ready(&self) {
        self.send(Message::Ready(self.guarding.clone()));
    }

    /// From now on something else is guarded.
    pub fn now_guards(&mut self, guarding: String) {
        self.guarding = guarding;
    }

    /// The decision loop has made this picture.
    pub fn beat(&mut self, picture: &Picture) {
        if self.watchdog {
            self.send(Message::Alive);
        }
        let quarantines = picture.sanctioned.quarantines.len() as u64;
        self.say(quarantines, picture.sanctioned.hold.is_some());
    }

    /// The one line of `systemctl status`, when it changes.
    fn say(&mut self, quarantines: u64, hold: bool) {
        if self.messages.is_none() {
            return;
        }
        let mut status = self.guarding.clone();
        if quarantines > 0 {
            status += &format!(", {} in force", counted(quarantines, "quarantine"));
        }
        if hold {
            status += ", automatic quarantine is on hold";
        }
        if status != self.status {
            self.status.clone_from(&status);
            self.send(Message::Status(status));
        }
    }

    /// The agent ends, as it was asked to.
    pub fn stopping(&self) {
        self.send(Message::Stopping);
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages {
            // Full: the service manager does not read. Then it is not waited for.
            let _ = messages.try_send(message);
        }
    }
}

/// The thread. Ends with the last [`Service`].
fn pass_on(inbox: &Receiver<Message>) {
    privileges::give_up_all();
    let mut heard = true;
    for message in inbox {
        let sent = match &message {
            Message::Ready(status) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]),
            Message::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
            Message::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
            Message::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        };
        // Once, not once a second.
        if let (Err(error), true) = (&sent, heard) {
            warn!("cannot tell the service manager anything through NOTIFY_SOCKET, it may restart the agent: {error}");
        }
        heard = sent.is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(watchdog: bool) -> (Service, Receiver<Message>) {
        let (messages, inbox) = mpsc::sync_channel(QUEUE);
        let guarding = "guarding eth0".to_owned();
        (Service { messages: Some(messages), watchdog, status: guarding.clone(), guarding }, inbox)
    }

    #[test]
    fn the_status_is_said_when_it_changes() {
        let (mut service, inbox) = service(false);
        service.ready();
        service.say(0, false);
        service.say(1, true);
        service.say(1, true);
        service.say(0, false);
        service.now_guards("guarding eth1".to_owned());
        service.say(0, false);
        service.stopping();
        drop(service);
        let said = |status: &str| Message::Status(format!("guarding eth0{status}"));
        let expected = [
            Message::Ready("guarding eth0".into()),
            said(", 1 quarantine in force, automatic quarantine is on hold"),
            said(""),
            Message::Status("guarding eth1".into()),
            Message::Stopping,
        ];
        assert_eq!(inbox.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let (service, inbox) = service(true);
        for _ in 0..=2 * QUEUE {
            service.send(Message::Alive);
        }
        drop(service);
        assert_eq!(inbox.iter().count(), QUEUE);
    }
}
