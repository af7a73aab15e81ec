//! Answers for people: aligned tables, records, relative times. Programs get the JSON as it is.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use serde_json::Value;
use store::{Amount, time};

/// How an answer looks to people.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look {
    /// A page, a list, or one item of it, as a table.
    Table(&'static [Column]),
    /// Every field on a line of its own.
    Record,
    /// A sentence before the value.
    Said(&'static str),
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    /// Where its value is, as a JSON pointer from the item.
    at: &'static str,
    cell: Cell,
}

/// How a value is shown in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    Text,
    Number,
    /// Relative to now.
    Time,
    /// Millionths as units.
    Amount,
    /// Nanoseconds as a length of time.
    Nanos,
    /// Whether there is anything.
    Mark,
}

/// A column of a table.
pub(crate) const fn column(title: &'static str, at: &'static str, cell: Cell) -> Column {
    Column { title, at, cell }
}

/// The widest that a column of text may be: a SHA-256 in hex fits.
const MAX_WIDTH: usize = 64;

/// The answer as people read it.
pub(crate) fn render(look: Look, value: &Value, now: DateTime<Utc>) -> String {
    match look {
        Look::Table(columns) => {
            let mut text = table(columns, items(value), now);
            if let Some(cursor) = value["next_cursor"].as_str() {
                writeln_to(&mut text, format_args!("more: --cursor {cursor}"));
            }
            text
        }
        Look::Record => record(value, now),
        Look::Said(words) if value.is_null() => format!("{words}\n"),
        Look::Said(words) => format!("{words} {}\n", plain(value)),
    }
}

/// Formatting into a string cannot fail, so there is nothing to report.
fn writeln_to(text: &mut String, line: std::fmt::Arguments<'_>) {
    if writeln!(text, "{line}").is_err() {
        text.push('\n');
    }
}

fn items(value: &Value) -> &[Value] {
    match (value.as_array(), value["items"].as_array()) {
        (Some(items), _) | (None, Some(items)) => items,
        (None, None) => std::slice::from_ref(value),
    }
}

fn table(columns: &[Column], items: &[Value], now: DateTime<Utc>) -> String {
    if items.is_empty() {
        return "none\n".into();
    }
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let cells = |item: &Value| {
        columns.iter().map(|column| cell(column.cell, item.pointer(column.at), now)).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(items.iter().map(cells)).collect();
    let width = |index: usize| {
        rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(columns).zip(&widths) {
            let padding = " ".repeat(width - cell.chars().count());
            let right = matches!(column.cell, Cell::Number | Cell::Amount | Cell::Nanos);
            line.push_str(&if right { format!("{padding}{cell}  ") } else { format!("{cell}{padding}  ") });
        }
        writeln_to(&mut text, format_args!("{}", line.trim_end()));
    }
    text
}

fn cell(how: Cell, value: Option<&Value>, now: DateTime<Utc>) -> String {
    let Some(value) = value.filter(|value| !value.is_null()) else { return "-".into() };
    match how {
        Cell::Text | Cell::Number => short(&plain(value)),
        Cell::Time => when(value).map_or_else(|| plain(value), |time| relative(time, now)),
        Cell::Amount => amount(value).unwrap_or_else(|| plain(value)),
        Cell::Nanos => value.as_u64().map_or_else(|| plain(value), length),
        Cell::Mark => if value == &Value::Bool(false) { "-" } else { "yes" }.into(),
    }
}

fn short(text: &str) -> String {
    let line = text.replace("\\n", " ");
    if line.chars().count() <= MAX_WIDTH {
        return line;
    }
    line.chars().take(MAX_WIDTH - 1).chain(['…']).collect()
}

/// A value as text on one line, without control characters: what is stored may have been written to fool a terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => visible(text, false),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        other => visible(&other.to_string(), false),
    }
}

/// Text of several lines, without other control characters.
pub(crate) fn visible_lines(text: &str) -> String {
    format!("{}\n", visible(text, true))
}

fn visible(text: &str, lines: bool) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() && !(lines && (c == '\n' || c == '\t')) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// Every field of an object, those of `doc` and `content` too, in order; long texts last and in full.
fn record(value: &Value, now: DateTime<Utc>) -> String {
    let mut fields = Vec::new();
    flatten("", value, now, &mut fields);
    let width = fields.iter().map(|(name, text)| if text.contains('\n') { 0 } else { name.len() }).max();
    let (long, brief): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, text)| text.contains('\n'));
    let mut text = String::new();
    for (name, value) in brief {
        writeln_to(&mut text, format_args!("{name:<0$}  {value}", width.unwrap_or(0)));
    }
    for (name, value) in long {
        writeln_to(&mut text, format_args!("\n{name}:\n{}", value.trim_end_matches('\n')));
    }
    text
}

fn flatten(path: &str, value: &Value, now: DateTime<Utc>, fields: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let whole = path.is_empty() || path == "doc";
                let name = if whole { name.clone() } else { format!("{path}.{name}") };
                flatten(&name, member, now, fields);
            }
        }
        Value::Null => {}
        other => fields
            .push((if path.is_empty() { "value".into() } else { path.to_owned() }, field(path, other, now))),
    }
}

/// The fields whose numbers are amounts, wherever they stand.
const AMOUNTS: [&str; 6] = ["used", "held", "estimate", "cost", "max_cost", "limit"];

fn field(path: &str, value: &Value, now: DateTime<Utc>) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    if let Some(time) = when(value).filter(|_| name.ends_with("_at") || ["since", "until"].contains(&name)) {
        return format!("{} ({})", plain(value), relative(time, now));
    }
    match value {
        Value::String(text) if text.contains('\n') => visible(text, true),
        _ if AMOUNTS.contains(&name) => amount(value).unwrap_or_else(|| plain(value)),
        _ => plain(value),
    }
}

fn when(value: &Value) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|time| time.to_utc())
}

fn amount(value: &Value) -> Option<String> {
    Amount::from_micros(value.as_u64()?).ok().map(|amount| amount.to_string())
}

/// `in 3 h`, `2 days ago`, `now`: the largest unit that fits.
fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let (earlier, later) = if at < now { (at, now) } else { (now, at) };
    let seconds = (later - earlier).num_seconds().unsigned_abs();
    let days = |n: u64| if n == 1 { "1 day".to_owned() } else { format!("{n} days") };
    let distance = match seconds {
        0 => return "now".into(),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => days(seconds / 86400),
    };
    if at < now { format!("{distance} ago") } else { format!("in {distance}") }
}

/// Nanoseconds in the largest unit that says enough.
fn length(nanos: u64) -> String {
    let seconds = time::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX)).timestamp();
    match seconds {
        0 => format!("{} ms", nanos / 1_000_000),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> DateTime<Utc> {
        "2026-01-31T09:00:00Z".parse().unwrap()
    }

    #[test]
    fn times_are_relative() {
        let from = |text: &str| relative(text.parse().unwrap(), now());
        assert_eq!(from("2026-01-31T09:00:00.5Z"), "now");
        assert_eq!(from("2026-01-31T09:00:01Z"), "in 1 s");
        assert_eq!(from("2026-01-31T08:58:59Z"), "1 min ago");
        assert_eq!(from("2026-01-31T12:00:00Z"), "in 3 h");
        assert_eq!(from("2026-01-29T08:00:00Z"), "2 days ago");
        assert_eq!(from("2026-02-01T09:00:00Z"), "in 1 day");
    }

    #[test]
    fn tables_are_aligned_and_cannot_fool_a_terminal() {
        const COLUMNS: &[Column] = &[
            column("ID", "/id", Cell::Text),
            column("COST", "/cost", Cell::Amount),
            column("NEXT", "/next", Cell::Time),
        ];
        let page = json!({
            "items": [
                { "id": "grün", "cost": 250_000, "next": "2026-01-31T10:00:00Z" },
                { "id": "\u{1b}[2J", "cost": 12_000_000, "next": null },
            ],
            "next_cursor": "abc",
        });
        let text = render(Look::Table(COLUMNS), &page, now());
        let expected = "ID         COST  NEXT\n\
                        grün       0.25  in 1 h\n\
                        \\u{1b}[2J    12  -\n\
                        more: --cursor abc\n";
        assert_eq!(text, expected);
        assert_eq!(render(Look::Table(COLUMNS), &json!([]), now()), "none\n");
    }

    #[test]
    fn records_show_each_field_and_texts_in_full() {
        let stored = json!({ "doc": { "id": "s", "body": "one\ntwo\n", "tags": ["a", "b"],
            "schedule": { "next_run_at": "2026-01-31T12:00:00Z" } }, "revision": 3 });
        let expected = "id                    s\n\
                        schedule.next_run_at  2026-01-31T12:00:00Z (in 3 h)\n\
                        tags                  a, b\n\
                        revision              3\n\
                        \nbody:\none\ntwo\n";
        assert_eq!(render(Look::Record, &stored, now()), expected);
    }
}
