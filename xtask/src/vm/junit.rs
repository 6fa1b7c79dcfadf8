//! The results in the format that continuous integration reads.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::report::{Case, Run, Verdict};

/// A suite for each kernel.
pub(crate) fn write(to: &Path, runs: &[Run]) -> Result<()> {
    let mut report = Report::new("dhcp-guard vm");
    report.add_test_suites(runs.iter().map(suite));
    let text = report.to_string().context("the results are no XML")?;
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))
}

fn suite(run: &Run) -> TestSuite {
    let mut suite = TestSuite::new(run.label.as_str());
    suite.set_time(run.took);
    suite.add_property(Property::new("kernel", run.origin.as_str()));
    suite.add_test_cases(run.cases.iter().map(case));
    suite
}

fn case(case: &Case) -> TestCase {
    let mut status = match &case.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Fail(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::Skip(_) => TestCaseStatus::skipped(),
    };
    if let Verdict::Fail(reason) | Verdict::Skip(reason) = &case.verdict {
        status.set_message(reason.as_str());
    }
    let mut entry = TestCase::new(case.name.as_str(), status);
    entry.set_classname(case.group.as_str());
    entry.set_time(Duration::from_secs_f64(case.seconds));
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_reasons_and_names_are_in_it() {
        let entry = |name: &str, verdict| Case { group: "bond".into(), name: name.into(), verdict, seconds: 2.5 };
        let cases = vec![
            entry("passes", Verdict::Pass),
            entry("fails", Verdict::Fail("no <lease>".into())),
            entry("is skipped", Verdict::Skip("needs TCX".into())),
        ];
        let run = Run { label: "6.1".into(), origin: "a package".into(), cases, took: Duration::from_secs(9) };
        let mut report = Report::new("test");
        report.add_test_suite(suite(&run));
        let text = report.to_string().unwrap();
        for part in [
            r#"<testsuite name="6.1" tests="3" skipped="1" errors="0" failures="1" time="9.000">"#,
            r#"<testcase name="passes" classname="bond" time="2.500"/>"#,
            r#"<failure message="no &lt;lease&gt;"/>"#,
            r#"<skipped message="needs TCX"/>"#,
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
