//! Standard output: text or JSON, in colour or not, and the reader that goes away.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use serde::Serialize;

use super::render::Style;

/// Nobody reads our output any more (`dhcp-guard clients | head`). That is no failure.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(super) struct StdoutClosed;

/// Where answers go.
pub(super) struct Output {
    to: Box<dyn Write>,
    style: Style,
}

impl Output {
    /// Standard output; in colour on a terminal that wants it.
    pub(super) fn stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        Self { to: Box::new(io::stdout()), style: Style { color } }
    }

    /// How tables should look there.
    pub(super) fn style(&self) -> Style {
        self.style
    }

    /// Text as it is.
    pub(super) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        let written = self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush());
        match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
            other => other.context("cannot write to standard output"),
        }
    }

    /// One JSON document for people and programs.
    pub(super) fn json(&mut self, document: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(document).context("cannot write the answer as JSON")?;
        self.text(&(text + "\n"))
    }

    /// One JSON document on one line.
    pub(super) fn json_line(&mut self, document: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(document).context("cannot write the answer as JSON")?;
        self.text(&(text + "\n"))
    }
}

#[cfg(test)]
pub(super) mod buffer {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    /// What was written to [`Output::buffer`].
    #[derive(Clone, Default)]
    pub(crate) struct Written(Rc<RefCell<Vec<u8>>>);

    impl Written {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output {
        /// Into memory, without colour.
        pub(crate) fn buffer() -> (Self, Written) {
            let written = Written::default();
            (Self { to: Box::new(written.clone()), style: Style { color: false } }, written)
        }

        fn failing(kind: io::ErrorKind) -> Self {
            struct Failing(io::ErrorKind);
            impl Write for Failing {
                fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                    Err(self.0.into())
                }
                fn flush(&mut self) -> io::Result<()> {
                    Ok(())
                }
            }
            Self { to: Box::new(Failing(kind)), style: Style { color: false } }
        }
    }

    #[test]
    fn a_reader_that_went_away_is_told_from_a_failure() {
        assert!(Output::failing(io::ErrorKind::BrokenPipe).text("x").unwrap_err().is::<StdoutClosed>());
        let full = Output::failing(io::ErrorKind::StorageFull).json(&1).unwrap_err();
        assert!(!full.is::<StdoutClosed>());
        assert!(full.to_string().contains("standard output"), "{full}");
    }
}
