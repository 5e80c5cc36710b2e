//! Tables for people.

use std::fmt::Display;

use comfy_table::{CellAlignment, Table, presets};

/// A table without lines between rows: the header, then what [`row`](TextTable::row) adds.
#[derive(Debug)]
pub(crate) struct TextTable(Table);

impl TextTable {
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header);
        Self(table)
    }

    /// Aligns these columns, counted from 0, to the right.
    pub(crate) fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        for column in columns {
            if let Some(column) = self.0.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells.map(|cell| printable(&cell)));
    }
}

impl Display for TextTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.trim_fmt())
    }
}

/// Escapes what a terminal would obey, line by line.
pub(crate) fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Escapes what a terminal would obey, and line ends.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            printable.extend(char.escape_default());
        } else {
            printable.push(char);
        }
    }
    printable
}

/// The beginning of a text that is longer than `width` characters.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.chars().nth(width).is_none() {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// A number of things, of which one has no `s` at its end.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(count: N, thing: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!([0_u64, 1, 2].map(|count| counted(count, "day")), ["0 days", "1 day", "2 days"]);
    }

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31m\tb\nä"), "a\\u{1b}[31m\\tb\\nä");
        assert_eq!(printable_lines("a\u{1b}[31m\nä\n"), "a\\u{1b}[31m\nä\n");
    }
}
