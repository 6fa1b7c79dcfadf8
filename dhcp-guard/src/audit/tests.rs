//! The writer with real files, full disks, and disks that do not answer.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    process::Command,
    sync::mpsc::{self, Receiver},
    time::Instant,
};

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::{
    governor::{Author, PortName, Subject},
    model::Evidence,
    state_file::StateFile,
};

/// Long enough for any disk of a machine that runs tests; nothing waits for so long unless it fails.
const LONG: Duration = Duration::from_secs(30);
/// Longer than any test: what is tried again before was asked for.
const NEVER: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(10);

fn record(number: u64) -> AuditRecord {
    AuditRecord {
        at: Timestamp::from_second(1_700_000_000).unwrap(),
        author: Some(Author::Person { uid: 0, user: Some("root".into()), pid: None }),
        action: "quarantine_add".into(),
        subjects: vec![Subject { port: PortName { interface: "eth0".into(), vlans: vec![100, 20] }, client: None }],
        reason: format!("{number}"),
        refused: number.is_multiple_of(2).then(|| "two\nlines".into()),
        evidence: Some(Evidence { packets: vec![1, 2, 3], ..Evidence::default() }),
        before: None,
        after: Some(serde_json::json!({ "number": number })),
    }
}

fn state(next_id: u64) -> Saved {
    Saved { next_id, ..Saved::default() }
}

struct Setup {
    dir: TempDir,
    path: PathBuf,
    handle: Handle,
    reports: Receiver<Report>,
}

/// A writer in a folder that `prepare` has made ready.
fn setup(capacity: usize, retry: Duration, prepare: impl FnOnce(&Path)) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    prepare(&path);
    let (sender, reports) = mpsc::channel();
    let settings = Settings { path: path.clone(), max_bytes: 1_000_000, keep: 1 };
    let file = StateFile::open(dir.path()).unwrap();
    let report = move |report| drop(sender.send(report));
    let handle = Writer::start_with(settings, Some(file), report, capacity, retry).unwrap();
    Setup { dir, path, handle, reports }
}

fn read(path: &Path) -> Vec<AuditRecord> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn full_disk(path: &Path) {
    symlink("/dev/full", path).unwrap();
}

#[test]
fn records_are_written_in_their_order_and_read_back_as_they_were() {
    let Setup { path, handle, reports, dir } = setup(1000, NEVER, |_| {});
    let other = handle.clone();
    (0..500).for_each(|i| if i % 3 == 0 { other.record(record(i)) } else { handle.record(record(i)) });
    handle.save(state(5));
    assert!(handle.flush(LONG));
    assert_eq!(read(&path), (0..500).map(record).collect::<Vec<_>>());
    assert_eq!(handle.health(), Health::default());
    assert_eq!(reports.try_recv().ok(), None, "all is well: nothing to say");
    drop(other);
    handle.record(record(500));
    handle.save(state(6));
    drop(handle);
    // The end of the writer gives the folder's lock back.
    wait_until("the writer ends with its last handle", || StateFile::open(dir.path()).is_ok());
    assert_eq!(StateFile::open(dir.path()).unwrap().load().saved, state(6), "and writes what is left");
    assert_eq!(read(&path).len(), 501);
}

#[test]
fn a_full_disk_is_reported_once_and_nothing_is_lost_while_there_is_room() {
    let Setup { path, handle, reports, dir: _dir } = setup(100, SOON, full_disk);
    (0..100).for_each(|i| handle.record(record(i)));
    wait_until("it tries again and again", || handle.health().failed_records >= 3);
    let health = handle.health();
    assert_eq!((health.lost, health.problems.len()), (0, 1));
    let Report::Failed(sentence) = reports.recv_timeout(LONG).unwrap() else { panic!() };
    assert_eq!(sentence, health.problems[0]);
    assert!(sentence.starts_with("cannot write the audit log "), "{sentence}");
    assert!(sentence.contains("No space left on device") && sentence.contains("up to 100 records wait"), "{sentence}");
    assert!(!handle.flush(LONG), "a flush tells, and does not wait for ever");

    fs::remove_file(&path).unwrap();
    wait_until("it works again by itself", || handle.health().problems.is_empty());
    assert!(handle.flush(LONG));
    assert_eq!(read(&path), (0..100).map(record).collect::<Vec<_>>(), "in their order");
    let again = reports.recv_timeout(LONG).unwrap();
    assert_eq!(again, Report::WorksAgain(format!("the audit log {} is written again", path.display())));
    assert_eq!(reports.try_recv().ok(), None, "each change is told once");
}

#[test]
fn when_too_many_wait_the_oldest_are_lost_and_the_log_says_so() {
    let Setup { path, handle, reports, dir: _dir } = setup(10, NEVER, full_disk);
    (0..1_000).for_each(|i| handle.record(record(i)));
    assert!(!handle.flush(LONG));
    let health = handle.health();
    assert_eq!((health.waiting, health.lost), (10, 990));
    fs::remove_file(&path).unwrap();
    assert!(handle.flush(LONG), "a flush tries at once");
    let written = read(&path);
    assert_eq!(written[0].action, "audit_lost");
    assert!(written[0].reason.starts_with("990 records of this log, from before the next one"), "{:?}", written[0]);
    assert_eq!(written[1..], (990..1_000).map(record).collect::<Vec<_>>());
    let told: Vec<_> = reports.try_iter().map(|report| report.to_string()).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("cannot write") && told[1].starts_with("990 records"), "{told:?}");
    assert!(told[2].ends_with("is written again"), "{told:?}");
}

#[test]
fn the_log_and_the_state_fail_each_for_itself() {
    let Setup { path, handle, reports, dir } = setup(10, NEVER, full_disk);
    handle.record(record(0));
    (0..50).for_each(|i| handle.save(state(i)));
    assert!(!handle.flush(LONG));
    let saved = fs::read_to_string(dir.path().join("state.json")).unwrap();
    assert!(saved.contains("\"next_id\":49"), "the latest one: {saved}");
    assert_eq!(handle.health().failed_saves, 0);

    // Now the other way round. A folder in the place of the draft cannot be written, not even by root.
    fs::remove_file(&path).unwrap();
    let blocker = dir.path().join("state.json.new");
    fs::create_dir(&blocker).unwrap();
    handle.save(state(100));
    handle.record(record(1));
    assert!(!handle.flush(LONG));
    assert_eq!(read(&path), [record(0), record(1)]);
    let health = handle.health();
    assert!(health.failed_saves > 0 && health.problems.len() == 1, "{health:?}");
    assert!(health.problems[0].starts_with("cannot save the state to "), "{health:?}");
    fs::remove_dir(&blocker).unwrap();
    assert!(handle.flush(LONG), "what failed was kept, and is saved now");
    assert!(fs::read_to_string(dir.path().join("state.json")).unwrap().contains("\"next_id\":100"));
    let told: Vec<_> = reports.try_iter().map(|report| matches!(report, Report::Failed(_))).collect();
    assert_eq!(told, [true, true, false, false], "each change is told once");
}

#[test]
fn what_has_not_changed_is_not_saved_again() {
    let Setup { handle, dir, .. } = setup(10, NEVER, |_| {});
    handle.save(state(1));
    assert!(handle.flush(LONG));
    let file = dir.path().join("state.json");
    fs::remove_file(&file).unwrap();
    handle.save(state(1));
    assert!(handle.flush(LONG) && !file.exists());
    handle.save(state(2));
    assert!(handle.flush(LONG) && file.exists());
}

/// A FIFO that nobody reads: whoever opens it waits for ever, as on a disk that does not answer. The bound is the time of
/// all calls together, and generous: one call that waited for the disk would take for ever, while a single slow one may be
/// the scheduler's.
#[test]
fn a_disk_that_does_not_answer_is_nothing_to_the_caller() {
    let made = |path: &Path| Command::new("mkfifo").arg(path).status().is_ok_and(|status| status.success());
    if !made(&tempfile::tempdir().unwrap().path().join("fifo")) {
        eprintln!("skipped: a disk that does not answer, because there is no mkfifo here");
        return;
    }
    const CALLS: u64 = 10_000;
    let Setup { path, handle, dir: _dir, reports } = setup(100, SOON, |path| assert!(made(path)));
    handle.record(record(0));
    wait_until("the writer has taken the first one", || handle.health().waiting == 0);
    let records: Vec<_> = (1..CALLS).map(record).collect();
    let start = Instant::now();
    for (i, record) in records.into_iter().enumerate() {
        handle.record(record);
        handle.save(state(i as u64));
        let _ = handle.health();
    }
    let mean = start.elapsed() / CALLS as u32;
    assert!(mean < Duration::from_millis(1), "{mean:?} for record, save and health");
    assert!(!handle.flush(SOON), "and waiting ends when it was to end");
    assert_eq!((handle.health().waiting, handle.health().lost), (100, CALLS - 101));

    // The disk answers again. Opened for writing, too, so that it has no end while the writer opens and closes it.
    let mut disk = BufReader::new(OpenOptions::new().read(true).write(true).open(&path).unwrap()).lines();
    let mut next = || serde_json::from_str::<AuditRecord>(&disk.next().unwrap().unwrap()).unwrap();
    assert_eq!(next(), record(0));
    assert_eq!(next().action, "audit_lost");
    (CALLS - 100..CALLS).for_each(|i| assert_eq!(next(), record(i)));
    assert!(handle.flush(LONG));
    let told: Vec<_> = reports.try_iter().map(|report| report.to_string()).collect();
    assert!(told.len() == 1 && told[0].starts_with("9,899 records of the audit log "), "{told:?}");
}

#[test]
fn without_a_state_file_records_are_written_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(dir.path(), &Audit { max_bytes: 10_000, keep: 2 });
    let path = settings.path.clone();
    assert_eq!(
        (path.as_path(), settings.max_bytes, settings.keep),
        (dir.path().join("audit.log").as_path(), 10_000, 2)
    );
    let handle = Writer::start(settings, None, |_| {}).unwrap();
    handle.save(state(1));
    (0..200).for_each(|i| handle.record(record(i)));
    assert!(handle.flush(LONG));
    assert_eq!(read(&path).last(), Some(&record(199)));
    let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["audit.log", "audit.log.1", "audit.log.2"]);
    assert!(File::open(&path).unwrap().metadata().unwrap().len() <= 10_000);
}

#[test]
fn nowhere_takes_everything_and_waits_for_nothing() {
    let handle = Handle::nowhere();
    handle.record(record(1));
    handle.save(state(1));
    assert!(handle.flush(NEVER));
    assert_eq!((handle.health().waiting, handle.health().problems.len()), (0, 0));
}

#[test]
fn a_writer_that_panics_is_a_problem_and_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { path: dir.path().join("audit.log"), max_bytes: 1, keep: 1 };
    full_disk(&settings.path);
    let report = |_| panic!("this test's report panics, on purpose");
    let handle = Writer::start_with(settings, None, report, 10, SOON).unwrap();
    handle.record(record(1));
    wait_until("it is a problem", || handle.health().problems.iter().any(|problem| problem.contains("has ended")));
    handle.record(record(2));
    assert!(!handle.flush(NEVER), "the first one is not written");
    assert_eq!(handle.health().lost, 1);
}
