use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::{
    governor::{Allowance, Author, ClientName, Hold, PortName, Quarantine, Sanction, Subject, Target, memory::Past},
    mac::Mac,
    small_disk::{self, By},
    who::Behind,
};

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn subject(vlan: u16, client: Option<ClientName>) -> Subject {
    Subject { port: PortName { interface: "eth0".into(), vlans: vec![vlan] }, client }
}

/// A state with something of everything, and `more` entries of the allowlist.
fn saved(more: u16) -> Saved {
    let author = Author::Person { uid: 1000, user: Some("zoë \"z\"".into()), pid: Some(7) };
    let clients =
        [None, Some(ClientName::Mac(Mac([2; 6]))), Some(ClientName::Behind(Behind { relay: u64::MAX, client: 1 }))];
    let target = Target::new(Some("srv-1".into()), clients.map(|client| subject(100, client)).into());
    let reason = "12 pps, over 2 pps\nfor 10 s".to_owned();
    let allowance = |until| Allowance { author: author.clone(), reason: reason.clone(), since: time(1), until };
    Saved {
        next_id: u64::MAX - 1,
        quarantines: vec![Quarantine {
            id: 7,
            target: target.clone(),
            sanction: Sanction::Isolate,
            author: Author::Engine,
            reason: reason.clone(),
            since: time(0),
            until: time(300),
            found: true,
            repeat: 2,
        }],
        hold: Some(Hold { author: author.clone(), reason: reason.clone(), since: time(5) }),
        allowed: (0..=more).map(|vlan| (subject(vlan, None), allowance((vlan == 0).then(|| time(9))))).collect(),
        past: vec![(target.clone(), Past { times: 3, latest_end: time(300) })],
        pardoned: vec![(target, time(400))],
        began: vec![time(0), Timestamp::from_microsecond(1_700_000_000_123_456).unwrap()],
    }
}

fn open() -> (TempDir, StateFile) {
    let dir = tempfile::tempdir().unwrap();
    let file = StateFile::open(dir.path()).unwrap();
    (dir, file)
}

/// The names of all files that were set aside, sorted.
fn set_aside(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut aside: Vec<_> = all.filter(|path| path.to_str().unwrap().contains("/state.json.corrupt-")).collect();
    aside.sort();
    aside
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn what_is_saved_is_loaded() {
    let (dir, mut file) = open();
    for state in [saved(3), Saved::default(), saved(0)] {
        file.save(&state).unwrap();
        assert_eq!(file.load(), Loaded { saved: state, ..Loaded::default() });
    }
    drop(file);
    assert_eq!(StateFile::open(dir.path()).unwrap().load().saved, saved(0), "by the next agent, too");
    let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(NAME), 0o600);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [NAME], "and nothing is left behind");
}

#[test]
fn it_says_what_it_is() {
    let (_dir, mut file) = open();
    file.save(&saved(0)).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
    assert_eq!((&value["what"], &value["version"]), (&"dhcp-guard state".into(), &1.into()));
    assert_eq!(value["saved"]["quarantines"][0]["id"], 7);
}

#[test]
fn without_a_file_or_folder_the_state_is_empty() {
    let (dir, mut file) = open();
    let nothing = || Loaded { is_missing: true, ..Loaded::default() };
    assert_eq!(file.load(), nothing());
    assert!(is_empty(dir.path()), "looking is not writing");
    let deep = dir.path().join("a/b");
    let mut file = StateFile::open(&deep).unwrap();
    assert_eq!(file.load(), nothing());
    let mode = fs::metadata(&deep).unwrap().permissions().mode();
    assert_eq!(mode & 0o027, 0, "nobody else sees the folder: {mode:o}");
    file.save(&saved(0)).unwrap();
}

/// Also what a power cut makes of a file on some file systems: zeroes.
#[test]
fn cut_off_at_any_byte_it_is_whole_or_set_aside() {
    let (dir, mut file) = open();
    file.save(&saved(0)).unwrap();
    let whole = fs::read(file.path()).unwrap();
    for end in 0..whole.len() {
        let zeroes = [&whole[..end], &vec![0; whole.len() - end]].concat();
        for text in [&whole[..end], &zeroes] {
            fs::write(file.path(), text).unwrap();
            let Loaded { saved, problem, .. } = file.load();
            let problem = problem.unwrap();
            assert_eq!(saved, Saved::default(), "{end}: {problem}");
            assert!(problem.contains("state.json is damaged (") && !problem.contains('\n'), "{problem}");
            assert!(!file.path().exists());
            let aside = set_aside(dir.path());
            assert_eq!(aside.len(), 1, "{problem}");
            assert_eq!(fs::read(&aside[0]).unwrap(), text);
            fs::remove_file(&aside[0]).unwrap();
        }
    }
    fs::write(file.path(), whole).unwrap();
    assert_eq!(file.load(), Loaded { saved: saved(0), ..Loaded::default() });
}

#[test]
fn what_is_not_ours_is_set_aside_and_nothing_is_overwritten() {
    let (dir, mut file) = open();
    let texts = [
        ("", "damaged"),
        ("no JSON", "damaged"),
        ("{\"what\":\"a recipe\",\"version\":1,\"saved\":null}", "not a state of dhcp-guard"),
        ("[1, 2]", "not a state of dhcp-guard"),
        (
            "{\"what\":\"dhcp-guard state\",\"version\":2,\"saved\":[]}",
            "is of version 2, and this agent reads version 1",
        ),
        ("{\"what\":\"dhcp-guard state\",\"version\":0,\"saved\":[]}", "is of version 0"),
        ("{\"what\":\"dhcp-guard state\",\"version\":1,\"saved\":{\"next_id\":1}}", "damaged"),
    ];
    for (i, (text, problem)) in texts.into_iter().enumerate() {
        fs::write(file.path(), text).unwrap();
        let loaded = file.load();
        let told = loaded.problem.unwrap();
        assert_eq!(loaded.saved, Saved::default());
        assert!(told.contains(problem) && told.contains("; it is kept as state.json.corrupt-"), "{told}");
        assert_eq!(set_aside(dir.path()).len(), i + 1, "each has a name of its own, in the same second, too");
    }
    let mut kept: Vec<_> = set_aside(dir.path()).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut expected = texts.map(|(text, _)| text.to_owned());
    kept.sort();
    expected.sort();
    assert_eq!(kept, expected);
}

#[test]
fn saving_without_loading_overwrites_nothing_that_is_not_ours() {
    let (dir, mut file) = open();
    fs::write(file.path(), "a novel").unwrap();
    file.save(&saved(0)).unwrap();
    assert_eq!(file.load().saved, saved(0));
    assert_eq!(fs::read_to_string(&set_aside(dir.path())[0]).unwrap(), "a novel");
}

/// Things that one cannot read in peace: a folder, a FIFO that nobody writes, a link to nowhere.
#[test]
fn what_is_no_file_is_set_aside() {
    let (dir, mut file) = open();
    fs::create_dir(file.path()).unwrap();
    assert!(file.load().problem.unwrap().contains("is not a file"));
    if std::process::Command::new("mkfifo").arg(file.path()).status().is_ok_and(|status| status.success()) {
        assert!(file.load().problem.unwrap().contains("is not a file"));
    } else {
        eprintln!("skipped: a FIFO in the place of the state, because there is no mkfifo here");
    }
    std::os::unix::fs::symlink("nowhere", file.path()).unwrap();
    assert!(file.load().problem.unwrap().contains("cannot be read ("));
    assert!(set_aside(dir.path()).len() >= 2);
    file.save(&saved(0)).unwrap();
    assert_eq!(file.load().saved, saved(0));
}

/// An agent that was killed while it wrote leaves a part of the new file; the old one is what counts.
#[test]
fn a_draft_that_was_left_behind_is_nothing() {
    let (dir, mut file) = open();
    file.save(&saved(0)).unwrap();
    fs::write(dir.path().join(DRAFT), "{\"what\":").unwrap();
    assert_eq!(file.load(), Loaded { saved: saved(0), ..Loaded::default() });
    file.save(&saved(1)).unwrap();
    assert_eq!(file.load().saved, saved(1));
    assert!(!dir.path().join(DRAFT).exists());
}

#[test]
fn a_folder_has_one_agent() {
    let (dir, file) = open();
    let error = StateFile::open(dir.path()).unwrap_err().to_string();
    assert!(error.starts_with("another agent uses the state folder "), "{error}");
    drop(file);
    StateFile::open(dir.path()).unwrap();
    let taken = dir.path().join("file");
    fs::write(&taken, "").unwrap();
    let error = StateFile::open(&taken).unwrap_err().to_string();
    assert!(error.starts_with("cannot use the state folder ") && error.ends_with("with --state-dir"), "{error}");
}

#[test]
fn a_folder_that_is_gone_is_an_error_and_not_the_end() {
    let (dir, mut file) = open();
    fs::remove_dir(dir.path()).unwrap();
    let error = file.save(&saved(0)).unwrap_err().to_string();
    assert!(error.starts_with("cannot save the state to "), "{error}");
    fs::create_dir(dir.path()).unwrap();
    file.save(&saved(0)).unwrap();
}

/// Runs in a child (see `small_disk`), where 64 KiB are the whole disk.
#[test]
fn on_a_small_disk() {
    let Some(dir) = small_disk::folder() else { return };
    let mut file = StateFile::open(&dir).unwrap();
    file.save(&saved(3)).unwrap();
    for _ in 0..3 {
        let error = file.save(&saved(2_000)).unwrap_err();
        assert!(matches!(error, StateError::Write { .. }), "{error}");
        assert_eq!(file.load(), Loaded { saved: saved(3), ..Loaded::default() }, "the old one is untouched");
        assert!(!dir.join(DRAFT).exists(), "and what was begun is out of the way");
    }
    file.save(&saved(2)).unwrap();
    assert_eq!(file.load().saved, saved(2), "what has room is saved again");
}

#[test]
fn a_full_disk_leaves_the_old_state() {
    small_disk::run("state_file::tests::on_a_small_disk", By::Tmpfs);
    small_disk::run("state_file::tests::on_a_small_disk", By::FileLimit);
}
