//! Tables without borders: aligned columns under a header, like those of `ip -br`. Never wrapped, never cut: each row is
//! one line, for people and for `grep`.

use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement, presets};

use super::{Style, Tone};

/// How a column is aligned: words to the left, numbers to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// One cell.
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// A table in the making.
pub(super) struct Table(comfy_table::Table);

impl Table {
    pub(super) fn new(style: Style, columns: impl IntoIterator<Item = (impl Into<String>, Align)>) -> Self {
        let (names, aligns): (Vec<String>, Vec<Align>) =
            columns.into_iter().map(|(name, align)| (name.into(), align)).unzip();
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).style_text_only();
        if style.color {
            table.enforce_styling()
        } else {
            table.force_no_tty()
        };
        table.set_header(names.iter().map(|name| comfy_table::Cell::new(name).add_attribute(Attribute::Dim)));
        for (column, align) in table.column_iter_mut().zip(aligns) {
            column.set_padding((0, 2));
            column.set_cell_alignment(if align == Align::Right { CellAlignment::Right } else { CellAlignment::Left });
        }
        Self(table)
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.0.add_row(cells.into_iter().map(|Cell { text, tone }| {
            // A name from elsewhere must not be able to move the cursor, nor to break the line.
            let cell = comfy_table::Cell::new(text.replace(char::is_control, "?"));
            match tone {
                Tone::Plain => cell,
                Tone::Bad => cell.fg(Color::Red),
                Tone::Warn => cell.fg(Color::Yellow),
                Tone::Good => cell.fg(Color::Green),
                Tone::Dim => cell.add_attribute(Attribute::Dim),
            }
        }));
    }

    /// The text, without blanks at the ends of lines.
    pub(super) fn render(&self) -> String {
        self.0.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(color: bool) -> String {
        let mut table =
            Table::new(Style { color }, [("NAME", Align::Left), ("COUNT", Align::Right), ("X", Align::Left)]);
        table.row(["a".into(), "1".into(), "".into()]);
        table.row([Cell::new(Tone::Bad, "longer"), "1,000,000".into(), "a\nb\u{1b}".into()]);
        table.render()
    }

    #[test]
    fn columns_are_aligned_and_rows_are_lines() {
        assert_eq!(
            table(false),
            "\
NAME        COUNT  X
a               1
longer  1,000,000  a?b?
"
        );
    }

    #[test]
    fn colour_does_not_move_columns() {
        let colored = table(true);
        assert!(colored.contains("\u{1b}["), "{colored:?}");
        let mut plain = String::new();
        let mut escape = false;
        for c in colored.chars() {
            match c {
                '\u{1b}' => escape = true,
                'm' if escape => escape = false,
                _ if escape => {}
                _ => plain.push(c),
            }
        }
        let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(&plain), lines(&table(false)));
    }
}
