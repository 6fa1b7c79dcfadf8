//! Reads the inventory again when its file changes. The file is looked at once a second, which costs one system call:
//! that works on every file system and through every way of replacing a file, which cannot be said of notifications.
//!
//! A file that is being written is left alone until it has been the same for a second. What cannot be used never takes the
//! place of what can: the inventory that was read before stays, with a sentence about it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::Inventory;

/// For so long a file must have been the same.
const QUIET: Duration = Duration::from_secs(1);
/// So many problems are listed one by one; `config check` lists them all.
const LISTED: usize = 20;

/// What is known of machines at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Who is where.
    pub inventory: Arc<Inventory>,
    /// What is wrong with the file, in sentences.
    pub warnings: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Watcher {
    path: PathBuf,
    /// What the file was when it was last read, or not found.
    settled: Option<Stamp>,
    /// What it was when it was last looked at, if that is something else, and since when.
    changing: Option<(Option<Stamp>, Instant)>,
    inventory: Arc<Inventory>,
    /// What is wrong with rows of the inventory that is in use.
    problems: Vec<String>,
    /// Why that is not what the file says.
    trouble: Option<String>,
}

/// Enough to tell that a file is not the same as before. The time of the last change of its status (ctime) is there for
/// tools that set the other one back, and for permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// None: there is no file, or none that may be looked at.
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            place: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

impl Watcher {
    /// Reads a file for the first time, at once; see [`Self::known`] for what came of it.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let mut watcher = Self {
            path: path.to_owned(),
            // Before the file is read: a change in between is seen as one.
            settled: Stamp::of(path),
            changing: None,
            inventory: Arc::default(),
            problems: Vec::new(),
            trouble: None,
        };
        match Inventory::load_in_sentences(path) {
            Ok(read) => watcher.take(read),
            Err(error) => watcher.trouble = Some(error),
        }
        watcher
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known now.
    #[must_use]
    pub fn known(&self) -> Known {
        let more = self.problems.len().saturating_sub(LISTED);
        let and_more = (more > 0).then(|| {
            format!("inventory {}: and {more} more; `dhcp-guard config check` lists them all", self.path.display())
        });
        let listed = self.problems.iter().take(LISTED).cloned();
        let warnings = self.trouble.iter().cloned().chain(listed).chain(and_more).collect();
        Known { inventory: Arc::clone(&self.inventory), warnings }
    }

    /// Looks at the file, once. What is known then, if that is not what was known before.
    ///
    /// This may wait for a disk, or for a file server: call it where that does not matter.
    pub fn changed(&mut self) -> Option<Known> {
        self.look(Instant::now())
    }

    fn look(&mut self, now: Instant) -> Option<Known> {
        let stamp = Stamp::of(&self.path);
        if stamp == self.settled {
            self.changing = None;
            return None;
        }
        match self.changing {
            Some((seen, since)) if seen == stamp => {
                if now.saturating_duration_since(since) < QUIET {
                    return None;
                }
            }
            _ => {
                self.changing = Some((stamp, now));
                return None;
            }
        }
        (self.settled, self.changing) = (stamp, None);
        match Inventory::load_in_sentences(&self.path) {
            Ok(read) => self.take(read),
            Err(error) => self.trouble = Some(format!("{error}; until then what was read before counts")),
        }
        Some(self.known())
    }

    fn take(&mut self, (inventory, problems): (Inventory, Vec<String>)) {
        (self.inventory, self.problems, self.trouble) = (Arc::new(inventory), problems, None);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const GOOD: &str = "server_id,interface\nem-1,eth0\n";

    /// A watcher, its file, and a clock that goes on by half a second a look.
    struct Fixture {
        folder: TempDir,
        watcher: Watcher,
        now: Instant,
    }

    impl Fixture {
        fn new(text: Option<&str>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("inventory.csv");
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            Self { folder, watcher: Watcher::new(&path), now: Instant::now() }
        }

        /// Replaced as a whole, so that it is certainly another file, whatever the resolution of the clock.
        fn replace(&self, text: &str) {
            let new = self.folder.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, self.watcher.path()).unwrap();
        }

        fn look(&mut self) -> Option<Known> {
            self.now += QUIET / 2;
            self.watcher.look(self.now)
        }

        /// What comes of a change that lasts.
        fn settle(&mut self) -> Known {
            assert_eq!((self.look(), self.look()), (None, None));
            let known = self.look().unwrap();
            assert_eq!((self.look(), self.look(), self.look()), (None, None, None), "told once");
            assert_eq!(known, self.watcher.known());
            known
        }
    }

    fn owner(known: &Known) -> Option<&str> {
        known.inventory.machine("eth0", &[], None).map(|machine| machine.server_id.as_str())
    }

    #[test]
    fn the_first_reading_comes_at_once() {
        let mut fixture = Fixture::new(Some(GOOD));
        assert_eq!(owner(&fixture.watcher.known()), Some("em-1"));
        assert!((0..5).all(|_| fixture.look().is_none()));
        let none = Fixture::new(None).watcher.known();
        assert_eq!((owner(&none), none.warnings.len()), (None, 1));
        assert!(none.warnings[0].starts_with("cannot read the inventory"), "{none:?}");
        assert!(!none.warnings[0].contains("before"), "{none:?}");
    }

    #[test]
    fn a_change_is_read_when_it_has_lasted_a_second() {
        let mut fixture = Fixture::new(Some(GOOD));
        for round in 0..5 {
            fixture.replace(&format!("{GOOD}em-2,eth{round}\n"));
            assert_eq!((fixture.look(), fixture.look()), (None, None), "still being written");
        }
        fixture.replace("server_id,interface\nem-7,eth0\n,eth1\n");
        let known = fixture.settle();
        assert_eq!(owner(&known), Some("em-7"));
        assert_eq!(known.warnings.len(), 1);
        assert!(known.warnings[0].contains("line 3: server_id is empty"), "{known:?}");
    }

    #[test]
    fn a_file_is_seen_to_change_in_place_too() {
        let mut fixture = Fixture::new(Some(GOOD));
        fs::write(fixture.watcher.path(), "server_id,interface\nem-1234,eth0\n").unwrap();
        assert_eq!(owner(&fixture.settle()), Some("em-1234"));
    }

    #[test]
    fn what_cannot_be_used_keeps_what_was_known() {
        let mut fixture = Fixture::new(Some(GOOD));
        fixture.replace("em-1,eth0\n");
        let known = fixture.settle();
        assert_eq!((owner(&known), known.warnings.len()), (Some("em-1"), 1));
        assert!(known.warnings[0].contains("no column server_id"), "{known:?}");
        assert!(known.warnings[0].contains("what was read before counts"), "{known:?}");

        fs::remove_file(fixture.watcher.path()).unwrap();
        let known = fixture.settle();
        assert_eq!((owner(&known), known.warnings.len()), (Some("em-1"), 1));
        assert!(known.warnings[0].contains("No such file"), "{known:?}");

        fixture.replace(GOOD);
        let known = fixture.settle();
        assert_eq!((owner(&known), known.warnings.len()), (Some("em-1"), 0), "all is well again");
    }

    #[test]
    fn an_empty_file_knows_nobody() {
        let mut fixture = Fixture::new(Some(GOOD));
        fixture.replace("");
        let known = fixture.settle();
        assert_eq!((owner(&known), known.warnings.len()), (None, 0));
    }

    #[test]
    fn a_file_that_comes_back_at_once_was_never_away() {
        let mut fixture = Fixture::new(Some(GOOD));
        fs::remove_file(fixture.watcher.path()).unwrap();
        assert_eq!(fixture.look(), None);
        fixture.replace(GOOD);
        assert_eq!(fixture.settle().warnings, Vec::<String>::new());
    }

    #[test]
    fn a_file_full_of_nonsense_is_not_listed_row_by_row() {
        let rows: String = (0..100).map(|_| ",eth0\n").collect();
        let known = Fixture::new(Some(&format!("server_id,interface\n{rows}"))).watcher.known();
        assert_eq!(known.warnings.len(), LISTED + 1);
        assert!(known.warnings[LISTED].contains("and 80 more"), "{known:?}");
    }
}
