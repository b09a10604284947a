//! What the commands print: text, tables, JSON. A reader that goes away early (`| head`) is no error.

use mlbridge::error::{Error, Result};
use std::io::Write;

/// Prints text to standard output.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints a value as JSON, over several lines.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::Invalid(error.to_string()))?;
    print(&(text + "\n"));
    Ok(())
}

/// Prints rows under their headings, each column as wide as its widest cell.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headings: Vec<String> = headings.iter().map(|heading| heading.to_string()).collect();
    let mut text = String::new();
    for row in std::iter::once(&headings).chain(rows) {
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
