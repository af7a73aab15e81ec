//! The tables of PERFORMANCE.md, made from saved lines, so that no figure in it is typed by hand.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use crate::report::{Judged, Line};
use crate::subject::Result;
use crate::targets::SLOW_US;

/// A table: its name, which lines it is made of, and how.
struct Table {
    name: &'static str,
    holds: fn(&Line) -> bool,
    render: fn(&[&Line]) -> Result<String>,
}

const TABLES: [Table; 12] = [
    Table { name: "flush", holds: |l| l.flush_us.is_some(), render: flush },
    Table {
        name: "single-writer",
        holds: |l| is_write(l) && l.clients == 1 && !is_delayed(l),
        render: compared,
    },
    Table {
        name: "many-writers",
        holds: |l| is_write(l) && l.clients > 1 && !is_delayed(l),
        render: compared,
    },
    Table { name: "sharing", holds: |l| l.case.starts_with(APPEND) && !is_delayed(l), render: sharing },
    Table {
        name: "target-disk",
        holds: |l| is_write(l) && is_delayed(l) && l.delay_flush_us < SLOW_US,
        render: compared,
    },
    Table { name: "slow-disk", holds: |l| is_write(l) && l.delay_flush_us >= SLOW_US, render: compared },
    Table { name: "reads", holds: |l| is_read(l) && !is_delayed(l), render: compared },
    Table { name: "beside-readers", holds: |l| l.beside_ratio.is_some(), render: beside },
    Table { name: "growth", holds: |l| l.case.starts_with("scale-"), render: growth },
    Table { name: "memory", holds: |l| l.engine == "memory" && is_own(l) && !is_scale(l), render: compared },
    Table { name: "moving", holds: |l| matches!(&*l.case, "copy" | "open"), render: moving },
    Table { name: "peers", holds: |l| !is_own(l), render: peers },
];

const READS: [&str; 8] =
    ["get", "by-name", "newest-page", "ancestors", "due-page", "due-page-wide", "last-runs", "summary"];

fn is_own(line: &Line) -> bool {
    matches!(&*line.subject, "ours" | "bare")
}

fn is_scale(line: &Line) -> bool {
    line.case.starts_with("scale-")
}

fn is_delayed(line: &Line) -> bool {
    line.delay_flush_us > 0
}

fn is_on_disk(line: &Line) -> bool {
    is_own(line) && line.engine != "memory" && !is_scale(line)
}

fn is_read(line: &Line) -> bool {
    is_on_disk(line) && READS.contains(&&*line.case)
}

fn is_write(line: &Line) -> bool {
    let is_other = matches!(&*line.case, "copy" | "open" | "beside-readers") || at_once(line).is_some();
    is_on_disk(line) && !is_read(line) && !is_other
}

const APPEND: &str = "append-version";

/// How many versions an operation appends in one transaction, in a case made for that.
fn at_once(line: &Line) -> Option<usize> {
    line.case.strip_prefix(APPEND)?.strip_prefix('-')?.parse().ok()
}

/// The lines that one measurement of something gave, ours and what it is compared with.
type Measurement = Vec<Line>;

/// Reads saved lines. Of several measurements of one thing the one whose ratio is in the middle counts, of two the lower
/// one; where there is no ratio, the last one.
pub(crate) fn read(file: &Path) -> Result<Vec<Line>> {
    let mut things: Vec<Vec<Measurement>> = Vec::new();
    for text in std::fs::read_to_string(file)?.lines().filter(|text| !text.trim().is_empty()) {
        let mut line: Line = serde_json::from_str(text)?;
        line.judge();
        add(&mut things, line);
    }
    Ok(things.into_iter().filter_map(middle).flatten().collect())
}

fn add(things: &mut Vec<Vec<Measurement>>, line: Line) {
    let is_of_it =
        |thing: &&mut Vec<Measurement>| thing.iter().flatten().any(|other| is_of_one(other, &line));
    let Some(thing) = things.iter_mut().find(is_of_it) else {
        things.push(vec![vec![line]]);
        return;
    };
    match thing.last_mut() {
        Some(last) if last.iter().all(|other| other.subject != line.subject) => last.push(line),
        _ => thing.push(vec![line]),
    }
}

fn middle(mut measurements: Vec<Measurement>) -> Option<Measurement> {
    let ratio = |measurement: &Measurement| measurement.iter().find_map(|line| line.ratio);
    if measurements.iter().all(|measurement| ratio(measurement).is_some()) {
        measurements.sort_by(|one, other| ratio(one).partial_cmp(&ratio(other)).unwrap_or(Ordering::Equal));
        measurements.truncate(measurements.len().div_ceil(2));
    }
    measurements.pop()
}

/// Whether two lines are about one thing: ours and bare are compared there, each peer is a thing of its own.
fn is_of_one(one: &Line, other: &Line) -> bool {
    let what = |line: &Line| (line.clients, line.delay_flush_us, line.size);
    (&one.case, &one.engine) == (&other.case, &other.engine)
        && what(one) == what(other)
        && (one.subject == other.subject || is_own(one) && is_own(other))
}

/// All tables that the lines have something for, by name.
pub(crate) fn render(lines: &[Line]) -> Result<BTreeMap<&'static str, String>> {
    let mut rendered = BTreeMap::new();
    for table in &TABLES {
        let own: Vec<&Line> = lines.iter().filter(|line| (table.holds)(line)).collect();
        if !own.is_empty() {
            rendered.insert(table.name, (table.render)(&own)?);
        }
    }
    Ok(rendered)
}

/// Puts tables between their marks in a document; a mark without a table is left as it is.
///
/// # Errors
/// When a table has no place, or a place has no end.
pub(crate) fn put_into(document: &str, tables: &BTreeMap<&'static str, String>) -> Result<String> {
    let mut document = document.to_owned();
    for (name, table) in tables {
        let (begin, end) = (format!("<!-- table {name} -->\n"), "<!-- end -->");
        let from = document.find(&begin).ok_or_else(|| format!("the document has no place for {name}"))?;
        let from = from + begin.len();
        let length = document[from..].find(end).ok_or_else(|| format!("the place of {name} has no end"))?;
        document.replace_range(from..from + length, table);
    }
    Ok(document)
}

/// What a flush took, by the delay that was put on it: the least and the most of all runs.
fn flush(lines: &[&Line]) -> Result<String> {
    let mut table = String::from("| delay µs | 4 KB written over and flushed, µs |\n|--:|--:|\n");
    let delays: BTreeSet<u64> = lines.iter().map(|line| line.delay_flush_us).collect();
    for delay in delays {
        let took = lines.iter().filter(|line| line.delay_flush_us == delay).filter_map(|line| line.flush_us);
        let (least, most) =
            took.fold((f64::MAX, 0.0_f64), |(least, most), took| (least.min(took), most.max(took)));
        writeln!(table, "| {delay} | {} to {} |", number(least), number(most))?;
    }
    Ok(table)
}

fn compared(lines: &[&Line]) -> Result<String> {
    let mut table = String::from(
        "| case | engine | clients | ours/s | bare/s | ratio | p50 µs, ours / bare | processor µs | p99 µs | worst µs \
         | target |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for ours in lines.iter().filter(|line| line.subject == "ours") {
        let bare = lines.iter().find(|line| line.subject == "bare" && is_of_one(line, ours));
        let Line { case, engine, clients, .. } = ours;
        let per_second = |line: Option<&Line>| line.map(|l| number(l.ops_per_second)).unwrap_or_default();
        let both = |of: fn(&Line) -> f64| {
            let bare = bare.map(|bare| number(of(bare))).unwrap_or_default();
            format!("{} / {bare}", number(of(ours)))
        };
        writeln!(
            table,
            "| {case} | {engine} | {clients} | {} | {} | {} | {} | {} | {} | {} | {} |",
            per_second(Some(ours)),
            per_second(bare.copied()),
            ratio(ours.ratio),
            both(|line| line.p50_us),
            both(|line| line.processor_us.unwrap_or_default()),
            both(|line| line.p99_us),
            both(|line| line.max_us),
            targets(ours),
        )?;
    }
    Ok(table)
}

/// What clients reach by sharing commits, which is their ratio, beside what one reaches who has it all in one transaction.
fn sharing(lines: &[&Line]) -> Result<String> {
    let mut table = String::from(
        "| engine | appends | ours, one unit | by hand, one transaction | ours, a client each \
         | by hand, a client each | most by sharing | reached |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for unit in lines.iter().filter(|line| line.subject == "ours" && line.engine != "memory") {
        let (Some(appends), engine) = (at_once(unit), &unit.engine) else { continue };
        let find = |subject: &str, case: &str, clients: usize| {
            let is_it =
                |line: &&&Line| (&*line.subject, &*line.case, line.clients) == (subject, case, clients);
            lines.iter().filter(is_it).find(|line| line.engine == *engine)
        };
        let transaction = find("bare", &unit.case, unit.clients);
        let [ours, bare] = ["ours", "bare"].map(|subject| find(subject, APPEND, appends));
        let together = |line: &Line| line.ops_per_second * appends as f64;
        let most = transaction.zip(bare).map(|(most, bare)| together(most) / bare.ops_per_second);
        let shown = |appends: Option<f64>| appends.map(number).unwrap_or_default();
        writeln!(
            table,
            "| {engine} | {appends} | {} | {} | {} | {} | {} | {} |",
            number(together(unit)),
            shown(transaction.map(|line| together(line))),
            shown(ours.map(|line| line.ops_per_second)),
            shown(bare.map(|line| line.ops_per_second)),
            ratio(most),
            ratio(ours.and_then(|line| line.ratio)),
        )?;
    }
    Ok(table)
}

fn beside(lines: &[&Line]) -> Result<String> {
    let mut table = String::from(
        "| engine | who | p50 µs | over that alone | p99 µs | target |\n|---|---|--:|--:|--:|---|\n",
    );
    for line in lines {
        let Line { engine, subject, p50_us, p99_us, .. } = line;
        let (p50, p99, ratio, targets) =
            (number(*p50_us), number(*p99_us), ratio(line.beside_ratio), targets(line));
        writeln!(table, "| {engine} | {subject} | {p50} | {ratio} | {p99} | {targets} |")?;
    }
    Ok(table)
}

fn growth(lines: &[&Line]) -> Result<String> {
    let sizes: BTreeSet<u64> = lines.iter().filter_map(|line| line.size).collect();
    let heads: Vec<String> = sizes.iter().map(|size| format!("{} records", whole(*size as f64))).collect();
    let mut table = format!(
        "| operation | engine | who | p50 µs: {} | growth | exponent | target |\n",
        heads.join(" | ")
    );
    writeln!(table, "|---|---|---{}|--:|--:|---|", "|--:".repeat(sizes.len()))?;
    for largest in lines.iter().filter(|line| line.growth.is_some()) {
        let Line { case, engine, subject, .. } = largest;
        let at = |size: &u64| {
            let same = |line: &&&Line| (&line.case, &line.engine, &line.subject) == (case, engine, subject);
            let found = lines.iter().filter(same).find(|line| line.size == Some(*size));
            found.map(|line| number(line.p50_us)).unwrap_or_default()
        };
        let costs: Vec<String> = sizes.iter().map(at).collect();
        let name = case.trim_start_matches("scale-");
        let (growth, exponent) = (ratio(largest.growth), ratio(largest.exponent));
        let (costs, targets) = (costs.join(" | "), targets(largest));
        writeln!(table, "| {name} | {engine} | {subject} | {costs} | {growth} | {exponent} | {targets} |")?;
    }
    Ok(table)
}

fn moving(lines: &[&Line]) -> Result<String> {
    let mut table = String::from(
        "| what | engine | who | records | seconds | records/s | ratio | most memory, MB | target |\n\
         |---|---|---|--:|--:|--:|--:|--:|---|\n",
    );
    for line in lines {
        let Line { case, engine, subject, .. } = line;
        let size = line.size.map(|size| whole(size as f64)).unwrap_or_default();
        let per_second = if case == "copy" { whole(line.ops_per_second) } else { String::new() };
        let memory = line.peak_memory_mb.map(whole).unwrap_or_default();
        writeln!(
            table,
            "| {case} | {engine} | {subject} | {size} | {:.3} | {per_second} | {} | {memory} | {} |",
            line.p50_us / 1e6,
            ratio(line.ratio),
            targets(line),
        )?;
    }
    Ok(table)
}

fn peers(lines: &[&Line]) -> Result<String> {
    let mut table = String::from(
        "| case | engine | peer | clients | the peer's/s | ours over it | p50 µs | p99 µs | target |\n\
         |---|---|---|--:|--:|--:|--:|--:|---|\n",
    );
    for line in lines {
        let Line { case, engine, subject, clients, .. } = line;
        writeln!(
            table,
            "| {case} | {engine} | {subject} | {clients} | {} | {} | {} | {} | {} |",
            number(line.ops_per_second),
            ratio(line.ratio),
            number(line.p50_us),
            number(line.p99_us),
            targets(line),
        )?;
    }
    Ok(table)
}

fn targets(line: &Line) -> String {
    line.targets.iter().map(Judged::to_string).collect::<Vec<_>>().join("; ")
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default()
}

/// Small numbers with their decimals, large ones without.
fn number(number: f64) -> String {
    match number {
        n if n < 1.0 => format!("{n:.3}"),
        n if n < 100.0 => format!("{n:.1}"),
        n => whole(n),
    }
}

/// A whole number, its thousands apart.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut spaced = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            spaced.push(',');
        }
        spaced.push(digit);
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(case: &str, subject: &str) -> Line {
        let (case, subject) = (case.to_owned(), subject.to_owned());
        Line {
            case,
            subject,
            engine: "sqlite".into(),
            clients: 1,
            ops_per_second: 1_234.5,
            ..Line::default()
        }
    }

    #[test]
    fn lines_land_in_their_tables_and_tables_in_their_places() {
        let lines = [line("mark", "ours"), line("mark", "bare"), line("get", "ours"), line("mark", "peer")];
        let tables = render(&lines).unwrap();
        assert_eq!(tables.keys().copied().collect::<Vec<_>>(), ["peers", "reads", "single-writer"]);
        assert!(tables["single-writer"].contains("| mark | sqlite | 1 | 1,234 | 1,234 |"), "{tables:?}");
        let place = |name| format!("<!-- table {name} -->\nold\n<!-- end -->\n");
        let document = ["peers", "reads", "single-writer", "growth"].map(place).concat();
        let filled = put_into(&document, &tables).unwrap();
        assert_eq!(filled.matches("old").count(), 1, "what has no table stays: {filled}");
        assert_eq!(put_into(&filled, &tables).unwrap(), filled, "twice is once");
        assert!(put_into("no place", &tables).is_err());
    }

    #[test]
    fn a_disk_is_as_it_is_or_like_that_of_the_targets_or_slow() {
        let delayed = |delay_flush_us| {
            let lines = [Line { delay_flush_us, ..line("mark", "ours") }];
            render(&lines).unwrap().into_keys().collect::<Vec<_>>()
        };
        assert_eq!(delayed(0), ["single-writer"]);
        assert_eq!(delayed(40), ["target-disk"]);
        assert_eq!(delayed(SLOW_US), ["slow-disk"]);
    }

    #[test]
    fn of_several_measurements_the_middle_one_counts_with_what_it_is_compared_with() {
        let measured = |ratio, ops_per_second| {
            let ours = Line { ratio: Some(ratio), ops_per_second, ..line("mark", "ours") };
            [ours, Line { ops_per_second, ..line("mark", "bare") }]
        };
        let mut things = Vec::new();
        let lines = [measured(0.9, 1.0), measured(1.2, 2.0), measured(1.0, 3.0), measured(1.1, 4.0)]
            .into_iter()
            .flatten();
        lines.for_each(|line| add(&mut things, line));
        add(&mut things, Line { size: Some(7), ..line("mark", "ours") });
        add(&mut things, Line { size: Some(7), ops_per_second: 5.0, ..line("mark", "ours") });
        add(&mut things, Line { ratio: Some(0.5), ..line("mark", "peer") });
        let counting: Vec<_> = things.into_iter().filter_map(middle).flatten().collect();
        let of = |line: &Line| (line.subject.clone(), line.ops_per_second);
        let expected = [("ours", 3.0), ("bare", 3.0), ("ours", 5.0), ("peer", 1_234.5)];
        assert_eq!(
            counting.iter().map(of).collect::<Vec<_>>(),
            expected.map(|(subject, ops)| (subject.to_owned(), ops))
        );
    }

    #[test]
    fn the_document_has_a_place_for_every_table() {
        let tables = TABLES.iter().map(|table| (table.name, "new\n".to_owned())).collect();
        let filled = put_into(include_str!("../../PERFORMANCE.md"), &tables).unwrap();
        assert_eq!(filled.matches("\nnew\n<!-- end -->").count(), TABLES.len());
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            ["0.123", "12.3", "123", "1,234,567"],
            [0.1234, 12.34, 123.4, 1_234_567.0].map(number)[..]
        );
    }
}
