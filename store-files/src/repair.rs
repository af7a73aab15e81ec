//! Puts top-level values in quotes that YAML refuses as they stand. The rules are in the crate's docs.

use std::collections::BTreeSet;

use crate::yaml::{self, Fault};

/// Front matter with some lines changed; it has as many lines as before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repaired {
    pub(crate) yaml: String,
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Within the block, from 1.
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) reason: String,
}

/// Quotes what fails alone. `None` when there is nothing that may be repaired.
pub(crate) fn repair(yaml: &str, known_keys: &[&str]) -> Option<Repaired> {
    let lines: Vec<&str> = yaml.split_inclusive('\n').collect();
    let starts: Vec<usize> =
        (0..lines.len()).filter(|i| lines.get(*i).is_some_and(|l| key_of(l).is_some())).collect();
    let anchors = anchors_in(yaml);
    let mut out = String::with_capacity(yaml.len() + 64);
    let mut changes = Vec::new();
    let mut done = 0;
    for (n, &start) in starts.iter().enumerate() {
        let end = starts.get(n + 1).copied().unwrap_or(lines.len());
        let (Some(before), Some(entry)) = (lines.get(done..start), lines.get(start..end)) else { continue };
        out.extend(before.iter().copied());
        done = end;
        let text: String = entry.concat();
        match yaml::parse(&text) {
            Err(error) if error.fault != Fault::Refused => {
                match quoted(entry, error.fault, &anchors, known_keys) {
                    Some((key, quoted)) => {
                        out.push_str(&quoted);
                        changes.push(Change { line: start + 1, key, reason: error.reason });
                    }
                    None => out.push_str(&text),
                }
            }
            _ => out.push_str(&text),
        }
    }
    out.extend(lines.get(done..).unwrap_or_default().iter().copied());
    (!changes.is_empty()).then_some(Repaired { yaml: out, changes })
}

/// Everything that may be the name of an anchor: what follows each `&` up to white space.
fn anchors_in(yaml: &str) -> BTreeSet<&str> {
    yaml.split_whitespace().flat_map(|word| word.split('&').skip(1)).collect()
}

/// The key of a line `key: value` or `key:` at the left margin, and where its value begins.
fn key_of(line: &str) -> Option<(&str, usize)> {
    let colon = line.find(':')?;
    let key = line.get(..colon)?.trim_end_matches([' ', '\t']);
    let after = line.get(colon + 1..)?;
    let first = key.chars().next()?;
    let fits = (first.is_alphanumeric() || first == '_')
        && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '$' | ' '));
    let separated = after.is_empty() || after.starts_with([' ', '\t', '\r', '\n']);
    (fits && separated).then_some((key, colon + 1))
}

/// The entry with its value in quotes, if the rules allow it.
fn quoted(
    entry: &[&str],
    fault: Fault,
    anchors: &BTreeSet<&str>,
    known_keys: &[&str],
) -> Option<(String, String)> {
    let first = entry.first()?;
    let (key, at) = key_of(first)?;
    let head = first.get(..at)?;

    // Comments and blank lines at the end belong to nobody.
    let is_tail = |line: &&&str| line.trim().is_empty() || line.starts_with('#');
    let tail = entry.iter().skip(1).rev().take_while(is_tail).count();
    let value_lines = entry.get(..entry.len().checked_sub(tail)?)?;
    for line in value_lines.iter().skip(1) {
        let inner = line.trim_start_matches([' ', '\t']);
        let indented = inner.len() < line.len();
        if !(indented || line.trim().is_empty()) {
            return None;
        }
        if key_of(inner).is_some_and(|(k, _)| known_keys.contains(&k)) {
            return None;
        }
    }

    let mut value = String::from(first.get(at..)?);
    value.extend(value_lines.iter().skip(1).copied());
    let value = value.trim_matches([' ', '\t', '\r', '\n']);
    let on_first_line = first.get(at..)?.trim();
    if on_first_line.is_empty() || !may_be_text(on_first_line) {
        return None;
    }
    if fault == Fault::UnknownAnchor {
        let name: String = value.strip_prefix('*')?.chars().take_while(|c| !c.is_whitespace()).collect();
        if anchors.contains(name.as_str()) {
            return None;
        }
    }

    let last = value_lines.last()?;
    let line_break = last.get(last.trim_end_matches(['\r', '\n']).len()..)?;
    let mut out = format!("{head} '{}'{line_break}", without_outer_quotes(value).replace('\'', "''"));
    out.extend(entry.get(entry.len() - tail..)?.iter().copied());
    Some((key.to_owned(), out))
}

/// Whether a value that YAML refuses may have been meant as plain or quoted text, by its first line.
fn may_be_text(line: &str) -> bool {
    match line.chars().next() {
        Some('|' | '>') => !is_block_header(line),
        Some('[') => goes_on_after(line, '[', ']'),
        Some('{') => goes_on_after(line, '{', '}'),
        _ => true,
    }
}

/// Whether the bracket the line begins with is closed before its end.
fn goes_on_after(line: &str, open: char, close: char) -> bool {
    let mut depth = 0usize;
    for (i, c) in line.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return i + close.len_utf8() < line.len();
            }
        }
    }
    false
}

/// `|`, `>-`, `|2+ # comment` ...
fn is_block_header(line: &str) -> bool {
    let rest = line
        .get(1..)
        .unwrap_or_default()
        .trim_start_matches(|c: char| matches!(c, '+' | '-') || c.is_ascii_digit());
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

/// `'It's here'` and `"C:\docs"` without the outer pair; `"one" and "two"` as it is.
fn without_outer_quotes(value: &str) -> &str {
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '\'' | '"')) else { return value };
    let Some(inner) = value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote)) else { return value };
    let chars: Vec<char> = inner.chars().collect();
    let is_apostrophe = |i: usize| {
        let letter = |j: Option<usize>| j.and_then(|j| chars.get(j)).is_some_and(|c| c.is_alphanumeric());
        quote == '\'' && letter(i.checked_sub(1)) && letter(i.checked_add(1))
    };
    let lonely = |i: usize| chars.get(i) == Some(&quote) && !is_apostrophe(i);
    if (0..chars.len()).any(lonely) { value } else { inner }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["name", "description", "tools"];

    #[track_caller]
    fn becomes(yaml: &str, expected: &str) {
        let got = repair(yaml, KNOWN).unwrap_or_else(|| panic!("{yaml:?} was not repaired"));
        assert_eq!(got.yaml, expected, "{yaml:?}");
        assert!(yaml::parse(&got.yaml).is_ok(), "{:?}", got.yaml);
        assert_eq!(yaml.lines().count(), got.yaml.lines().count());
    }

    #[test]
    fn repairs() {
        let table = [
            ("d: Use when: x\n", "d: 'Use when: x'\n"),
            ("a: 1\nd: x: y\nb: 2\n", "a: 1\nd: 'x: y'\nb: 2\n"),
            ("d: x: y\r\nb: 2\r\n", "d: 'x: y'\r\nb: 2\r\n"),
            ("d: x: y", "d: 'x: y'"),
            ("d: @me\n", "d: '@me'\n"),
            ("d: `code` here\n", "d: '`code` here'\n"),
            ("d: %done\n", "d: '%done'\n"),
            ("d: [not a list] text\n", "d: '[not a list] text'\n"),
            ("d: [a] [b]\n", "d: '[a] [b]'\n"),
            ("d: {a} text\n", "d: '{a} text'\n"),
            ("d: *bold* text\n", "d: '*bold* text'\n"),
            ("d: **bold**\n", "d: '**bold**'\n"),
            ("d: it's: x\n", "d: 'it''s: x'\n"),
            ("d: x: y # not a comment\n", "d: 'x: y # not a comment'\n"),
            ("d: 'It's here'\n", "d: 'It''s here'\n"),
            ("d: \"C:\\docs\"\n", "d: 'C:\\docs'\n"),
            ("d: \"one\" and \"two\"\n", "d: '\"one\" and \"two\"'\n"),
            ("d: \"one\" or two\n", "d: '\"one\" or two'\n"),
            ("d: 'not closed\nb: 1\n", "d: '''not closed'\nb: 1\n"),
            ("d: >90% of it\n", "d: '>90% of it'\n"),
            ("d: | grep x\n", "d: '| grep x'\n"),
            ("d: !important x\n", "d: '!important x'\n"),
            ("d: - x\n", "d: '- x'\n"),
            ("d: The following:\n", "d: 'The following:'\n"),
            ("d:\tx: y\t\n", "d: 'x: y'\n"),
            ("d: a: b\n  and c: d\n\n  e\n\n# end\nb: 1\n", "d: 'a: b\n  and c: d\n\n  e'\n\n# end\nb: 1\n"),
            ("x y: a: b\n", "x y: 'a: b'\n"),
            ("naïve: a: b\n", "naïve: 'a: b'\n"),
        ];
        for (yaml, expected) in table {
            becomes(yaml, expected);
        }
    }

    #[test]
    fn leaves_alone() {
        for yaml in [
            "",
            "a: 1\nb: two\n",
            "m:\n  d: x: y\n",              // nested
            "tools: [Read, Write\n",        // a list that was meant as one
            "d: {a: 1\n",                   //
            "d: |\n\tx\n",                  // a block scalar
            "d: >-\nnot indented: x: y: z", // (the second line is an entry: not at the margin of a key)
            "d: x: y\n  name: z\n",         // more likely a wrong indentation
            "d: x: y\nloose text\n",        // what belongs to what?
            "d: *x\na: &x 1\n",             // an alias before its anchor
            "just text\n",
            "- a: b: c\n",
            "http://x: y: z\n",
        ] {
            if let Some(r) = repair(yaml, KNOWN) {
                assert!(yaml.contains("not indented"), "{yaml:?} became {:?}", r.yaml);
            }
        }
    }
}
