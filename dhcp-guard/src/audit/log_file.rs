//! A file of lines that is renamed when it is full.
//!
//! It is opened for each line. That costs microseconds, on a thread that has time; and so whatever happens to the file
//! (an operator moves it, a disk is mounted over it) is right again with the next line.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::Settings;
use crate::config::MAX_KEPT_FILES;

/// Its owner writes, its group reads.
const MODE: u32 = 0o640;

/// See the module.
#[derive(Debug)]
pub(super) struct LogFile {
    settings: Settings,
    /// The last line may be a part of one: nobody has looked yet, or writing failed.
    unsure: bool,
}

impl LogFile {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, unsure: true }
    }

    pub(super) fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Adds a line, which ends with a newline, in one write; before that makes room for it. After an error it is as if
    /// nothing had happened, except that the file may have been renamed already.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.try_append(line);
        self.unsure = written.is_err();
        written
    }

    fn try_append(&self, line: &[u8]) -> io::Result<()> {
        let size = size(&self.settings.path)?;
        let mut before = size.unwrap_or(0);
        let mut is_new = size.is_none();
        if before > 0 && before + line.len() as u64 > self.settings.max_bytes {
            self.rotate()?;
            (before, is_new) = (0, true);
        }
        // A line that was cut off, by a power cut perhaps, must not take this one with it.
        if self.unsure && before > 0 && !ends_with_newline(&self.settings.path)? {
            return self.write(&[b"\n", line].concat(), before, is_new);
        }
        self.write(line, before, is_new)
    }

    fn write(&self, text: &[u8], before: u64, is_new: bool) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(MODE).open(&self.settings.path)?;
        if is_new {
            // Whatever the umask says.
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        let written = file.write_all(text);
        if written.is_err() {
            // A part of the line may be there. If even this fails, the next line begins on a line of its own.
            let _ = file.set_len(before);
        }
        written
    }

    /// Each file takes the next number, and the last one goes. Only up to the first number that is free: so what was done
    /// before an error is not done again.
    fn rotate(&self) -> io::Result<()> {
        let keep = self.settings.keep.min(MAX_KEPT_FILES);
        // Also those of a time when more were kept.
        (keep + 1..=MAX_KEPT_FILES).try_for_each(|number| remove(&self.numbered(number)))?;
        let free = (1..=keep).find(|number| self.numbered(*number).symlink_metadata().is_err()).unwrap_or(keep);
        for number in (1..free).rev() {
            fs::rename(self.numbered(number), self.numbered(number + 1))?;
        }
        if keep == 0 { remove(&self.settings.path) } else { fs::rename(&self.settings.path, self.numbered(1)) }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.settings.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Bytes in a file; none: there is none. What is no file (a device, a FIFO) has no size, and is never full by it.
fn size(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(if metadata.is_file() { metadata.len() } else { 0 })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn ends_with_newline(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::small_disk::{self, By};

    fn log(max_bytes: u64, keep: u32) -> (TempDir, LogFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        (dir, LogFile::new(Settings { path, max_bytes, keep }))
    }

    /// All lines that are kept, the oldest first, and the number of files.
    fn lines(log: &LogFile) -> (Vec<String>, usize) {
        let files = (1..=MAX_KEPT_FILES).rev().map(|n| log.numbered(n)).chain([log.path().to_owned()]);
        let texts: Vec<_> = files.filter_map(|path| fs::read_to_string(path).ok()).collect();
        (texts.concat().lines().map(str::to_owned).collect(), texts.len())
    }

    #[test]
    fn it_is_bounded_and_keeps_the_latest_in_order() {
        for (max_bytes, keep) in [(100, 3), (64, 1), (1_000, 5), (100, 0)] {
            let (dir, mut log) = log(max_bytes, keep);
            for i in 0..300_usize {
                let line = format!("{i} {}\n", "x".repeat(i * 7 % 50));
                log.append(line.as_bytes()).unwrap();
                let sizes = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
                let sizes: Vec<_> = sizes.collect();
                assert!(sizes.len() <= keep as usize + 1, "{sizes:?}");
                assert!(sizes.iter().all(|size| *size <= max_bytes), "{sizes:?}");
                let numbers: Vec<usize> =
                    lines(&log).0.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
                assert_eq!(numbers, (i + 1 - numbers.len()..=i).collect::<Vec<_>>(), "none is missing in between");
            }
            assert_eq!(lines(&log).1, keep as usize + 1);
        }
    }

    #[test]
    fn a_line_longer_than_a_file_has_one_for_itself() {
        let (_dir, mut log) = log(10, 3);
        let long = format!("{}\n", "y".repeat(50));
        for line in ["a\n", &long, "b\n"] {
            log.append(line.as_bytes()).unwrap();
        }
        assert_eq!(lines(&log), (vec!["a".into(), "y".repeat(50), "b".into()], 3));
    }

    #[test]
    fn what_was_kept_when_more_were_goes_with_the_next_rotation() {
        let (_dir, mut log) = log(10, 5);
        for i in 0..10 {
            log.append(format!("line {i}\n").as_bytes()).unwrap();
        }
        assert_eq!(lines(&log).1, 6);
        log.settings.keep = 2;
        log.append(b"line 10\n").unwrap();
        assert_eq!(lines(&log), (vec!["line 8".into(), "line 9".into(), "line 10".into()], 3));
    }

    #[test]
    fn its_group_may_read_it_and_nobody_else() {
        let (_dir, mut log) = log(10, 1);
        for _ in 0..3 {
            log.append(b"a line\n").unwrap();
            let mode = fs::metadata(log.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, MODE);
        }
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_take_the_next_one_with_it() {
        let (_dir, mut log) = log(1_000, 1);
        fs::write(log.path(), "whole\ncut o").unwrap();
        log.append(b"next\n").unwrap();
        log.append(b"last\n").unwrap();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "whole\ncut o\nnext\nlast\n");
    }

    /// `tail -f` and the like: they read on in the file that they have, which nobody writes any more.
    #[test]
    fn whoever_reads_it_is_not_disturbed_and_does_not_disturb() {
        let (_dir, mut log) = log(20, 1);
        log.append(b"first line\n").unwrap();
        let mut reader = File::open(log.path()).unwrap();
        reader.lock_shared().unwrap();
        for i in 0..5 {
            log.append(format!("another line {i}\n").as_bytes()).unwrap();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first line\n");
        assert_eq!(lines(&log).0, ["another line 3", "another line 4"]);
    }

    #[test]
    fn a_file_that_somebody_took_away_is_made_again() {
        let (dir, mut log) = log(1_000, 1);
        log.append(b"old\n").unwrap();
        fs::rename(log.path(), dir.path().join("taken")).unwrap();
        log.append(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(dir.path().join("taken")).unwrap(), "old\n");
    }

    /// However often a rotation fails half-way, nothing that is kept is pushed out by it.
    #[test]
    fn a_rotation_that_fails_is_an_error_and_loses_nothing() {
        let (_dir, mut log) = log(10, 3);
        for i in 0..4 {
            log.append(format!("line {i}\n").as_bytes()).unwrap();
        }
        // A folder in the place of the last one: no file can be renamed over it.
        fs::remove_file(log.numbered(3)).unwrap();
        fs::create_dir(log.numbered(3)).unwrap();
        for _ in 0..10 {
            log.append(b"line 4\n").unwrap_err();
            assert_eq!(lines(&log).0, ["line 1", "line 2", "line 3"]);
        }
        fs::remove_dir(log.numbered(3)).unwrap();
        log.append(b"line 4\n").unwrap();
        assert_eq!(lines(&log).0, ["line 1", "line 2", "line 3", "line 4"]);
    }

    /// Runs in a child (see `small_disk`), where 64 KiB are the whole disk.
    #[test]
    fn on_a_small_disk() {
        let Some(dir) = small_disk::folder() else { return };
        let settings = Settings { path: dir.join("audit.log"), max_bytes: 1_000_000, keep: 1 };
        let mut log = LogFile::new(settings);
        let line = format!("{}\n", "z".repeat(999));
        let written = (0..1_000).take_while(|_| log.append(line.as_bytes()).is_ok()).count();
        assert!((10..100).contains(&written), "{written}");
        log.append(line.as_bytes()).unwrap_err();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), line.repeat(written), "no part of a line");
        fs::rename(log.path(), log.numbered(1)).unwrap();
        fs::write(log.numbered(1), "").unwrap();
        log.append(line.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), line);
    }

    #[test]
    fn a_full_disk_leaves_whole_lines() {
        small_disk::run("audit::log_file::tests::on_a_small_disk", By::Tmpfs);
        small_disk::run("audit::log_file::tests::on_a_small_disk", By::FileLimit);
    }
}
