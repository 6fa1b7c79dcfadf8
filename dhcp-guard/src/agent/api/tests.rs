//! The API on real sockets, in front of a decision loop that only notes what reaches it.

mod changes;
mod malformed;
mod queries;
mod rights;

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use dhcp_guard_common::layout::{ClientKey, PortCounters, Troubles};
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::{
    agent::{
        Context,
        follow::Reload,
        picture::{ClientPicture, PortPicture},
        plan::Plan,
        requests::{self, About, Asked, Change, Denied},
        sanctions::Sanctioned,
    },
    audit::{Settings, Writer},
    config::{Access, Config},
    dataplane::{clock::Moment, interface::Interface},
    engine::{Standing, Subject, Totals, Window},
    governor::{Author, Sanction},
    mac::Mac,
    model::{
        AllowReport, AttachMode, AuditRecord, Changed, Covered, Explained, Kind, QuarantineReport, State as Stands,
    },
    who::Who,
};

const MAC: Mac = Mac([2, 0, 0x5e, 0x10, 0, 1]);
/// Any answer comes sooner.
const LONG: Duration = Duration::from_secs(30);

/// What the decision loop says to every change.
type Say = fn(&Change) -> Result<Changed, Denied>;

/// An API in front of a decision loop that does nothing. It ends with the test's runtime.
struct Setup {
    socket: PathBuf,
    audit: audit::Handle,
    log: PathBuf,
    changes: Arc<Mutex<Vec<(Change, Author)>>>,
    explained: Arc<Mutex<Vec<About>>>,
    /// Whoever holds this keeps the decision loop waiting.
    brake: Arc<tokio::sync::Mutex<()>>,
    _dir: TempDir,
    _stop: watch::Sender<bool>,
}

fn done(_: &Change) -> Result<Changed, Denied> {
    Ok(Changed { dry_run: false, changes: vec!["done".into()] })
}

async fn setup() -> Setup {
    setup_with(Access::default(), done).await
}

async fn setup_with(access: Access, say: Say) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    // Other users are to get as far as the socket.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (socket, log) = (dir.path().join("agent.sock"), dir.path().join("audit.log"));
    let settings = Settings { path: log.clone(), max_bytes: 100_000_000, keep: 1 };
    let audit = Writer::start(settings, None, |report| panic!("{report}")).unwrap();
    let (requests, asked) = requests::channel();
    let setup = Setup {
        socket: socket.clone(),
        audit: audit.clone(),
        log,
        changes: Arc::default(),
        explained: Arc::default(),
        brake: Arc::default(),
        _dir: dir,
        _stop: serve_at(&socket, access, requests, audit).await,
    };
    tokio::spawn(decide(asked, say, setup.changes.clone(), setup.explained.clone(), setup.brake.clone()));
    setup
}

/// Serves until the sender is dropped.
async fn serve_at(socket: &Path, access: Access, requests: Requests, audit: audit::Handle) -> watch::Sender<bool> {
    let (stop, mut stopped) = watch::channel(false);
    let listener = bind(socket, &access).await.unwrap();
    let rights = Arc::new(Rights::new(&access).0);
    let pictures = watch::channel(Arc::new(picture(access))).1;
    let (reloads, asked) = Reloads::channel();
    tokio::spawn(read_again(asked));
    let shared = Shared { journal: Arc::default(), pictures, requests, reloads, audit, rights };
    stopped.mark_unchanged();
    tokio::spawn(serve(listener, shared, stopped));
    stop
}

/// Reads nothing, and says who wanted it and why; who says `no` for a reason gets a no.
async fn read_again(mut asked: mpsc::Receiver<Reload>) {
    while let Some(Reload { author, reason, dry_run, answer }) = asked.recv().await {
        let uid = match author {
            Some(Author::Person { uid, .. }) => uid,
            other => panic!("{other:?}"),
        };
        answer
            .send(match reason.as_str() {
                "no" => Err(Denied::Rules("line 3: nonsense".into())),
                _ => Ok(Changed { dry_run, changes: vec![format!("{uid}: {reason}")] }),
            })
            .unwrap();
    }
}

async fn decide(
    mut asked: mpsc::Receiver<Asked>,
    say: Say,
    changes: Arc<Mutex<Vec<(Change, Author)>>>,
    explained: Arc<Mutex<Vec<About>>>,
    brake: Arc<tokio::sync::Mutex<()>>,
) {
    while let Some(asked) = asked.recv().await {
        match asked {
            Asked::Change { change, author, answer } => {
                changes.lock().unwrap().push((change.clone(), author));
                drop(brake.lock().await);
                // Whoever asked may be gone.
                _ = answer.send(say(&change));
            }
            Asked::Explain { about, answer } => {
                explained.lock().unwrap().push(about);
                answer.send(Explained { as_of: now(), subjects: vec![] }).unwrap();
            }
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

/// eth0 with a VLAN.
fn context(access: Access) -> Context {
    let vlan = crate::config::Port { interface: "eth0".into(), vlans: vec![100], class: None, mode: None };
    let config = Config { interfaces: vec!["eth0".into()], ports: vec![vlan], access, ..Config::default() };
    let interface = Interface::bare("eth0", 0);
    Context {
        plan: Plan::new(&config, vec![interface], false),
        config,
        config_path: None,
        modes: vec![AttachMode::Native],
        machines: Arc::default(),
        started: now(),
        last_agent: Some(Duration::ZERO),
        warnings: vec![],
    }
}

/// The client of eth0.
fn key() -> ClientKey {
    ClientKey::from_mac(1, MAC.0)
}

/// Both ports, and an offender on eth0: it and eth0.100 have a state that their limits alone do not give them.
fn picture(access: Access) -> Picture {
    let moment = Moment { wall: now(), monotonic: LONG, ticks: 1000, ticks_per_s: 100 };
    let offends = Standing::Offender { since: Duration::ZERO, last_excess: LONG };
    let port = |standing| PortPicture {
        counters: PortCounters::ZERO,
        window: Window::default(),
        standing,
        distinct: Some(0),
        excess_ticks: (0, 0),
        replies: None,
    };
    let client = ClientPicture {
        key: key(),
        who: Who::Direct(MAC),
        known: false,
        totals: Totals::default(),
        window: Window::default(),
        standing: offends,
    };
    Picture {
        context: Arc::new(context(access)),
        moment,
        ports: vec![port(Standing::Normal), port(Standing::Normal), port(Standing::Normal)],
        clients: vec![client],
        non_dhcp: HashMap::new(),
        troubles: Troubles::default(),
        server_messages: None,
        sanctioned: Arc::new(sanctioned()),
    }
}

fn sanctioned() -> Sanctioned {
    let covered = |mac: Option<Mac>| Covered {
        interface: "eth0".into(),
        port: "eth0".into(),
        vlans: vec![],
        mac: mac.map(|mac| mac.to_string()),
    };
    Sanctioned {
        hold: Some("root: moving".into()),
        quarantines: vec![QuarantineReport {
            id: 7,
            kind: Kind::Client,
            covers: vec![covered(Some(MAC)), covered(None)],
            server_id: None,
            server_name: None,
            owner: None,
            action: Sanction::Mute,
            by: "engine".into(),
            reason: "floods".into(),
            since: now(),
            expires_at: now(),
            expires_in_s: 300,
            repeat: 0,
            times: None,
            outcomes: vec![],
        }],
        allowed: vec![AllowReport {
            who: covered(None),
            by: "configuration".into(),
            reason: None,
            since: None,
            expires_at: None,
        }],
        states: HashMap::from([(Subject::Client(key()), Stands::Quarantined), (Subject::Port(2), Stands::HeldBack)]),
        since: HashMap::from([(Subject::Port(2), now())]),
        warnings: vec!["a cap holds one back".into()],
    }
}

impl Setup {
    async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, "").await
    }

    async fn post(&self, path: &str, body: impl ToString) -> (u16, Value) {
        self.send("POST", path, &body.to_string()).await
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (socket, request) = (self.socket.clone(), request(method, path, body));
        in_thread(move || talk(&socket, &request)).await
    }

    /// What reached the decision loop since this was asked last.
    fn reached(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap()).into_iter().map(|(change, _)| change).collect()
    }

    /// The audit log.
    fn recorded(&self) -> Vec<AuditRecord> {
        assert!(self.audit.flush(LONG));
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// On a thread of its own, which may become somebody else.
async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (answer, answered) = tokio::sync::oneshot::channel();
    thread::spawn(move || answer.send(work()).ok());
    answered.await.unwrap()
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Status and document of the answer.
fn talk(socket: &Path, request: &[u8]) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request).unwrap();
    read_answer(&mut stream)
}

fn read_answer(stream: &mut UnixStream) -> (u16, Value) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body:?}")))
}

/// The sentence of a refusal, which is one line.
fn sentence(answer: &Value) -> String {
    let sentence = answer["error"].as_str().unwrap_or_else(|| panic!("no sentence: {answer}")).to_owned();
    assert!(!sentence.contains(char::is_control) && sentence.chars().count() < 600, "{sentence}");
    sentence
}
