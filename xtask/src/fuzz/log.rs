//! What libFuzzer prints.

/// A status line: `#2097152 pulse  cov: 614 ft: 1816 corp: 290/27Kb lim: 1024 exec/s: 104857 rss: 47Mb`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Inputs tried so far.
    pub(super) runs: u64,
    /// Edges reached.
    pub(super) coverage: u64,
    /// Inputs tried a second.
    pub(super) per_second: u64,
}

impl Status {
    fn of_line(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let runs = words.next()?.strip_prefix('#')?.trim_end_matches(':').parse().ok()?;
        let words: Vec<_> = words.collect();
        let after = |label: &str| words.windows(2).find(|pair| pair[0] == label)?[1].parse().ok();
        Some(Self { runs, coverage: after("cov:")?, per_second: after("exec/s:")? })
    }

    /// The last status in a log.
    pub(super) fn last(log: &str) -> Option<Self> {
        log.lines().rev().find_map(Self::of_line)
    }
}

/// The file with the input that broke something.
pub(super) fn artifact(log: &str) -> Option<&str> {
    log.lines().rev().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path.trim()))
}

/// The last lines of a log, without the dictionary of guessed values, which is long.
pub(super) fn tail(log: &str, lines: usize) -> String {
    let is_telling = |line: &&str| !line.starts_with('"') && !line.starts_with("######") && !line.trim().is_empty();
    let all: Vec<_> = log.lines().filter(is_telling).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1\n\
        #2\tINITED cov: 301 ft: 402 corp: 1/1b exec/s: 0 rss: 40Mb\n\
        #2097152\tpulse  cov: 614 ft: 1816 corp: 290/27Kb lim: 1024 exec/s: 104857 rss: 47Mb\n\
        ###### Recommended dictionary. ######\n\"\\001\\002\" # Uses: 7\n\
        ###### End of recommended dictionary. ######\nDone 2100000 runs in 21 second(s)\n";

    #[test]
    fn the_last_status_counts() {
        let expected = Status { runs: 2_097_152, coverage: 614, per_second: 104_857 };
        assert_eq!(Status::last(LOG), Some(expected));
        assert_eq!(Status::last("INFO: Seed: 1\n# a comment\n"), None);
        let done = "#1000001\tDONE   cov: 9 ft: 9 corp: 1/1b lim: 4 exec/s: 7 rss: 4Mb";
        assert_eq!(Status::last(done), Some(Status { runs: 1_000_001, coverage: 9, per_second: 7 }));
    }

    #[test]
    fn the_tail_has_no_dictionary() {
        assert_eq!(tail(LOG, 1), "Done 2100000 runs in 21 second(s)");
        assert_eq!(tail(LOG, 9).lines().count(), 4);
        assert_eq!(tail("", 3), "");
    }

    #[test]
    fn artifacts() {
        let crash = "artifact_prefix='/t/x-'; Test unit written to /t/x-crash-12ab\nBase64: AA==\n";
        assert_eq!(artifact(crash), Some("/t/x-crash-12ab"));
        assert_eq!(artifact(LOG), None);
    }
}
