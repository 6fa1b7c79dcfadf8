//! What became of the tests: a line for each while they run, and the table at the end.

use std::{fmt::Write as _, time::Duration};

use super::{kernels::Kernel, suite};
use crate::totals::Totals;

/// What a guest's own troubles are listed under.
pub(crate) const GUEST: &str = "guest";

/// How a test has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// And why.
    Fail(String),
    /// And why.
    Skip(String),
}

/// One test on one kernel.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    pub(crate) seconds: f64,
}

/// All of one kernel.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) label: String,
    pub(crate) origin: String,
    pub(crate) cases: Vec<Case>,
    pub(crate) took: Duration,
}

impl Run {
    pub(crate) fn new(kernel: &Kernel) -> Self {
        Self { label: kernel.label.clone(), origin: kernel.origin.clone(), cases: Vec::new(), took: Duration::ZERO }
    }

    /// Of a kernel that cannot be had: skipped, or failed if somebody wants it.
    pub(crate) fn without_kernel(series: &str, why: String, is_wanted: bool) -> Self {
        let mut run =
            Self { label: format!("{series}.*"), origin: String::new(), cases: Vec::new(), took: Duration::ZERO };
        let verdict = if is_wanted { Verdict::Fail(why) } else { Verdict::Skip(why) };
        run.add(GUEST, "all of it", verdict, 0.0);
        run
    }

    /// Takes and prints the verdict on one test.
    pub(crate) fn add(&mut self, group: &str, name: &str, verdict: Verdict, seconds: f64) {
        let case = Case { group: group.into(), name: name.into(), verdict, seconds };
        println!("{}", line(&self.label, &case));
        self.cases.push(case);
    }

    /// Prints what a test has measured, or something that is no verdict.
    pub(crate) fn note(&self, line: &str) {
        if !line.is_empty() {
            println!("{}        {line}", self.label);
        }
    }

    /// A guest that runs another kernel than its package says would be one that nothing is known of.
    pub(crate) fn check_release(&mut self, release: &str) {
        if release != self.label {
            let reason = format!("it runs {release}");
            self.add(GUEST, "runs the kernel that it was given", Verdict::Fail(reason), 0.0);
        }
    }

    pub(crate) fn of_group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Case> {
        self.cases.iter().filter(move |case| case.group == group)
    }
}

/// `6.1.0-57-cloud-amd64  PASS  fixtures: … (12.3 s)`, and a reason under it.
fn line(label: &str, case: &Case) -> String {
    let Case { name, verdict, seconds, .. } = case;
    let (word, reason) = match verdict {
        Verdict::Pass => ("PASS", None),
        Verdict::Fail(reason) => ("FAIL", Some(reason)),
        Verdict::Skip(reason) => ("SKIP", Some(reason)),
    };
    let took = if *seconds > 0.0 { format!("  ({seconds:.1} s)") } else { String::new() };
    let mut text = format!("{label}  {word}  {name}{took}");
    for line in reason.iter().flat_map(|reason| reason.lines()) {
        write!(text, "\n{label}        {line}").expect("writing to a string cannot fail");
    }
    text
}

/// Whether a test has passed, and not guests alone that had nothing to do.
pub(crate) fn has_tested(runs: &[Run]) -> bool {
    runs.iter().flat_map(|run| &run.cases).any(|case| case.verdict == Verdict::Pass && case.group != GUEST)
}

/// All of them.
pub(crate) fn totals(runs: &[Run]) -> Totals {
    count(runs.iter().flat_map(|run| &run.cases))
}

fn count<'a>(cases: impl Iterator<Item = &'a Case>) -> Totals {
    let mut totals = Totals::default();
    for case in cases {
        match case.verdict {
            Verdict::Pass => totals.passed += 1,
            Verdict::Fail(_) => totals.failed += 1,
            Verdict::Skip(_) => totals.skipped += 1,
        }
    }
    totals
}

/// Kernel × group; then each reason why something was skipped, and whatever has failed.
pub(crate) fn print_table(runs: &[Run]) {
    println!("\n{}", table(runs));
    for (verdict, heading) in [("SKIP", "skipped, so neither passed nor failed:"), ("FAIL", "failed:")] {
        let lines: Vec<_> = runs
            .iter()
            .flat_map(|run| run.cases.iter().map(move |case| line(&run.label, case)))
            .filter(|line| line.split("  ").nth(1) == Some(verdict))
            .collect();
        if !lines.is_empty() {
            println!("\n{heading}\n{}", lines.join("\n"));
        }
    }
}

fn table(runs: &[Run]) -> String {
    let is_there = |group: &str| runs.iter().any(|run| run.of_group(group).next().is_some());
    let others = ["chosen", "sabotage", GUEST];
    let groups: Vec<_> = suite::columns().into_iter().chain(others).filter(|group| is_there(group)).collect();
    let mut rows =
        vec![[&["kernel"], groups.as_slice(), &["time"]].concat().iter().map(|&cell| cell.to_owned()).collect()];
    for run in runs {
        let mut row = vec![run.label.clone()];
        row.extend(groups.iter().map(|group| cell(count(run.of_group(group)))));
        row.push(format!("{:.0} s", run.took.as_secs_f64()));
        rows.push(row);
    }
    align(&rows)
}

/// `7`, `5 + 2 skipped`, `3 FAILED of 8`; a dot where there was nothing to run.
fn cell(totals: Totals) -> String {
    let Totals { passed, failed, skipped } = totals;
    match (passed, failed, skipped) {
        (0, 0, 0) => "·".into(),
        (passed, 0, 0) => passed.to_string(),
        (passed, 0, skipped) => format!("{passed} + {skipped} skipped"),
        (_, failed, _) => format!("{failed} FAILED of {}", passed + failed + skipped),
    }
}

fn align(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(label: &str, cases: &[(&str, Verdict)]) -> Run {
        let case = |(group, verdict): &(&str, Verdict)| Case {
            group: (*group).into(),
            name: "a test".into(),
            verdict: verdict.clone(),
            seconds: 1.25,
        };
        let cases = cases.iter().map(case).collect();
        Run { label: label.into(), origin: String::new(), cases, took: Duration::from_secs(60) }
    }

    #[test]
    fn a_skip_is_never_green() {
        let (pass, skip) = (Verdict::Pass, Verdict::Skip("needs TCX".into()));
        let fail = Verdict::Fail("no lease".into());
        let runs = [
            run("6.1", &[("load", pass.clone()), ("bond", skip), ("bond", pass.clone())]),
            run("7.3", &[("load", pass.clone()), ("load", pass), ("bond", fail)]),
        ];
        let expected = "kernel  load  bond           time\n\
                        6.1     1     1 + 1 skipped  60 s\n\
                        7.3     2     1 FAILED of 1  60 s";
        assert_eq!(table(&runs), expected);
        assert_eq!(totals(&runs).to_string(), "4 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_line_has_the_reason() {
        let mut run = run("6.1", &[("bond", Verdict::Fail("no lease\nsince ever".into()))]);
        let case = run.cases.remove(0);
        assert_eq!(line("6.1", &case), "6.1  FAIL  a test  (1.2 s)\n6.1        no lease\n6.1        since ever");
    }
}
