//! What the commands print: tables with aligned columns, and text to a reader that may go away.
//!
//! Column names and their order are an interface: scripts cut them. Main thread or the one shard
//! of a command.

use std::fmt;
use std::io::Write;

/// Rows of text under column names, each column as wide as its widest cell.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[&str]) -> Table {
        Table { rows: vec![columns.iter().map(|name| name.to_string()).collect()] }
    }

    /// Appends a row, of as many cells as there are columns.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.rows[0].len());
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let widest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Prints to standard output; a reader that went away (`| head`) is no error.
pub fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// `1,2,3`, or `-` for none.
pub fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.is_empty() {
        true => "-".into(),
        false => items.join(","),
    }
}

/// The text, or `-` where there is none.
pub fn or_dash(text: Option<impl fmt::Display>) -> String {
    text.map_or("-".into(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let mut table = Table::new(&["TOPIC", "LAG", "NOTE"]);
        table.row(["orders".into(), "7".into(), "".into()]);
        table.row(["größe".into(), "1000".into(), "late".into()]);
        assert_eq!(table.to_string(), "TOPIC   LAG   NOTE\norders  7\ngröße   1000  late\n");
    }

    #[test]
    fn lists_are_joined_and_never_empty() {
        assert_eq!(list([1, 2, 3]), "1,2,3");
        assert_eq!(list(Vec::<i32>::new()), "-");
    }
}
