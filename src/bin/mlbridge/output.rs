//! What the commands print: text, tables, JSON. A reader that goes away early (`| head`) is no error.

use mlbridge::error::{Error, Result};
use std::io::Write;

/// Prints text to standard output.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("mlbridge: standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// Prints a value as JSON, over several lines.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::Invalid(error.to_string()))?;
    print(&(text + "\n"));
    Ok(())
}

/// Longest cell of a table, in characters.
const MAX_CELL: usize = 200;

/// A cell as it is shown: notes and authors come from other people, so nothing in them reaches the terminal as a command
/// or makes a row of its own; JSON output has them whole.
fn shown(cell: &str) -> String {
    let clean = cell.chars().map(|c| if c.is_control() { ' ' } else { c });
    match cell.chars().nth(MAX_CELL) {
        None => clean.collect(),
        Some(_) => clean.take(MAX_CELL).chain("...".chars()).collect(),
    }
}

/// Prints rows under their headings, each column as wide as its widest cell.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headings: Vec<String> = headings.iter().map(|heading| heading.to_string()).collect();
    let mut text = String::new();
    for row in std::iter::once(&headings).chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    print(&text);
}

/// A moment (milliseconds since 1970) as local-independent text: UTC, to the second.
pub fn moment(ms: i64) -> String {
    use time::macros::format_description;
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let moment = time::OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000));
    moment.ok().and_then(|moment| moment.format(&format).ok()).unwrap_or_else(|| ms.to_string())
}

/// A score with as many digits as people read.
pub fn score(score: Option<f32>) -> String {
    score.map_or_else(|| "-".to_owned(), |score| format!("{score:.4}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_short_line_without_commands() {
        assert_eq!(shown("a\nb\x1b[31m"), "a b [31m");
        assert_eq!(shown(&"x".repeat(100_000)).chars().count(), MAX_CELL + 3);
        assert_eq!(shown(&"x".repeat(MAX_CELL)), "x".repeat(MAX_CELL));
    }
}
