//! An inventory as CSV. The csv crate splits the rows; here is what it does not do: line numbers, columns by name, and the
//! promise that a row with a forgotten quote does not swallow those that follow it.

use std::io::Cursor;

use csv::{Position, Reader, ReaderBuilder, StringRecord};

use super::{
    HeaderProblem, Inventory, RowProblem, RowProblemKind,
    build::Builder,
    cursor::PATIENCE,
    rows::{Column, Fields},
};

/// What it costs to begin anew after a forgotten quote, in bytes: the reader fills its buffer again.
const RESTART: usize = 8 << 10;

/// Reads the bytes of a file.
pub(super) fn read(text: &[u8]) -> Result<(Inventory, Vec<RowProblem>), HeaderProblem> {
    let mut builder = Builder::default();
    let mut lines = Lines { text, offset: 0, line: 1 };
    let mut reader = reader(text, true);
    let header = reader.headers().map_err(|e| HeaderProblem::Csv(e.to_string()))?.clone();
    if header.is_empty() {
        return Ok(builder.finish());
    }
    let (columns, unknown) = Columns::of(&header)?;
    let line = lines.at(0);
    unknown.into_iter().for_each(|kind| builder.problem(line, kind));
    let mut wasted = 0usize;
    let mut record = StringRecord::new();
    loop {
        let line = lines.at(reader.position().byte());
        let start = lines.offset;
        let read = reader.read_record(&mut record);
        if matches!(read, Ok(false)) {
            return Ok(builder.finish());
        }
        let end = usize::try_from(reader.position().byte()).unwrap_or(usize::MAX).min(text.len());
        let row = read.map_err(|e| csv_problem(&e)).and_then(|_| columns.row(&record));
        match further_lines(text, start, end) {
            Some(further) if row.is_err() || further.split(|byte| *byte == b'\n').any(|line| columns.fit(line)) => {
                builder.problem(line, RowProblemKind::OpenQuote);
                wasted += further.len() + RESTART;
                if wasted > PATIENCE || go_to(&mut reader, end - further.len()).is_err() {
                    builder.problem(line, RowProblemKind::Hopeless);
                    return Ok(builder.finish());
                }
            }
            _ => match row {
                Ok(Some(fields)) => _ = builder.row(line, &fields, None),
                Ok(None) => {}
                Err(kind) => builder.problem(line, kind),
            },
        }
    }
}

fn reader(text: &[u8], has_headers: bool) -> Reader<Cursor<&[u8]>> {
    ReaderBuilder::new()
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .has_headers(has_headers)
        // Rows are held against the header here: one of empty fields is a blank line, not an error.
        .flexible(true)
        .from_reader(Cursor::new(text))
}

/// Goes on with the row that begins there.
fn go_to(reader: &mut Reader<Cursor<&[u8]>>, place: usize) -> csv::Result<()> {
    let mut position = Position::new();
    position.set_byte(place as u64);
    reader.seek(position)
}

/// What a row has after its first line, if anything.
fn further_lines(text: &[u8], start: usize, end: usize) -> Option<&[u8]> {
    let row = text.get(start..end)?;
    let first = row.iter().position(|byte| *byte == b'\n')?;
    Some(&row[first + 1..]).filter(|further| !further.trim_ascii().is_empty())
}

/// Line numbers for ever larger offsets into a text.
struct Lines<'a> {
    text: &'a [u8],
    offset: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the first row at or after `offset`; the reader skips line ends and comments without saying so.
    fn at(&mut self, offset: u64) -> u64 {
        let target = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut comment = false;
        while let Some(byte) = self.text.get(self.offset) {
            comment = *byte != b'\n' && (comment || *byte == b'#');
            if self.offset >= target && !comment && !matches!(byte, b'\r' | b'\n') {
                break;
            }
            self.line += u64::from(*byte == b'\n');
            self.offset += 1;
        }
        self.line
    }
}

/// What each column is; none: nothing that is known.
struct Columns(Vec<Option<Column>>);

impl Columns {
    fn of(header: &StringRecord) -> Result<(Self, Vec<RowProblemKind>), HeaderProblem> {
        let mut columns = Vec::new();
        let mut unknown = Vec::new();
        for name in header {
            // Spreadsheets begin a file with a byte order mark.
            let name = name.trim_start_matches('\u{feff}').trim().to_ascii_lowercase();
            let column = Column::named(&name);
            if column.is_some() && columns.contains(&column) {
                return Err(HeaderProblem::Twice(name));
            }
            if column.is_none() {
                unknown.push(RowProblemKind::UnknownColumn(name));
            }
            columns.push(column);
        }
        if !columns.contains(&Some(Column::ServerId)) {
            return Err(HeaderProblem::NoServerId);
        }
        Ok((Self(columns), unknown))
    }

    /// None: a row of empty fields.
    fn row(&self, record: &StringRecord) -> Result<Option<Fields>, RowProblemKind> {
        if record.iter().all(str::is_empty) {
            return Ok(None);
        }
        let (found, expected) = (record.len(), self.0.len());
        if found != expected {
            return Err(RowProblemKind::FieldCount { found, expected });
        }
        let mut fields = Fields::default();
        for (column, text) in self.0.iter().zip(record) {
            if let Some(column) = column {
                fields.set(*column, text);
            }
        }
        Ok(Some(fields))
    }

    /// Whether a line within a row could be a row of its own. Then a quote was forgotten in the line above: a name over
    /// two lines is one thing, to lose a machine is another.
    fn fit(&self, line: &[u8]) -> bool {
        // To make a reader is dear.
        if line.iter().filter(|byte| **byte == b',').count() + 1 < self.0.len() {
            return false;
        }
        let mut record = csv::ByteRecord::new();
        reader(line, false).read_byte_record(&mut record).is_ok_and(|read| read && record.len() == self.0.len())
    }
}

fn csv_problem(error: &csv::Error) -> RowProblemKind {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => RowProblemKind::Csv("the row is not UTF-8 text".to_owned()),
        _ => RowProblemKind::Csv(error.to_string()),
    }
}
