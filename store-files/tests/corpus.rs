//! What becomes of each file in `corpus/`: taken, taken with warnings, or refused, and with which words.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use store_files::{FileError, SkillFile, parse_skill};

/// File; name; description; `extra`.
type Taken = (&'static str, &'static str, &'static str, Value);
/// A warning: line; part of the reason.
type Note = (Option<usize>, &'static str);
/// File; line; part of the reason.
type Refused = (&'static str, Option<usize>, &'static str);

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"))
}

/// Read as though it were the `SKILL.md` of a directory of that name.
fn read(name: &str) -> Result<SkillFile, FileError> {
    let bytes = fs::read(corpus().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    parse_skill(Path::new(name.trim_end_matches(".md")).join("SKILL.md"), &bytes)
}

fn taken() -> Vec<Taken> {
    let base = json!({"retries": 3, "wait": 1.5});
    vec![
        ("plain.md", "plain", "Does one thing and says so.", json!({})),
        ("crlf.md", "crlf", "Saved by an editor on another system.", json!({"steps": ["one", "two"]})),
        ("bom.md", "bom", "Begins with a mark nobody sees.", json!({})),
        ("no-newline-at-end.md", "no-newline", "The file ends at once", json!({})),
        ("dots.md", "dots", "Closed the other way.", json!({})),
        ("spaces-after-dashes.md", "spaces", "An editor left blanks.", json!({})),
        ("rules-in-body.md", "rules", "The body has rules.", json!({})),
        (
            "folded.md",
            "folded",
            "A long text that was folded: by hand, with # no comment.\nAnd a second paragraph.",
            json!({}),
        ),
        ("literal.md", "literal", "First line\n  indented\n- not a list", json!({})),
        ("quotes.md", "quotes", "It's quoted: \"well\"", json!({"title": "tab\there, über"})),
        (
            "types.md",
            "types",
            "One of each.",
            json!({
                "whole": -42, "large": 18446744073709551615u64, "real": 2.5,
                "yes-and-no": [true, false, "yes", "off"], "nothing": [null, null, ""],
                "day": "2026-02-30", "moment": "2026-01-31T07:00:00+01:00", "clock": "07:45", "version": "1.2.3",
            }),
        ),
        (
            "odd-keys.md",
            "odd-keys",
            "Keys that are not words.",
            json!({"1": "one", "true": "two", "": "three", "with space": "four", "quoted:key": "five"}),
        ),
        (
            "aliases.md",
            "aliases",
            "Says it once.",
            json!({"base": base, "first": base, "second": [base, base]}),
        ),
        ("unicode.md", "дерево", "木を数える — ¿cuántos? 🌳", json!({})),
        ("flow.md", "flow", "All on one line", json!({"tools": ["a", "b"]})),
        ("json.md", "json", "Written by a program", json!({})),
        ("comments.md", "comments", "Comments on lines of their own.", json!({})),
        ("tools-text.md", "tools-text", "Tools as text.", json!({})),
    ]
}

/// As above, with the warnings that must be there: line and part of the reason.
fn noted() -> Vec<(Taken, Vec<Note>)> {
    let quoted = |line| -> Vec<Note> { vec![(Some(line), "as if it stood in quotes")] };
    vec![
        (
            ("empty-block.md", "empty-block", "", json!({})),
            vec![(None, "no `name`"), (None, "no `description`")],
        ),
        (
            ("no-name.md", "no-name", "Nobody named it.", json!({})),
            vec![(None, "named `no-name` after its directory")],
        ),
        (("no-description.md", "no-description", "", json!({})), vec![(None, "no `description`")]),
        (
            ("blank-lines-first.md", "late", "Begins on the third line.", json!({})),
            vec![(Some(1), "blank lines")],
        ),
        (("colon.md", "colon", "Use when: the user asks for \"it\"", json!({})), quoted(3)),
        (("colon-crlf.md", "colon-crlf", "Two: colons: here", json!({})), quoted(3)),
        (
            (
                "colon-on-two-lines.md",
                "two-lines",
                "Reads a page. Use when: it is long, or: it is old",
                json!({}),
            ),
            quoted(3),
        ),
        (("at-sign.md", "at-sign", "@mention of a person", json!({})), quoted(3)),
        (("backtick.md", "backtick", "`make` and what follows", json!({})), quoted(3)),
        (("percent.md", "percent", "%d of %s", json!({})), quoted(3)),
        (
            ("brackets.md", "brackets", "[draft] not a list", json!({"argument-hint": "[file] [--deep]"})),
            [quoted(3), quoted(4)].concat(),
        ),
        (("stars.md", "stars", "**Important** when it matters", json!({})), quoted(3)),
        (("exclamation.md", "exclamation", "!important reads like a tag", json!({})), quoted(3)),
        (
            ("apostrophe.md", "apostrophe", "It's quoted badly", json!({"path": "C:\\docs\\new"})),
            [quoted(3), quoted(4)].concat(),
        ),
        (("greater.md", "greater", ">90% of pages", json!({})), quoted(3)),
        (("hash.md", "hash", "Fixes issue", json!({})), vec![(Some(3), "YAML comment")]),
        (
            ("version-number.md", "version-number", "A version that looks like a number.", json!({})),
            vec![(Some(5), "`1.10` is read as the number 1.1")],
        ),
        (
            (
                "tools-map.md",
                "tools-map",
                "Tools as switches.",
                json!({"allowed-tools": {"read": true, "write": false}}),
            ),
            vec![(Some(4), "kept as it is in `extra`")],
        ),
        (
            (
                "merge.md",
                "merge",
                "Merges by an old rule.",
                json!({"base": {"a": 1}, "more": {"<<": {"a": 1}}, "<<": {"a": 1}}),
            ),
            vec![(Some(6), "nothing is merged"), (Some(7), "nothing is merged")],
        ),
    ]
}

fn refused() -> Vec<Refused> {
    vec![
        ("no-front-matter.md", Some(1), "no front matter"),
        ("not-closed.md", Some(1), "not closed"),
        ("latin-1.md", Some(3), "not UTF-8"),
        ("nul.md", Some(5), "NUL character"),
        ("duplicate.md", Some(4), "`name` is there twice"),
        ("list.md", Some(2), "is a list"),
        ("prose.md", Some(2), "is text"),
        ("description-list.md", Some(3), "`description` must be text"),
        ("tab-indented.md", Some(5), "tab"),
        ("unclosed-list.md", Some(4), ""),
        ("nested-colon.md", Some(5), "mapping values are not allowed"),
        ("too-large.md", Some(4), "beyond 64 bits"),
        ("nan.md", Some(4), "no place in JSON"),
        ("cycle.md", Some(4), "part of"),
        ("bomb.md", Some(8), "aliases written out"),
        ("deep.md", Some(4), ""),
        ("second-document.md", Some(4), "second YAML document"),
        ("swallowed-key.md", Some(3), "mapping values are not allowed"),
    ]
}

fn same(file: &SkillFile, (name_of_file, name, description, extra): &Taken) {
    assert_eq!((file.name.as_str(), file.description.as_str()), (*name, *description), "{name_of_file}");
    assert_eq!(Value::from(file.extra.clone()), *extra, "{name_of_file}");
}

#[test]
fn taken_without_a_word() {
    for expected in taken() {
        let file = read(expected.0).unwrap_or_else(|e| panic!("{e}"));
        same(&file, &expected);
        assert_eq!(file.warnings, [], "{}", expected.0);
    }
}

#[test]
fn taken_with_a_word() {
    for (expected, warnings) in noted() {
        let file = read(expected.0).unwrap_or_else(|e| panic!("{e}"));
        same(&file, &expected);
        assert_eq!(file.warnings.len(), warnings.len(), "{}: {:?}", expected.0, file.warnings);
        for (got, (line, part)) in file.warnings.iter().zip(warnings) {
            assert_eq!(got.line, line, "{}: {got}", expected.0);
            assert!(got.reason.contains(part), "{}: {got}", expected.0);
        }
    }
}

#[test]
fn refused_with_line_and_reason() {
    for (name, line, part) in refused() {
        let error = read(name).expect_err(name);
        assert_eq!(error.line, line, "{error}");
        assert!(error.reason.contains(part), "{error}");
    }
}

#[test]
fn bodies_are_kept_to_the_byte() {
    let body = |name: &str| read(name).unwrap_or_else(|e| panic!("{e}")).body;
    assert_eq!(body("plain.md"), "\n# Plain\n");
    assert_eq!(body("crlf.md"), "\r\nKeep\r\nthese\r\n");
    assert_eq!(body("bom.md"), "Body\n");
    assert_eq!(body("no-newline-at-end.md"), "");
    assert_eq!(body("dots.md"), "Body\n");
    assert_eq!(body("rules-in-body.md"), "one\n---\ntwo\n---\n");
    assert_eq!(body("unicode.md"), "\u{a0}Ünïcode\u{2028}\n");
    assert_eq!(body("colon-crlf.md"), "Body\r\n");
}

#[test]
fn lists_of_tools() {
    let tools = |name: &str| read(name).unwrap_or_else(|e| panic!("{e}")).allowed_tools;
    assert_eq!(tools("tools-text.md"), ["Bash(git add:*)", "Bash(git log *)", "Read", "Grep"]);
    assert_eq!(tools("json.md"), ["Read"]);
    assert_eq!(tools("tools-map.md"), [""; 0]);
}

#[test]
fn every_file_is_expected() {
    let mut expected = BTreeSet::new();
    expected.extend(taken().iter().map(|t| t.0.to_owned()));
    expected.extend(noted().iter().map(|(t, _)| t.0.to_owned()));
    expected.extend(refused().iter().map(|r| r.0.to_owned()));
    let there: BTreeSet<String> = fs::read_dir(corpus())
        .expect("the corpus")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|n| n.ends_with(".md"))
        .collect();
    assert_eq!(there, expected);
}
