//! What the programs of a test said last. Shown when it fails: nothing else of them is left then.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt::{self, Write as _},
};

/// So many programs are remembered, those that ended last: the agent and the servers, not the clients before them.
const PROGRAMS: usize = 4;
/// So many lines of each.
const LINES: usize = 12;

thread_local! {
    /// Of this test, which runs on one thread.
    static SAID: RefCell<VecDeque<Program>> = const { RefCell::new(VecDeque::new()) };
}

struct Program {
    name: String,
    lines: Vec<String>,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` said last:", self.name)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Remembers a program that has ended.
pub(crate) fn keep<'a>(name: &str, lines: impl DoubleEndedIterator<Item = &'a String> + ExactSizeIterator) {
    if lines.len() == 0 {
        return;
    }
    let unneeded = lines.len().saturating_sub(LINES);
    let program = Program { name: name.to_owned(), lines: lines.skip(unneeded).cloned().collect() };
    // Where the thread itself is ending, nobody asks any more.
    let _ = SAID.try_with(|said| {
        let mut said = said.borrow_mut();
        said.push_back(program);
        if said.len() > PROGRAMS {
            said.pop_front();
        }
    });
}

/// Each of the programs since this was asked last, a paragraph each.
pub(crate) fn take() -> String {
    SAID.take().iter().fold(String::new(), |mut text, program| {
        write!(text, "\n{program}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep_numbers(name: &str, count: usize) {
        keep(name, (0..count).map(|number| number.to_string()).collect::<Vec<_>>().iter());
    }

    #[test]
    fn the_last_lines_of_the_last_programs_are_kept_until_they_are_asked_for() {
        (0..PROGRAMS).for_each(|_| keep_numbers("client", 1));
        (1..PROGRAMS).for_each(|_| keep_numbers("server", 1));
        keep_numbers("silent", 0);
        keep_numbers("agent", LINES + 2);
        let text = take();
        assert_eq!(text.matches("client").count(), 0, "{text}");
        assert_eq!(text.matches("\n`server` said last:\n    0").count(), PROGRAMS - 1, "{text}");
        assert!(text.contains("\n`agent` said last:\n    2\n    3\n"), "{text}");
        assert!(text.ends_with("\n    13") && !text.contains("silent"), "{text}");
        assert_eq!(take(), "");
    }
}
