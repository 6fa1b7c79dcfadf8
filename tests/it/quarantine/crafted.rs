//! Requests made by hand. 7 April: one that was meant to fail skipped its checks and took away 1,574 load balancers.

use std::{
    fs, io,
    path::PathBuf,
    process::Output,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::model::AuditRecord;
use serde_json::{Value, json};
use tests::{
    agent::{Agent, Launch, errors},
    http,
    topology::{Lab, Layout},
    wait,
};

use super::{SEEN_DEADLINE, SERVER_PORT, with_server_port};

/// As many as the product's history had, and more.
const MASS: usize = 10_000;

/// Refusals that the agent puts on record at once; beyond, it does so now and then.
const ON_RECORD: usize = 80;

pub(super) fn changes_nothing() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, 4)?;
    let requests = crafted();
    for requests in requests.chunks(ON_RECORD) {
        let guarded = Guarded::new(&lab)?;
        let before = guarded.documents()?;
        for (path, body) in requests {
            guarded.refuses(path, body).with_context(|| format!("{path} {body:.100}"))?;
        }
        guarded.is_as(&before)?;
        guarded.end()?;
    }
    let guarded = Guarded::new(&lab)?;
    let before = guarded.documents()?;
    guarded.refuses_a_replay()?;
    let commands = refused_commands();
    for words in &commands {
        let refused = guarded.refusals()?;
        let output = guarded.run(words)?;
        // 1: the rules say no. 2: there is nobody of that name.
        ensure!(matches!(output.status.code(), Some(1 | 2)), "{words:?}: {output:?}");
        guarded.is_on_record(refused).with_context(|| words.join(" "))?;
    }
    for words in misspelled_commands() {
        let output = guarded.run(words)?;
        ensure!(output.status.code() == Some(2), "{words:?}: {output:?}");
    }
    guarded.is_as(&before)?;
    println!("{} crafted requests and {} commands refused and recorded", requests.len(), commands.len());
    Ok(())
}

/// An agent with something already there that could be taken away.
struct Guarded {
    agent: Agent,
}

impl Guarded {
    fn new(lab: &Lab) -> Result<Self> {
        let agent = Launch::new(&lab.host, &with_server_port(lab))?.config(SERVER_PORT)?.start()?;
        for words in [
            &["quarantine", "add", "em0", "--ttl", "1h", "--reason", "was here before"][..],
            &["allow", "add", "em1", "--for", "2h", "--reason", "was here before"],
        ] {
            ensure!(!agent.change(words)?.is_empty(), "{words:?} changed nothing");
        }
        let guarded = Self { agent };
        let count = |now: &Value| {
            super::list(&now["quarantines"], "quarantines").count() + super::list(&now["allowed"], "allowed").count()
        };
        guarded.documents_when(|now| count(now) == 2)?;
        Ok(guarded)
    }

    /// Nothing has changed, nor does it with the next reading.
    fn is_as(&self, before: &Value) -> Result<()> {
        let start = Instant::now();
        wait::until("the agent's next reading", SEEN_DEADLINE, || Ok(start.elapsed() >= Duration::from_millis(1500)))?;
        let after = self.documents()?;
        ensure!(after == *before, "before: {before}\nafter: {after}");
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        super::stop(&mut self.agent)
    }

    /// What was right once, and was taken back, is not done again when it comes again.
    fn refuses_a_replay(&self) -> Result<()> {
        let body = json!({ "targets": [{ "port": "em2" }], "reason": "was right", "request_id": "once" }).to_string();
        let answer = http::post(&self.agent.socket(), "/v1/quarantine/add", &body)?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(!self.agent.change(&["quarantine", "release", "em2"])?.is_empty(), "it was not there");
        self.refuses("/v1/quarantine/add", &body).context("a replay")
    }

    /// Sends a request that is to be refused, in a sentence, and recorded.
    fn refuses(&self, path: &str, body: &str) -> Result<()> {
        let refused = self.refusals()?;
        let answer = http::post(&self.agent.socket(), path, body)?;
        ensure!((400..500).contains(&answer.status), "{answer:?}");
        let error = serde_json::from_str::<Value>(&answer.body).ok().map(|body| body["error"].clone());
        let sentence = error.as_ref().and_then(Value::as_str).unwrap_or_default();
        ensure!(sentence.contains(' '), "no sentence in {answer:?}");
        self.is_on_record(refused)
    }

    /// All that a change could change, as the queries show it, without what goes by the clock, and without when the data
    /// plane was told: it is told again of what is put back.
    fn documents(&self) -> Result<Value> {
        let mut quarantines = self.agent.json(&["quarantine", "list"])?;
        for quarantine in quarantines["quarantines"].as_array_mut().context("no list of quarantines")? {
            let fields = quarantine.as_object_mut().context("no quarantine")?;
            ["expires_in_s", "outcomes"].into_iter().for_each(|name| drop(fields.remove(name)));
        }
        let mut allowed = self.agent.json(&["allow", "list"])?;
        for document in [&mut quarantines, &mut allowed] {
            document.as_object_mut().context("no document")?.remove("as_of");
        }
        let hold = &self.agent.json(&["status"])?["hold"];
        Ok(json!({ "quarantines": quarantines, "allowed": allowed, "hold": hold }))
    }

    /// The same as soon as they are as they should be: what is listed is as new as the agent's latest reading.
    fn documents_when(&self, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut now = Value::Null;
        wait::until("the change in what is listed", SEEN_DEADLINE, || {
            now = self.documents()?;
            Ok(is_so(&now))
        })
        .with_context(|| format!("at last: {now}"))?;
        Ok(now)
    }

    fn run(&self, words: &[&str]) -> Result<Output> {
        self.agent.command(words).output().context("cannot run the CLI")
    }

    /// How many refusals the audit log has.
    fn refusals(&self) -> Result<usize> {
        Ok(audit(&self.agent)?.iter().filter(|record| record.refused.is_some()).count())
    }

    /// Waits until the audit log has exactly one refusal more.
    fn is_on_record(&self, before: usize) -> Result<()> {
        wait::until("a refusal in the audit log", SEEN_DEADLINE, || Ok(self.refusals()? > before))?;
        ensure!(self.refusals()? == before + 1, "{} refusals of one request", self.refusals()? - before);
        let records = audit(&self.agent)?;
        let latest = records.iter().rev().find(|record| record.refused.is_some()).context("no refusal")?;
        ensure!(latest.after.is_none() && latest.author.is_some(), "{latest:?}");
        Ok(())
    }
}

/// The audit log.
fn audit(agent: &Agent) -> Result<Vec<AuditRecord>> {
    let path: PathBuf = agent.launch().state_dir().join("audit.log");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    // The latest record may be half there while it is being written.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).with_context(|| format!("not a record: {line}"))).collect()
}

/// Empty, everything, wrong.
fn crafted() -> Vec<(&'static str, String)> {
    const ADD: &str = "/v1/quarantine/add";
    const RELEASE: &str = "/v1/quarantine/release";
    const ALLOW: &str = "/v1/allow/add";
    const DISALLOW: &str = "/v1/allow/remove";
    const HOLD: &str = "/v1/hold";
    const UNDO: &str = "/v1/undo";
    let em2 = json!({ "port": "em2" });
    let add = |targets: Value| (ADD, json!({ "targets": targets, "reason": "crafted" }).to_string());
    let with = |path, more: &[(&str, Value)]| {
        let mut body = match path {
            ADD => json!({ "targets": [em2], "reason": "crafted" }),
            ALLOW | DISALLOW => json!({ "target": em2, "reason": "crafted" }),
            _ => json!({ "reason": "crafted" }),
        };
        more.iter().for_each(|(key, value)| body[*key] = value.clone());
        (path, body.to_string())
    };
    let mut all = mass();
    // Nothing, in its many forms.
    for path in [ADD, RELEASE, ALLOW, DISALLOW, HOLD, UNDO] {
        for body in ["", "{}", "[]", "null", "\"*\"", "*", "true", "{\"reason\": \"crafted\"}", "{\"targets\": ["] {
            all.push((path, body.to_owned()));
        }
        all.push((path, "[".repeat(100_000)));
    }
    // Nobody, and everybody.
    all.push(add(json!([])));
    for target in [
        json!("*"),
        json!("em2"),
        json!(null),
        json!({}),
        json!({ "port": "*" }),
        json!({ "port": "em*" }),
        json!({ "port": "" }),
        json!({ "port": "all" }),
        json!({ "port": ["em2"] }),
        json!({ "port": "em2", "mac": "*" }),
        json!({ "port": "em2", "mac": "" }),
        json!({ "port": "em2", "mac": "02:00:00:00:00:00:01" }),
        json!({ "mac": "02:00:00:00:00:01" }),
        json!({ "port": "em2", "all": true }),
        json!({ "port": "em2.4095" }),
        json!({ "port": "em99" }),
        json!({ "port": "em2; rm -rf /" }),
    ] {
        all.push(add(json!([target])));
        all.push(with(ALLOW, &[("target", target.clone())]));
        all.push(with(RELEASE, &[("target", target)]));
    }
    all.push(add(json!({ "0": em2 })));
    all.push(add(em2.clone()));
    // Several, without agreement.
    let two = json!([{ "port": "em2" }, { "port": "em3" }]);
    all.push(add(two.clone()));
    for (max, confirm) in [(json!(2), json!(3)), (json!(1), json!(2)), (json!(2), json!(null)), (json!(null), json!(2))]
    {
        all.push(with(ADD, &[("targets", two.clone()), ("max", max), ("confirm", confirm)]));
    }
    // Unknown fields, wrong types, numbers beyond all bounds.
    for (key, value) in [
        ("request_id", json!("")),
        ("request_id", json!(7)),
        ("request_id", json!("x".repeat(65))),
        ("all", json!(true)),
        ("ttl", json!("1h")),
        ("ttl_s", json!("1h")),
        ("ttl_s", json!(0)),
        ("ttl_s", json!(-1)),
        ("ttl_s", json!(1.5)),
        ("ttl_s", json!(u64::MAX)),
        ("action", json!("delete")),
        ("action", json!("")),
        ("max", json!(-1)),
        ("confirm", json!("1")),
        ("dry_run", json!("yes")),
        ("reason", json!(7)),
        ("reason", json!("")),
        ("reason", json!("x".repeat(100_000))),
    ] {
        all.push(with(ADD, &[(key, value)]));
    }
    for (key, value) in [("for_s", json!(-1)), ("for_s", json!(0)), ("for_s", json!("1h")), ("mac", json!(null))] {
        all.push(with(ALLOW, &[(key, value)]));
    }
    for value in [json!("all"), json!("1"), json!(-1), json!(999), json!(u64::MAX), json!([1]), json!(1.0e30)] {
        all.push(with(RELEASE, &[("id", value)]));
    }
    all.push(with(RELEASE, &[("id", json!(1)), ("target", json!({ "port": "em0" }))]));
    all.push(with(DISALLOW, &[]));
    for value in [json!("on"), json!(1), json!(null), json!([true])] {
        all.push(with(HOLD, &[("hold", value)]));
    }
    for value in [json!(0), json!(-1), json!("10m"), json!(null), json!(1.0e30), json!([60])] {
        all.push(with(UNDO, &[("since_s", value)]));
    }
    all
}

/// Ten thousand at once.
fn mass() -> Vec<(&'static str, String)> {
    let port = |index: usize| json!({ "port": format!("em{index}") });
    let client = |index: usize| json!({ "port": "em2", "mac": super::mac(index).to_string() });
    let ports: Value = (0..MASS).map(port).collect();
    let clients: Value = (0..MASS).map(client).collect();
    let body = |targets: &Value, max: Value, confirm: Value| {
        let body = json!({
            "targets": targets, "max": max, "confirm": confirm, "reason": "crafted", "request_id": "mass",
        });
        ("/v1/quarantine/add", body.to_string())
    };
    vec![
        body(&ports, json!(null), json!(null)),
        // Of those, four are here.
        body(&ports, json!(MASS), json!(MASS)),
        body(&clients, json!(null), json!(null)),
        body(&clients, json!(MASS), json!(MASS - 1)),
        body(&clients, json!(1), json!(MASS)),
        body(&clients, json!(MASS), json!(null)),
    ]
}

/// Commands that the agent refuses.
fn refused_commands() -> [&'static [&'static str]; 8] {
    [
        &["quarantine", "add", "em2", "em3", "--reason", "crafted"],
        &["quarantine", "add", "em2", "em3", "--max", "2", "--confirm", "3", "--reason", "crafted"],
        &["quarantine", "add", "em2", "em3", "--max", "1", "--confirm", "2", "--reason", "crafted"],
        &["quarantine", "add", "em99", "--reason", "crafted"],
        &["quarantine", "add", "em1", "--reason", "it is allowed"],
        &["quarantine", "add", "to-server", "--reason", "it is trusted"],
        &["quarantine", "release", "999"],
        &["allow", "remove", "em3"],
    ]
}

/// Commands that do not get as far as the agent.
fn misspelled_commands() -> [&'static [&'static str]; 7] {
    [
        &["quarantine", "add", "--reason", "crafted"],
        &["quarantine", "add", "*", "--reason", "crafted"],
        &["quarantine", "add", "02:00:00:00:00:01", "--reason", "crafted"],
        &["quarantine", "add", "em2", "--ttl", "0s", "--reason", "crafted"],
        &["quarantine", "release", "*"],
        &["undo", "--since", "0s"],
        &["allow", "add", "*", "--reason", "crafted"],
    ]
}

pub(super) fn undone() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, 4)?;
    let guarded = Guarded::new(&lab)?;
    let before = guarded.documents()?;
    let start = Instant::now();
    // Undoing counts in whole seconds, and must not reach back to what was there before.
    wait::until("two seconds", SEEN_DEADLINE, || Ok(start.elapsed() >= Duration::from_secs(2)))?;
    let first = Instant::now();
    for words in [
        &["quarantine", "add", "em2", "--ttl", "10m", "--reason", "one"][..],
        &["quarantine", "add", "em3/02:00:00:00:00:04", "--isolate", "--reason", "two"],
        &["quarantine", "add", "em0", "--ttl", "2h", "--reason", "longer"],
        &["quarantine", "release", "em0", "--reason", "three"],
        &["quarantine", "release", "em2"],
        &["allow", "add", "em2/02:00:00:00:00:03", "--reason", "four"],
        &["allow", "remove", "em1"],
        &["allow", "add", "em0", "--for", "1h", "--reason", "five"],
        &["hold", "on", "--reason", "six"],
    ] {
        ensure!(!guarded.agent.change(words)?.is_empty(), "{words:?} changed nothing");
    }
    let between = guarded.documents_when(|now| now["hold"] == true && !now["quarantines"]["hold"].is_null())?;
    ensure!(between["quarantines"] != before["quarantines"] && between["allowed"] != before["allowed"], "{between}");

    // Half a second more than has passed, for the commands to come.
    let since = format!("{}s", (first.elapsed() + Duration::from_millis(500)).as_secs() + 1);
    let undo = ["undo", "--since", since.as_str(), "--reason", "test"];
    let told = guarded.agent.change(&[&undo[..], &["--dry-run"]].concat())?;
    ensure!(guarded.documents()? == between, "a dry run changed something");
    let undone = guarded.agent.change(&undo)?;
    ensure!(!undone.is_empty() && undone == told, "undone: {undone:?}, but told: {told:?}");
    guarded.documents_when(|now| *now == before).with_context(|| format!("before: {before}"))?;

    // The log is written while the agent goes on.
    let mut records = Vec::new();
    wait::until("the hold to be on record", SEEN_DEADLINE, || {
        records = audit(&guarded.agent)?;
        Ok(records.iter().any(|record| record.reason == "six"))
    })?;
    ensure!(records.iter().all(|record| record.refused.is_none()), "{records:?}");
    let again = guarded.run(&["undo", "--since", "1s"])?;
    println!("{} undone; once more: {}", undone.len(), errors(&again).trim());
    Ok(())
}
