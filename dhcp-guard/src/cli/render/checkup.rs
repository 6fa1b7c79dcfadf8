//! `doctor`: one sentence, then a row for each check, the worst first.

use super::{
    Style, Tone,
    table::{Align, Cell, Table},
};
use crate::{
    human::counted,
    model::{Checkup, Finding, Severity, Subject},
};

pub(crate) fn checkup(checkup: &Checkup, style: Style) -> String {
    let mut table = Table::new(
        style,
        [
            ("SEVERITY", Align::Left),
            ("ON", Align::Left),
            ("CHECK", Align::Left),
            ("WHAT IS SO, AND WHAT TO DO", Align::Left),
        ],
    );
    for finding in &checkup.findings {
        let (tone, word) = severity_word(finding.severity);
        let sentence = match &finding.remedy {
            Some(remedy) => format!("{}; {remedy}", finding.what),
            None => finding.what.clone(),
        };
        table.row([Cell::new(tone, word), subject(finding), finding.id.as_str().into(), sentence.into()]);
    }
    format!("{}\n\n{}", headline(checkup, style), table.render())
}

fn headline(checkup: &Checkup, style: Style) -> String {
    let all = counted(checkup.findings.len() as u64, "check");
    match (checkup.blind, checkup.weak) {
        (0, 0) => style.paint(Tone::Good, &format!("nothing makes the guard blind or weak here ({all})")),
        (0, weak) => style.paint(Tone::Warn, &format!("weak: {} of {all}", counted(weak, "finding"))),
        (blind, weak) => {
            style.paint(Tone::Bad, &format!("blind: {}, weak: {weak}, of {all}", counted(blind, "finding")))
        }
    }
}

fn severity_word(severity: Severity) -> (Tone, &'static str) {
    match severity {
        Severity::Blind => (Tone::Bad, "blind"),
        Severity::Weak => (Tone::Warn, "weak"),
        Severity::Info => (Tone::Plain, "info"),
        Severity::Ok => (Tone::Good, "ok"),
    }
}

fn subject(finding: &Finding) -> Cell {
    match &finding.subject {
        Subject::Host => Cell::new(Tone::Dim, "host"),
        Subject::Interface(name) | Subject::File(name) => name.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples::{PLAIN, now};

    fn finding(severity: Severity, subject: Subject, remedy: Option<&str>) -> Finding {
        let what = "tags are taken off".to_owned();
        Finding { id: "vlan_offload".into(), severity, subject, what, remedy: remedy.map(str::to_owned) }
    }

    fn of(findings: Vec<Finding>) -> String {
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
        let (blind, weak) = (count(Severity::Blind), count(Severity::Weak));
        checkup(&Checkup { as_of: now(), version: "0.1.0".into(), blind, weak, findings }, PLAIN)
    }

    #[test]
    fn a_row_says_what_is_so_and_what_to_do() {
        let eth0 = Subject::Interface("eth0".into());
        let text = of(vec![finding(Severity::Weak, eth0, Some("do that")), finding(Severity::Ok, Subject::Host, None)]);
        assert_eq!(
            text,
            "\
weak: 1 finding of 2 checks

SEVERITY  ON    CHECK         WHAT IS SO, AND WHAT TO DO
weak      eth0  vlan_offload  tags are taken off; do that
ok        host  vlan_offload  tags are taken off
"
        );
    }

    #[test]
    fn the_headline_says_how_bad_it_is() {
        let file = || Subject::File("/a".into());
        let blind = of(vec![finding(Severity::Blind, file(), None), finding(Severity::Weak, file(), None)]);
        assert!(blind.starts_with("blind: 1 finding, weak: 1, of 2 checks\n"), "{blind}");
        let well = of(vec![finding(Severity::Info, file(), None)]);
        assert!(well.starts_with("nothing makes the guard blind or weak here (1 check)\n"), "{well}");
    }
}
