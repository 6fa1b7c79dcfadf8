//! What became of a change.

use super::{Style, Tone, words};
use crate::model::Changed;

/// One line for each change. A dry run cannot be mistaken for the real thing: each line says "would".
pub(crate) fn changed(answer: &Changed, style: Style) -> String {
    let changes = answer.changes.iter().map(|change| words::plain(change));
    match (answer.dry_run, answer.changes.is_empty()) {
        (false, false) => changes.map(|change| change + "\n").collect(),
        (false, true) => "nothing was changed: it was so already\n".to_owned(),
        (true, true) => "nothing would change: it is so already\n".to_owned(),
        (true, false) => {
            let would = style.paint(Tone::Warn, "would change:");
            let lines: String = changes.map(|change| format!("{would} {change}\n")).collect();
            lines + "nothing was changed: this was a dry run\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::samples::PLAIN, *};

    fn shown(dry_run: bool, changes: &[&str]) -> String {
        changed(&Changed { dry_run, changes: changes.iter().map(ToString::to_string).collect() }, PLAIN)
    }

    #[test]
    fn each_change_has_a_line() {
        let changes = ["port tap7 is muted for 5 min", "client\n02:00:5e:10:00:01 is free"];
        assert_eq!(shown(false, &changes), "port tap7 is muted for 5 min\nclient?02:00:5e:10:00:01 is free\n");
        assert_eq!(shown(false, &[]), "nothing was changed: it was so already\n");
    }

    #[test]
    fn a_dry_run_says_would_and_that_nothing_was_changed() {
        assert_eq!(
            shown(true, &["port tap7: muted for 5 min"]),
            "would change: port tap7: muted for 5 min\nnothing was changed: this was a dry run\n"
        );
        assert_eq!(shown(true, &[]), "nothing would change: it is so already\n");
    }
}
