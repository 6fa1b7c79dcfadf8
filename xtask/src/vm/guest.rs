//! What a guest tells, up to its end: each test with its verdict, and whatever went wrong with the guest itself.

use std::{fs, sync::mpsc::RecvTimeoutError, time::Instant};

use serde::Deserialize;

use super::{
    Deadlines, faults,
    machine::Machine,
    report::{Case, GUEST, Run, Verdict},
    suite::Group,
};

/// See the table in `tests/src/bin/vm-init.rs`.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Up { kernel: String },
    Problem { text: String },
    Beat,
    Group { name: String },
    Started { test: String },
    Ended { test: String, outcome: Outcome, reason: Option<String>, seconds: f64 },
    Output { line: String },
    Done { failed: bool, text: Option<String> },
    Kernel { text: String },
    End,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// What the troubles of the program that runs a group's tests are listed under, in that group.
const RUNNER: &str = "the runner";

/// Reads until the guest has ended, or is given up; all that was seen is in the run then.
pub(crate) fn follow(machine: Machine, deadlines: Deadlines, groups: &[Group], run: &mut Run) {
    let mut story = Story::of(groups);
    let began = Instant::now();
    let end = loop {
        let now = Instant::now();
        if now >= deadlines.end {
            break Some(format!("the guest was given up after {} s", began.elapsed().as_secs()));
        }
        match machine.lines.recv_timeout(deadlines.silence.min(deadlines.end - now)) {
            Ok(line) => story.hear(&line, run),
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadlines.end => {}
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("the guest hangs: it has said nothing for {} s", deadlines.silence.as_secs()));
            }
        }
    };
    let complaints = machine.complaints();
    let console = machine.console.clone();
    // Ends it, where it has not ended.
    drop(machine);
    let console = fs::read(&console).unwrap_or_default();
    story.conclude(end.as_deref(), &String::from_utf8_lossy(&console), &complaints, run);
}

/// Where in its plan a guest is.
#[derive(Default)]
struct Story<'a> {
    /// The plan.
    groups: &'a [Group],
    up: bool,
    ended: bool,
    group: String,
    /// The test that has begun and not ended.
    current: Option<String>,
    /// Groups whose end was told.
    done: Vec<String>,
    /// Faults in the log, as the guest told them.
    fault: Option<String>,
}

impl<'a> Story<'a> {
    fn of(groups: &'a [Group]) -> Self {
        Self { groups, ..Self::default() }
    }

    fn hear(&mut self, line: &str, run: &mut Run) {
        let Ok(event) = serde_json::from_str(line) else {
            // Whatever it was to say is lost, and may have been a failure.
            return run.add(GUEST, "tells what can be understood", Verdict::Fail(line.to_owned()), 0.0);
        };
        match event {
            Event::Up { kernel } => {
                self.up = true;
                run.check_release(&kernel);
            }
            Event::Problem { text } => run.add(GUEST, "is as its image says", Verdict::Fail(text), 0.0),
            Event::Beat => {}
            Event::Group { name } => self.group = name,
            Event::Started { test } => {
                if let Some(before) = self.current.replace(test) {
                    run.add(&self.group, &before, Verdict::Fail("its end was not told".into()), 0.0);
                }
            }
            Event::Ended { test, outcome, reason, seconds } => {
                self.current = None;
                let reason = reason.unwrap_or_else(|| "without a reason".into());
                let verdict = match outcome {
                    Outcome::Passed => Verdict::Pass,
                    Outcome::Failed => Verdict::Fail(reason),
                    Outcome::Skipped => Verdict::Skip(reason),
                };
                run.add(&self.group, &test, verdict, seconds);
            }
            Event::Output { line } => run.note(&line),
            Event::Done { failed, text } => self.end_group(failed, text, run),
            Event::Kernel { text } => {
                if let (None, Some(meaning)) = (&self.fault, faults::of_line(&text)) {
                    self.fault = Some(format!("{meaning}: {text}"));
                }
            }
            Event::End => self.ended = true,
        }
    }

    /// `failed`: the runner says that a test has failed. `text`: what went wrong with the runner itself.
    fn end_group(&mut self, failed: bool, text: Option<String>, run: &mut Run) {
        let name = std::mem::take(&mut self.group);
        let is_failed = |case: &Case| matches!(case.verdict, Verdict::Fail(_));
        let mut problems = Vec::new();
        match (self.current.take(), text) {
            (Some(test), text) => {
                let reason = text.unwrap_or_else(|| "the runner ended in the middle of it".into());
                run.add(&name, &test, Verdict::Fail(reason), 0.0);
            }
            (None, Some(text)) => problems.push(text),
            (None, None) if failed != run.of_group(&name).any(is_failed) => {
                problems.push(format!("it says that {} has failed", if failed { "a test" } else { "no test" }));
            }
            (None, None) => {}
        }
        let group = self.groups.iter().find(|group| group.name == name);
        for part in group.iter().flat_map(|group| &group.tests) {
            if !run.of_group(&name).any(|case| case.name.contains(part)) {
                problems.push(format!("it ran no test that is called {part}"));
            }
        }
        problems.into_iter().for_each(|problem| run.add(&name, RUNNER, Verdict::Fail(problem), 0.0));
        self.done.push(name);
    }

    /// How it ended: `given_up` if it did not by itself.
    fn conclude(self, given_up: Option<&str>, console: &str, complaints: &str, run: &mut Run) {
        let fault = faults::first(console).or(self.fault);
        let ended = self.ended && given_up.is_none();
        // The kernel's word is the cause of whatever else happened.
        let cause = fault.clone().or(given_up.map(str::to_owned)).unwrap_or_else(|| "the guest ended too early".into());
        if !ended {
            if !self.group.is_empty() {
                let test = self.current.as_deref().unwrap_or(RUNNER);
                run.add(&self.group, test, Verdict::Fail(first_line(&cause).to_owned()), 0.0);
            }
            for group in self.groups.iter().filter(|group| !self.done.contains(&group.name) && group.name != self.group)
            {
                run.add(&group.name, RUNNER, Verdict::Fail("the guest did not come to it".into()), 0.0);
            }
        }
        let runs = match (self.up, ended) {
            (true, true) => Verdict::Pass,
            (up, _) => {
                let what = if up { cause } else { format!("it did not come up: {cause}") };
                let shown = if fault.is_none() { faults::last_lines(console) } else { String::new() };
                let parts = [what.as_str(), complaints, &shown].map(str::trim);
                Verdict::Fail(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"))
            }
        };
        run.add(GUEST, "boots, carries out its plan, and ends by itself", runs, 0.0);
        run.add(GUEST, "its kernel's log tells of no fault", fault.map_or(Verdict::Pass, Verdict::Fail), 0.0);
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_end_matches(':')
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::vm::kernels::Kernel;

    /// What becomes of a guest with one group that tells this and then ends, or is given up: test, verdict.
    fn told(lines: &[&str], given_up: Option<&str>, console: &str) -> Vec<(String, Verdict)> {
        let kernel = Kernel {
            label: "6.1".into(),
            version: (6, 1),
            origin: String::new(),
            image: PathBuf::new(),
            modules: PathBuf::new(),
        };
        let groups = [Group { name: "load".into(), tests: vec!["kernel: ".into()], without: Vec::new(), seconds: 60 }];
        let (mut run, mut story) = (Run::new(&kernel), Story::of(&groups));
        lines.iter().for_each(|line| story.hear(line, &mut run));
        story.conclude(given_up, console, "", &mut run);
        run.cases.into_iter().map(|case| (case.name, case.verdict)).collect()
    }

    const UP: &str = r#"{"event":"up","kernel":"6.1"}"#;
    const GROUP: &str = r#"{"event":"group","name":"load"}"#;
    const STARTED: &str = r#"{"event":"started","test":"kernel: a"}"#;
    const PASSED: &str = r#"{"event":"ended","test":"kernel: a","outcome":"passed","reason":null,"seconds":1.5}"#;
    const SKIPPED: &str =
        r#"{"event":"ended","test":"kernel: a","outcome":"skipped","reason":"needs TCX","seconds":0}"#;
    const DONE: &str = r#"{"event":"done","name":"load","failed":false,"text":null}"#;
    const END: &str = r#"{"event":"end"}"#;
    const RUNS: &str = "boots, carries out its plan, and ends by itself";
    const LOG: &str = "its kernel's log tells of no fault";

    fn fail(reason: &str) -> Verdict {
        Verdict::Fail(reason.into())
    }

    fn are(cases: &[(String, Verdict)], expected: &[(&str, Verdict)]) {
        let expected: Vec<_> = expected.iter().map(|(name, verdict)| ((*name).to_owned(), verdict.clone())).collect();
        assert_eq!(cases, expected);
    }

    #[test]
    fn a_guest_that_is_well() {
        let both = [(RUNS, Verdict::Pass), (LOG, Verdict::Pass)];
        let cases = told(&[UP, GROUP, STARTED, r#"{"event":"beat"}"#, PASSED, DONE, END], None, "");
        are(&cases, &[&[("kernel: a", Verdict::Pass)], both.as_slice()].concat());
        let cases = told(&[UP, GROUP, STARTED, SKIPPED, DONE, END], None, "");
        are(&cases, &[&[("kernel: a", Verdict::Skip("needs TCX".into()))], both.as_slice()].concat());
    }

    #[test]
    fn a_group_without_a_test_is_a_failure() {
        let cases = told(&[UP, GROUP, DONE, END], None, "");
        are(
            &cases,
            &[
                ("the runner", fail("it ran no test that is called kernel: ")),
                (RUNS, Verdict::Pass),
                (LOG, Verdict::Pass),
            ],
        );
    }

    #[test]
    fn what_is_lost_on_the_way_is_a_failure() {
        let odd = ("tells what can be understood".to_owned(), fail("{half"));
        assert_eq!(told(&[UP, GROUP, STARTED, "{half", PASSED, DONE, END], None, "")[0], odd);
        let next = r#"{"event":"started","test":"kernel: b"}"#;
        let unended = ("kernel: a".to_owned(), fail("its end was not told"));
        assert_eq!(told(&[UP, GROUP, STARTED, next, DONE, END], None, "")[0], unended);
        // The runner knows of a failure that we do not know of.
        let failed = r#"{"event":"done","name":"load","failed":true,"text":null}"#;
        let cases = told(&[UP, GROUP, STARTED, PASSED, failed, END], None, "");
        assert_eq!(cases[1], ("the runner".into(), fail("it says that a test has failed")));
    }

    #[test]
    fn a_guest_that_ends_between_two_tests() {
        let cases = told(&[UP, GROUP, STARTED, PASSED], None, "");
        assert_eq!(cases[1], ("the runner".into(), fail("the guest ended too early")));
    }

    #[test]
    fn a_test_that_does_not_end_is_named() {
        let killed = r#"{"event":"done","name":"load","failed":false,"text":"not done after 60 s, and killed"}"#;
        let cases = told(&[UP, GROUP, STARTED, killed, END], None, "");
        let expected =
            [("kernel: a", fail("not done after 60 s, and killed")), (RUNS, Verdict::Pass), (LOG, Verdict::Pass)];
        are(&cases, &expected);
        // The guest lives and the runner does not.
        let cases = told(&[UP, GROUP, STARTED, DONE, END], None, "");
        assert_eq!(cases[0], ("kernel: a".into(), fail("the runner ended in the middle of it")));
    }

    #[test]
    fn a_guest_that_hangs_before_and_in_a_test() {
        let cases = told(&[UP], Some("the guest hangs"), "the last words\n");
        let runs = fail("the guest hangs\nthe last words");
        are(
            &cases,
            &[("the runner", fail("the guest did not come to it")), (RUNS, runs.clone()), (LOG, Verdict::Pass)],
        );
        let cases = told(&[UP, GROUP, STARTED], Some("the guest hangs"), "the last words\n");
        are(&cases, &[("kernel: a", fail("the guest hangs")), (RUNS, runs), (LOG, Verdict::Pass)]);
    }

    #[test]
    fn a_guest_that_never_comes_up() {
        let cases = told(&[], None, "no init found\n");
        assert_eq!(cases[1], (RUNS.into(), fail("it did not come up: the guest ended too early\nno init found")));
    }

    #[test]
    fn a_crash_is_the_cause_of_whatever_else_is_missing() {
        let console = "BUG: kernel NULL pointer dereference\nKernel panic - not syncing\n";
        let cases = told(&[UP, GROUP, STARTED], None, console);
        let words =
            "the kernel found a bug in itself:\nBUG: kernel NULL pointer dereference\nKernel panic - not syncing";
        let test = ("kernel: a", fail("the kernel found a bug in itself"));
        are(&cases, &[test, (RUNS, fail(words)), (LOG, fail(words))]);
    }

    #[test]
    fn a_warning_of_the_kernel_is_a_failure_though_all_tests_pass() {
        let warned = r#"{"event":"kernel","level":4,"text":"WARNING: CPU: 0 at kernel/bpf/verifier.c:1"}"#;
        let cases = told(&[UP, GROUP, STARTED, PASSED, DONE, warned, END], None, "");
        let log = fail("the kernel warned of itself: WARNING: CPU: 0 at kernel/bpf/verifier.c:1");
        are(&cases, &[("kernel: a", Verdict::Pass), (RUNS, Verdict::Pass), (LOG, log)]);
    }

    #[test]
    fn another_kernel_than_the_one_that_was_meant() {
        let cases = told(&[r#"{"event":"up","kernel":"6.2"}"#, GROUP, STARTED, PASSED, DONE, END], None, "");
        assert_eq!(cases[0], ("runs the kernel that it was given".into(), fail("it runs 6.2")));
    }
}
