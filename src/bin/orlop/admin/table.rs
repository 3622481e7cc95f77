//! Tables of aligned columns, for people and for `awk`.
//!
//! Rows come in blocks, as pages of a list do. Each block is aligned by the widest cell so far: a list that is longer than
//! memory is aligned as far as it can be known, and one of a single page is aligned as a whole.

use std::io::{self, Write};

use serde_json::Value;

/// Between two columns.
const GAP: &str = "  ";

/// A column: its head, and what of an entry stands in it.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) head: &'static str,
    pub(super) is_number: bool,
    pub(super) cell: fn(&Value) -> String,
}

/// A column of text.
pub(super) fn left(head: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { head, is_number: false, cell }
}

/// A column of numbers or sizes.
pub(super) fn right(head: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { head, is_number: true, cell }
}

/// A table that is being printed.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    widths: Vec<usize>,
    has_head: bool,
}

impl Table {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        let widths = columns.iter().map(|column| column.head.len()).collect();
        Self { columns, widths, has_head: false }
    }

    /// Prints a block of rows, behind the heads if it is the first.
    pub(super) fn print(&mut self, out: &mut dyn Write, entries: &[Value]) -> io::Result<()> {
        let rows: Vec<Vec<String>> = entries.iter().map(|entry| self.row(entry)).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !self.has_head && !rows.is_empty() {
            self.has_head = true;
            let heads: Vec<String> = self.columns.iter().map(|column| column.head.to_owned()).collect();
            self.line(out, &heads)?;
        }
        rows.iter().try_for_each(|row| self.line(out, row))
    }

    fn row(&self, entry: &Value) -> Vec<String> {
        self.columns.iter().map(|column| (column.cell)(entry)).collect()
    }

    fn line(&self, out: &mut dyn Write, cells: &[String]) -> io::Result<()> {
        let mut line = String::new();
        for ((column, width), cell) in self.columns.iter().zip(&self.widths).zip(cells) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, behind) = if column.is_number { (padding, String::new()) } else { (String::new(), padding) };
            line.push_str(&before);
            line.push_str(cell);
            line.push_str(&behind);
            line.push_str(GAP);
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// A whole table as text.
pub(super) fn render(columns: Vec<Column>, entries: &[Value]) -> String {
    let mut out = Vec::new();
    // Writing to memory does not fail.
    let _ = Table::new(columns).print(&mut out, entries);
    String::from_utf8_lossy(&out).into_owned()
}

/// Names and what they are, one a line.
pub(super) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().map(|(name, value)| format!("{name:width$}{GAP}{value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::format;

    fn columns() -> Vec<Column> {
        vec![left("NAME", |entry| format::text(&entry["name"])), right("SIZE", |entry| format::size(&entry["size"]))]
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_spaces_at_their_ends() {
        let entries = [json!({ "name": "a", "size": 5 }), json!({ "name": "long-name", "size": 2048 }), json!({})];
        let expected = "NAME          SIZE\na              5 B\nlong-name  2.0 KiB\n-                -\n";
        assert_eq!(render(columns(), &entries), expected);
        assert_eq!(render(columns(), &[]), "");
    }

    #[test]
    fn a_later_block_keeps_the_widths_of_the_ones_before() {
        let (mut table, mut out) = (Table::new(columns()), Vec::new());
        table.print(&mut out, &[json!({ "name": "long-name", "size": 1 })]).unwrap();
        table.print(&mut out, &[]).unwrap();
        table.print(&mut out, &[json!({ "name": "a", "size": 1 })]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME       SIZE\nlong-name   1 B\na           1 B\n");
    }
}
