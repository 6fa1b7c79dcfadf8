//! A place in a JSON text: reads one value after the other, knows the line, and finds its feet again after nonsense.

use serde::de::DeserializeOwned;

use super::ListProblem;

/// So many bytes may be read in vain: a fraction of a second, and dozens of open brackets before ten thousand machines.
pub(super) const PATIENCE: usize = 64 << 20;

/// A text and a place in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    /// The line of that place.
    pub(super) line: u64,
    /// Bytes that were read in vain.
    wasted: usize,
}

/// A value that is no JSON.
#[derive(Clone, Debug)]
pub(super) struct NoJson {
    pub(super) line: u64,
    pub(super) reason: String,
}

impl<'a> Cursor<'a> {
    /// At the beginning, after the byte order mark that some editors write.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text), at: 0, line: 1, wasted: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn go_to(&mut self, place: usize) {
        let passed = self.text.get(self.at..place).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at = place;
    }

    pub(super) fn step(&mut self) {
        self.go_to(self.at + 1);
    }

    /// The next byte that is no white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let blanks = self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.go_to(self.at + blanks);
        self.rest().first().copied()
    }

    pub(super) fn skip_commas(&mut self) {
        while self.peek() == Some(b',') {
            self.step();
        }
    }

    /// Reads one value and goes to its end, if it is one.
    pub(super) fn value<T: DeserializeOwned>(&mut self) -> Result<T, NoJson> {
        let mut values = serde_json::Deserializer::from_slice(self.rest()).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                self.go_to(self.at + values.byte_offset());
                Ok(value)
            }
            Some(Err(error)) => {
                self.wasted += place_of(self.rest(), &error);
                Err(NoJson::new(self.line, &error))
            }
            None => Err(NoJson { line: self.line, reason: "there is nothing".to_owned() }),
        }
    }

    /// Goes back to the beginning of an item that turned out to be bad, and from there to the next one.
    pub(super) fn retry(&mut self, start: Self) -> bool {
        let wasted = self.wasted + (self.at - start.at);
        *self = Self { wasted, ..start };
        self.resync()
    }

    /// Whether so much was read in vain that the file is no inventory: brackets that nobody closes can make every attempt
    /// read the whole rest of it.
    pub(super) fn is_hopeless(&self) -> bool {
        self.wasted > PATIENCE
    }

    /// Goes from a bad item to where the next one seems to begin: a brace at the beginning of a line, or after a comma, a
    /// bracket or another brace. That is never inside a string, where quotes have backslashes: what looks like an item
    /// there is none.
    pub(super) fn resync(&mut self) -> bool {
        let mut place = self.at + 1;
        while let Some(found) = self.text.get(place..).and_then(|rest| rest.iter().position(|byte| *byte == b'{')) {
            place += found;
            let before = self.text[self.at..place].iter().rev().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
            if matches!(before, Some(b'\n' | b',' | b'[' | b'}' | b']')) {
                self.go_to(place);
                return true;
            }
            place += 1;
        }
        self.go_to(self.text.len());
        false
    }

    pub(super) fn no_list(&self, reason: &str) -> ListProblem {
        ListProblem { line: self.line, reason: reason.to_owned() }
    }
}

impl NoJson {
    /// `line`: where the parser began.
    pub(super) fn new(line: u64, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or(&text).to_owned();
        Self { line: line + (error.line() as u64).saturating_sub(1), reason }
    }
}

/// How far a parser came.
fn place_of(text: &[u8], error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    lines.map(<[u8]>::len).sum::<usize>() + error.column()
}
