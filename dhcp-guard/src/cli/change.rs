//! The commands that change something: ask the agent for it, and show what it did.

use std::{path::Path, time::Duration};

use anyhow::anyhow;
use serde::Serialize;

use super::{
    args::{
        AllowCommand, HoldArgs, How, OnOff, QuarantineAddArgs, QuarantineCommand, ReleaseArgs, ReloadArgs, UndoArgs,
        Which,
    },
    output::Output,
    query, render,
    source::Source,
};
use crate::{
    client::{Client, ClientError},
    governor::Sanction,
    model::{AllowRequest, Changed, HoldRequest, QuarantineRequest, ReleaseRequest, ReloadRequest, UndoRequest},
};

/// For the agent to make a change of what is guarded: to put the program on an interface can take its driver seconds, and all
/// that are named anew are in one change.
const LONG: Duration = Duration::from_secs(300);

/// A kind of change.
struct Change {
    path: &'static str,
    /// What shows whether it was made, where the agent could not say so.
    shown_by: &'static str,
}

const QUARANTINE_LIST: &str = "`dhcp-guard quarantine list` shows it";
const ALLOW_LIST: &str = "`dhcp-guard allow list` shows it";

const QUARANTINE_ADD: Change = Change { path: "/v1/quarantine/add", shown_by: QUARANTINE_LIST };
const QUARANTINE_RELEASE: Change = Change { path: "/v1/quarantine/release", shown_by: QUARANTINE_LIST };
const HOLD: Change = Change { path: "/v1/hold", shown_by: "`dhcp-guard status` shows it" };
const UNDO: Change =
    Change { path: "/v1/undo", shown_by: "`dhcp-guard quarantine list` and `dhcp-guard allow list` show it" };
const RELOAD: Change = Change { path: "/v1/reload", shown_by: "`dhcp-guard events` shows it" };
const ALLOW_ADD: Change = Change { path: "/v1/allow/add", shown_by: ALLOW_LIST };
const ALLOW_REMOVE: Change = Change { path: "/v1/allow/remove", shown_by: ALLOW_LIST };

pub(super) async fn quarantine(source: &Source, command: QuarantineCommand, out: &mut Output) -> anyhow::Result<()> {
    match command {
        QuarantineCommand::List(format) => query::quarantines(source, format, out).await,
        QuarantineCommand::Add(args) => add(source.socket(), args, out).await,
        QuarantineCommand::Release(args) => release(source.socket(), args, out).await,
    }
}

async fn add(socket: &Path, args: QuarantineAddArgs, out: &mut Output) -> anyhow::Result<()> {
    let request = QuarantineRequest {
        targets: args.targets,
        action: if args.isolate { Sanction::Isolate } else { Sanction::Mute },
        ttl_s: args.ttl,
        max: args.max,
        confirm: args.confirm,
        reason: args.reason,
        dry_run: args.how.dry_run,
        request_id: Some(new_id()),
    };
    ask(socket, &QUARANTINE_ADD, &request, args.how, out).await
}

async fn release(socket: &Path, args: ReleaseArgs, out: &mut Output) -> anyhow::Result<()> {
    let (id, target) = match args.which {
        Which::Id(id) => (Some(id), None),
        Which::Of(target) => (None, Some(target)),
    };
    let request =
        ReleaseRequest { id, target, reason: args.why.reason, dry_run: args.how.dry_run, request_id: Some(new_id()) };
    ask(socket, &QUARANTINE_RELEASE, &request, args.how, out).await
}

pub(super) async fn hold(socket: &Path, args: HoldArgs, out: &mut Output) -> anyhow::Result<()> {
    let hold = args.hold == OnOff::On;
    let request = HoldRequest { hold, reason: args.why.reason, dry_run: args.how.dry_run, request_id: Some(new_id()) };
    ask(socket, &HOLD, &request, args.how, out).await
}

pub(super) async fn undo(socket: &Path, args: UndoArgs, out: &mut Output) -> anyhow::Result<()> {
    let request = UndoRequest {
        since_s: args.since,
        reason: args.why.reason,
        dry_run: args.how.dry_run,
        request_id: Some(new_id()),
    };
    ask(socket, &UNDO, &request, args.how, out).await
}

pub(super) async fn reload(socket: &Path, args: ReloadArgs, out: &mut Output) -> anyhow::Result<()> {
    let request = ReloadRequest { reason: args.why.reason, dry_run: args.how.dry_run, request_id: Some(new_id()) };
    ask(socket, &RELOAD, &request, args.how, out).await
}

pub(super) async fn allow(source: &Source, command: AllowCommand, out: &mut Output) -> anyhow::Result<()> {
    let (change, how, target, for_s, reason) = match command {
        AllowCommand::List(format) => return query::allows(source, format, out).await,
        AllowCommand::Add(args) => (ALLOW_ADD, args.how, args.target, args.for_s, args.reason),
        AllowCommand::Remove(args) => (ALLOW_REMOVE, args.how, args.target, None, args.why.reason),
    };
    let request = AllowRequest { target, for_s, reason, dry_run: how.dry_run, request_id: Some(new_id()) };
    ask(source.socket(), &change, &request, how, out).await
}

/// Different for each request, so that one which arrives twice is carried out once.
fn new_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

async fn ask<T: Serialize>(
    socket: &Path,
    change: &Change,
    request: &T,
    how: How,
    out: &mut Output,
) -> anyhow::Result<()> {
    let client = Client::new(socket);
    let client = if change.path == RELOAD.path { client.with_deadline(LONG) } else { client };
    let answer = client.post(change.path, request).await;
    let changed: Changed = answer.map_err(|error| unanswered(error, change, how))?;
    if how.format.json {
        return out.json(&changed);
    }
    out.text(&render::changed(&changed, out.style()))
}

/// Whether it was done, or how to find out.
fn unanswered(error: ClientError, change: &Change, how: How) -> anyhow::Error {
    match error {
        ClientError::Unanswered { socket, why } if how.dry_run => {
            anyhow!("the agent on {} {why}: nothing was changed, this was a dry run", socket.display())
        }
        ClientError::Unanswered { .. } => anyhow!("{error}; as soon as an agent answers, {}", change.shown_by),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Mutex};

    use axum::http::StatusCode;
    use clap::Parser;
    use serde_json::{Value, json};

    use super::{
        super::{
            args::{Args, Command},
            fake_agent::Agent,
        },
        *,
    };
    use crate::model::values;

    async fn run(socket: &Path, line: &[&str]) -> anyhow::Result<String> {
        let (mut out, written) = Output::buffer();
        let args = Args::try_parse_from(["dhcp-guard"].iter().chain(line)).unwrap();
        match args.command {
            Command::Quarantine { command } => quarantine(&Source::agent(socket), command, &mut out).await?,
            Command::Hold(args) => hold(socket, args, &mut out).await?,
            Command::Undo(args) => undo(socket, args, &mut out).await?,
            Command::Reload(args) => reload(socket, args, &mut out).await?,
            Command::Allow { command } => allow(&Source::agent(socket), command, &mut out).await?,
            other => panic!("{other:?}"),
        }
        Ok(written.text())
    }

    fn done() -> Changed {
        Changed { dry_run: false, changes: vec!["port tap7 is muted for 5 min".into()] }
    }

    /// The ids that requests had.
    static IDS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

    /// What a command line asks the agent for, but for its id, which no other has.
    async fn asked(path: &str, line: &[&str]) -> Value {
        let agent = Agent::new().with_change(path, done());
        let asked = agent.asked();
        let (_dir, socket) = agent.serve();
        assert_eq!(run(&socket, line).await.unwrap(), "port tap7 is muted for 5 min\n");
        let (at, mut body) = asked.once();
        assert_eq!(at, path);
        let id = body.as_object_mut().unwrap().remove("request_id").unwrap();
        assert_eq!(values::request_id(id.as_str().unwrap()), Ok(()));
        assert!(IDS.lock().unwrap().insert(id.to_string()), "{id} was there before");
        body
    }

    #[tokio::test]
    async fn a_quarantine_is_asked_for_as_it_was_said() {
        assert_eq!(
            asked("/v1/quarantine/add", &["quarantine", "add", "tap7", "--reason", "it floods"]).await,
            json!({
                "targets": [{ "port": "tap7", "mac": null }], "action": "mute", "ttl_s": null, "max": null,
                "confirm": null, "reason": "it floods", "dry_run": false,
            })
        );
        let line =
            "quarantine add eth0.100/0200.5E10.0001 tap7 --isolate --ttl 10m --max 2 --confirm 2 --reason x --dry-run";
        assert_eq!(
            asked("/v1/quarantine/add", &line.split(' ').collect::<Vec<_>>()).await,
            json!({
                "targets": [{ "port": "eth0.100", "mac": "02:00:5e:10:00:01" }, { "port": "tap7", "mac": null }],
                "action": "isolate", "ttl_s": 600, "max": 2, "confirm": 2, "reason": "x", "dry_run": true,
            })
        );
    }

    #[tokio::test]
    async fn a_quarantine_is_released_by_its_number_or_by_whom_it_covers() {
        let path = "/v1/quarantine/release";
        assert_eq!(
            asked(path, &["quarantine", "release", "7"]).await,
            json!({ "id": 7, "target": null, "reason": "no reason given", "dry_run": false })
        );
        assert_eq!(
            asked(path, &["quarantine", "release", "tap7", "--reason", "fixed"]).await,
            json!({ "id": null, "target": { "port": "tap7", "mac": null }, "reason": "fixed", "dry_run": false })
        );
    }

    #[tokio::test]
    async fn hold_undo_and_allowlist_are_asked_for_as_they_were_said() {
        let reason = "no reason given";
        assert_eq!(
            asked("/v1/hold", &["hold", "on", "--dry-run"]).await,
            json!({ "hold": true, "reason": reason, "dry_run": true })
        );
        assert_eq!(
            asked("/v1/hold", &["hold", "off", "--reason", "x"]).await,
            json!({ "hold": false, "reason": "x", "dry_run": false })
        );
        assert_eq!(
            asked("/v1/undo", &["undo", "--since", "1h30m"]).await,
            json!({ "since_s": 5400, "reason": reason, "dry_run": false })
        );
        assert_eq!(asked("/v1/reload", &["reload", "--dry-run"]).await, json!({ "reason": reason, "dry_run": true }));
        let target = json!({ "port": "eth0", "mac": "02:00:5e:10:00:01" });
        assert_eq!(
            asked("/v1/allow/add", &["allow", "add", "eth0/0200.5e10.0001", "--for", "2h", "--reason", "x"]).await,
            json!({ "target": target, "for_s": 7200, "reason": "x", "dry_run": false })
        );
        assert_eq!(
            asked("/v1/allow/remove", &["allow", "remove", "eth0/0200.5e10.0001"]).await,
            json!({ "target": target, "for_s": null, "reason": reason, "dry_run": false })
        );
    }

    #[tokio::test]
    async fn the_answer_is_the_agent_s_document() {
        let (_dir, socket) = Agent::new().with_change("/v1/hold", done()).serve();
        let text = run(&socket, &["hold", "on", "--json"]).await.unwrap();
        assert_eq!(serde_json::from_str::<Changed>(&text).unwrap(), done());
    }

    #[tokio::test]
    async fn what_the_rules_refuse_is_the_agent_s_sentence() {
        for (status, by_rules) in [(StatusCode::CONFLICT, true), (StatusCode::FORBIDDEN, false)] {
            let (_dir, socket) = Agent::new().refusing("/v1/quarantine/add", status, "port tap7 is protected").serve();
            let error = run(&socket, &["quarantine", "add", "tap7", "--reason", "x"]).await.unwrap_err();
            assert!(error.to_string().ends_with("port tap7 is protected"), "{error}");
            assert_eq!(matches!(error.downcast_ref(), Some(ClientError::AgainstRules(_))), by_rules, "{status}");
        }
    }

    /// Whoever listens there hangs up as soon as it was asked.
    fn dies() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            _ = std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
        });
        (dir, socket)
    }

    #[tokio::test]
    async fn an_agent_that_dies_leaves_it_open_and_the_error_says_how_to_find_out() {
        for (line, shown_by) in [
            ("quarantine add tap7 --reason x", "`dhcp-guard quarantine list` shows it"),
            ("quarantine release 7", "`dhcp-guard quarantine list` shows it"),
            ("hold on", "`dhcp-guard status` shows it"),
            ("undo --since 10m", "`dhcp-guard quarantine list` and `dhcp-guard allow list` show it"),
            ("reload", "`dhcp-guard events` shows it"),
            ("allow add tap7 --reason x", "`dhcp-guard allow list` shows it"),
            ("allow remove tap7", "`dhcp-guard allow list` shows it"),
        ] {
            let (_dir, socket) = dies();
            let error = run(&socket, &line.split(' ').collect::<Vec<_>>()).await.unwrap_err().to_string();
            let end = format!(": it is not known whether it was done; as soon as an agent answers, {shown_by}");
            assert!(error.contains(" ended before it answered ") && error.ends_with(&end), "{line}: {error}");
        }
        let (_dir, socket) = dies();
        let error = run(&socket, &["hold", "on", "--dry-run"]).await.unwrap_err().to_string();
        assert!(error.ends_with(": nothing was changed, this was a dry run"), "{error}");
    }
}
