//! Rows of cells, and how figures are written in them.

use std::fmt::Write as _;

use super::super::spread::Spread;

pub(super) type Row = Vec<String>;

pub(super) fn row(cells: &[&str]) -> Row {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub(super) fn spread(spread: &Spread, digits: usize) -> String {
    // Adding 0 turns "-0.0" into "0.0".
    let number = |x: f64| {
        let scale = 10_f64.powi(i32::try_from(digits).unwrap_or(0));
        format!("{:.digits$}", (x * scale).round() / scale + 0.0)
    };
    format!("{} [{}..{}]", number(spread.median), number(spread.min), number(spread.max))
}

pub(super) fn limit(sign: &str, value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{sign} {value}"))
}

/// In a word, whether a promise is kept.
pub(super) fn judged(within_budget: Option<bool>) -> &'static str {
    match within_budget {
        Some(false) => "MISSES BUDGET",
        Some(true) => "ok",
        None => "",
    }
}

/// Columns as wide as their widest cell.
pub(super) fn aligned(rows: &[Row]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "  {cell:<width$}").expect("writing to a string cannot fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = aligned(&[row(&["a", "bb"]), row(&["≤≤≤", "c"]), row(&["d", ""])]);
        assert_eq!(text, "  a    bb\n  ≤≤≤  c\n  d\n");
    }
}
