//! Aligned tables and bars.

use std::fmt::Write;

/// A table: the first column to the left, the others to the right, but for those that are named as left.
pub(crate) fn table(headers: &[&str], left: &[usize], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headers.iter().map(|header| header.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            line.push_str("  ");
            if column == 0 || left.contains(&column) {
                line.push_str(cell);
                line.push_str(&gap);
            } else {
                line.push_str(&gap);
                line.push_str(cell);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&headers.iter().map(|header| (*header).to_owned()).collect::<Vec<_>>());
    line(&widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    text
}

/// A bar of `width` characters, filled as far as `part` is of `whole`. Anything at all shows.
pub(crate) fn bar(part: u64, whole: u64, width: usize) -> String {
    let width = width as u64;
    let filled = (part.saturating_mul(width) / whole.max(1)).clamp(u64::from(part > 0), width);
    let mut bar = String::new();
    for at in 0..width {
        bar.push(if at < filled { '█' } else { '░' });
    }
    bar
}

/// A section's title.
pub(crate) fn title(text: &mut String, title: &str) {
    text.push('\n');
    text.push_str(title);
    text.push('\n');
}

/// One more line.
pub(crate) fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    if text.write_fmt(line).is_ok() {
        text.push('\n');
    }
}
