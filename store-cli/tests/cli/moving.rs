//! Exports and imports: all of it arrives, and nothing arrives of what was damaged.

use crate::support::Bench;

/// A store with something in every seam, and its export.
fn exported() -> (Bench, String) {
    let bench = Bench::new();
    bench.skill("report");
    bench.json(&["skill", "append", "report", "--by", "ana", "--version-id", "v1"]);
    bench.json(&["budget", "add", "1", "--caller", "ana", "--meter", "usd", "--key", "k"]);
    bench.json(&["run", "start", "r1", "--caller", "ana"]);
    bench.json(&["run", "event", "r1", "step"]);
    bench.json(&["checkpoint", "save", "r1", "1"]);
    let text = bench.text(&["export"]);
    (bench, text)
}

#[test]
fn what_was_exported_is_imported() {
    let (bench, text) = exported();
    let file = bench.path("agents.jsonl").display().to_string();
    assert_eq!(bench.text(&["export", &file]), "records written: 8\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert!(text.lines().next().unwrap().contains(r#""engine":"sqlite""#));
    assert_eq!(bench.fails(4, &["export", &file])["kind"], "already_exists");

    let other = Bench::new();
    assert_eq!(other.json(&["import", &file])["records"]["skill"], 1);
    assert_eq!(other.text(&["export"]), text);
    assert_eq!(other.fails(4, &["import", &file])["kind"], "conflict");
    let third = Bench::new();
    assert_eq!(third.run_with(&["import", "-"], &text).out, "records stored: 8\n");
    assert_eq!(third.text(&["export"]), text);
    assert_eq!(third.fails(3, &["import", "/no/such/file"])["what"], "file");
}

/// Imports a damaged text: refused with its line, and the store stays empty.
fn refused(bench: &Bench, text: &str, line: usize) {
    let ran = bench.run_with(&["import", "-"], text);
    assert_eq!(ran.code, 9, "{}", ran.err);
    assert!(ran.err.contains(&format!("line {line}: ")), "line {line}: {}", ran.err);
    assert_eq!(bench.text(&["skill", "list"]), "none\n");
}

#[test]
fn truncated_exports_are_refused() {
    let (_, text) = exported();
    let bench = Bench::new();
    let lines: Vec<&str> = text.lines().collect();
    for kept in 0..lines.len() {
        let cut: String = lines[..kept].iter().map(|line| format!("{line}\n")).collect();
        refused(&bench, &cut, kept + 1);
        refused(&bench, &format!("{cut}{}", &lines[kept][..lines[kept].len() / 2]), kept + 1);
    }
    refused(&bench, text.trim_end(), lines.len());
}

#[test]
fn altered_exports_are_refused_with_the_line() {
    let (_, text) = exported();
    let bench = Bench::new();
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    for at in 0..lines.len() {
        let altered = lines[at].replacen(|c: char| c.is_ascii_digit() && c != '7', "7", 99);
        let mut changed = lines.clone();
        changed[at] = &altered;
        refused(&bench, &joined(&changed), at + 1);
        let mut lost = lines.clone();
        lost.remove(at);
        refused(&bench, &joined(&lost), at + 1);
        let mut twice = lines.clone();
        twice.insert(at, lines[at]);
        refused(&bench, &joined(&twice), at + 2);
    }
    refused(&bench, &format!("{text}\n"), lines.len() + 1);
    let ran = bench.run_with(&["import", "-"], &text);
    assert_eq!(ran.code, 0, "{}", ran.err);
}
