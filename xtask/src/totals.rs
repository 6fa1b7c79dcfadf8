//! The totals that test runners print, summed.

use std::{fmt, ops::AddAssign};

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Totals {
    /// Reads `test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    /// Tests that were filtered out were not asked for, so they are not skipped.
    fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count =
            |name: &str| counts.split("; ").find_map(|part| part.strip_suffix(name)?.strip_suffix(' ')?.parse().ok());
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        let Self { passed, failed, skipped } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Sums while the output goes by, in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// The line that has not ended yet.
    line: Vec<u8>,
    totals: Totals,
}

impl Scanner {
    /// Takes the next piece of output.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// The sum, at the end of the output.
    pub(crate) fn finish(mut self) -> Totals {
        self.end_line();
        self.totals
    }

    fn end_line(&mut self) {
        if let Some(totals) = Totals::of_line(String::from_utf8_lossy(&self.line).trim_end()) {
            self.totals += totals;
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 7 filtered out; finished in 0.01s";
    const FAILED: &str = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";

    #[test]
    fn lines() {
        let check = |line, expected: Option<(u64, u64, u64)>| {
            let expected = expected.map(|(passed, failed, skipped)| Totals { passed, failed, skipped });
            assert_eq!(Totals::of_line(line), expected, "{line}");
        };
        check(OK, Some((12, 0, 3)));
        check(FAILED, Some((1, 2, 0)));
        check("test result: ok. twelve passed; 0 failed; 3 ignored", None);
        check("test result: ok. 12 passed", None);
        check("test a::b ... ok", None);
        check("said `test result: ok. 12 passed; 0 failed; 3 ignored`", None);
        check("", None);
    }

    #[test]
    fn the_sum_does_not_depend_on_how_the_output_is_cut() {
        let output = format!("running 15 tests\n{OK}\n\nrunning 3 tests\r\n{FAILED}\r\n{OK}");
        for size in 1..=output.len() {
            let mut scanner = Scanner::default();
            output.as_bytes().chunks(size).for_each(|piece| scanner.feed(piece));
            assert_eq!(scanner.finish(), Totals { passed: 25, failed: 2, skipped: 6 }, "pieces of {size}");
        }
    }

    #[test]
    fn closing_line() {
        assert_eq!(Totals { passed: 25, failed: 2, skipped: 6 }.to_string(), "25 passed, 2 failed, 6 skipped");
    }
}
