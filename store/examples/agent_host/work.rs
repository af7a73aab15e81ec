//! What the skills really do: pure functions over pages, without a network and without a model.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::markdown::{Library, Page, Part};

/// What a skill brings back: numbers that add up over pages, and findings with their places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sheet {
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) findings: Vec<Finding>,
    /// How many more findings there were than are kept.
    #[serde(default)]
    pub(crate) more: usize,
}

/// How many findings one run keeps: a record must not grow with the collection.
const KEPT: usize = 1_000;

/// One thing that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) page: String,
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Sheet {
    pub(crate) fn merge(&mut self, other: Sheet) {
        for (name, count) in other.counts {
            *self.counts.entry(name).or_default() += count;
        }
        self.findings.extend(other.findings);
        self.more += other.more + self.findings.len().saturating_sub(KEPT);
        self.findings.truncate(KEPT);
    }

    fn count(&mut self, name: impl Into<String>, count: usize) {
        *self.counts.entry(name.into()).or_default() += count as u64;
    }

    fn find(&mut self, page: &Page, line: usize, text: impl Into<String>) {
        self.findings.push(Finding { page: page.path.clone(), line, text: text.into() });
    }
}

/// The work of one skill on one page, on one day.
pub(crate) type Handler = fn(&Page, &Library, NaiveDate) -> Sheet;

/// The work that a skill names. One that names none of ours still gets its pages read and counted.
pub(crate) fn handler(name: &str) -> Handler {
    match name {
        "check-links" => check_links,
        "table-of-contents" => table_of_contents,
        "collect-todos" => collect_todos,
        "lint-headings" => lint_headings,
        "audit-front-matter" => audit_front_matter,
        "measure-readability" => measure_readability,
        "list-code-blocks" => list_code_blocks,
        _ => count_words,
    }
}

fn count_words(page: &Page, _: &Library, _: NaiveDate) -> Sheet {
    let mut sheet = Sheet::default();
    sheet.count("pages", 1);
    for (_, line, part) in page.lines().filter(|(_, _, part)| *part != Part::FrontMatter) {
        sheet.count("lines", 1);
        sheet.count("characters", line.chars().count());
        let words = line.split_whitespace().count();
        sheet.count(if part == Part::Code { "words in code" } else { "words" }, words);
    }
    sheet
}

fn check_links(page: &Page, library: &Library, _: NaiveDate) -> Sheet {
    let mut sheet = Sheet::default();
    for (line, target) in page.links() {
        if target.split_once(':').is_some_and(|(scheme, _)| !scheme.contains(['/', '#', '.'])) {
            sheet.count("links elsewhere", 1);
            continue;
        }
        sheet.count("links", 1);
        if let Err(reason) = follow(page, library, target) {
            sheet.find(page, line, format!("{target}: {reason}"));
        }
    }
    sheet
}

/// Whether a relative link leads somewhere.
fn follow(page: &Page, library: &Library, target: &str) -> Result<(), &'static str> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = match path {
        "" => page.path.clone(),
        path => resolve(&page.path, path).ok_or("leads out of the collection")?,
    };
    if !library.files.contains(&path) && library.page(&path).is_none() {
        return Err("there is no such file");
    }
    let found = |page: &Page| page.headings.iter().any(|heading| heading.slug == anchor);
    match library.page(&path) {
        Some(page) if !anchor.is_empty() && !found(page) => Err("there is no such heading"),
        _ => Ok(()),
    }
}

/// A path relative to the page, made relative to the collection.
fn resolve(page: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn table_of_contents(page: &Page, _: &Library, _: NaiveDate) -> Sheet {
    let mut sheet = Sheet::default();
    let entries = page.headings.iter().filter(|heading| matches!(heading.level, 2 | 3)).count();
    if page.headings.len() < 3 {
        sheet.count("too short for one", 1);
    } else {
        sheet.count("tables", 1);
        sheet.count("entries", entries);
    }
    sheet
}

fn collect_todos(page: &Page, _: &Library, _: NaiveDate) -> Sheet {
    let mut sheet = Sheet::default();
    for (number, line, _) in page.lines() {
        let Some((at, word)) = ["TODO", "FIXME", "XXX"]
            .into_iter()
            .filter_map(|word| whole_word(line, word).map(|at| (at, word)))
            .min()
        else {
            continue;
        };
        let note = line.get(at..).unwrap_or_default().trim_end_matches("-->").trim_end();
        let person = note.strip_prefix(word).and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
        sheet.count(person.map_or("for nobody".to_owned(), |(who, _)| format!("for {who}")), 1);
        sheet.find(page, number, note);
    }
    sheet
}

/// Where `word` stands in `line` with no letter or digit on either side.
fn whole_word(line: &str, word: &str) -> Option<usize> {
    line.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = line.get(..*at).and_then(|s| s.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|s| s.chars().next());
        ![before, after].into_iter().flatten().any(|c| c.is_alphanumeric() || c == '_')
    })
}

fn lint_headings(page: &Page, _: &Library, _: NaiveDate) -> Sheet {
    let mut sheet = Sheet::default();
    sheet.count("headings", page.headings.len());
    let titles = page.headings.iter().filter(|heading| heading.level == 1).count();
    if titles != 1 {
        sheet.find(page, 1, format!("title: {titles} headings of level 1"));
    }
    // The headings that the current one stands below, each with the texts of its own level seen so far.
    let mut above: Vec<(usize, Vec<&str>)> = Vec::new();
    for heading in &page.headings {
        let parent = above.iter().rev().map(|(level, _)| *level).find(|level| *level < heading.level);
        let previous = above.last().map(|(level, _)| *level);
        above.retain(|(level, _)| *level <= heading.level);
        if previous.is_some_and(|previous| heading.level > previous + 1) && parent == previous {
            sheet.find(page, heading.line, format!("jump: {}", heading.text));
        }
        match above.last_mut().filter(|(level, _)| *level == heading.level) {
            Some((_, twins)) if twins.contains(&heading.text.as_str()) => {
                sheet.find(page, heading.line, format!("twin: {}", heading.text));
            }
            Some((_, twins)) => twins.push(&heading.text),
            None => above.push((heading.level, vec![&heading.text])),
        }
        if heading.text.ends_with(['.', ',', ':']) {
            sheet.find(page, heading.line, format!("stop: {}", heading.text));
        }
        if heading.text.is_empty() {
            sheet.find(page, heading.line, "empty: a heading without text");
        }
    }
    sheet
}

const KEYS: &[&str] = &["title", "owner", "reviewed", "tags", "status"];

fn audit_front_matter(page: &Page, _: &Library, today: NaiveDate) -> Sheet {
    let mut sheet = Sheet::default();
    sheet.count("pages", 1);
    // A page's front matter is read as any other is.
    let file = match store_files::parse_agent(&page.path, page.text.as_bytes()) {
        Ok(file) => file,
        Err(error) => {
            sheet.find(page, error.line.unwrap_or(1), error.reason);
            return sheet;
        }
    };
    let line = |key: &str| file.lines.get(key).copied().unwrap_or(1);
    let text =
        |key: &str| file.extra.get(key).and_then(|value| value.as_str()).filter(|text| !text.is_empty());
    for key in ["title", "owner", "reviewed"] {
        if text(key).is_none() {
            sheet.find(page, line(key), format!("no `{key}`"));
        }
    }
    for key in file.lines.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        sheet.find(page, line(key), format!("`{key}` is no key of ours"));
    }
    if let Some(reviewed) = text("reviewed") {
        let finding = match reviewed.parse::<NaiveDate>() {
            Err(_) => Some(format!("`reviewed` is no date: {reviewed}")),
            Ok(day) if day > today => Some(format!("reviewed in the future: {day}")),
            Ok(day) if (today - day).num_days() > 180 => Some(format!("not reviewed since {day}")),
            Ok(_) => None,
        };
        if let Some(finding) = finding {
            sheet.find(page, line("reviewed"), finding);
        }
    }
    if let (Some(title), Some(heading)) = (text("title"), page.headings.first())
        && title != heading.text
    {
        sheet.find(page, heading.line, format!("the title is `{title}`, the heading `{}`", heading.text));
    }
    sheet
}

/// The most words that a sentence should have, and characters that a line should have.
const LONG_SENTENCE: usize = 40;
const LONG_LINE: usize = 120;

fn measure_readability(page: &Page, _: &Library, _: NaiveDate) -> Sheet {
    let mut sheet = Sheet::default();
    let mut sentence = (0, 0);
    let prose = |line: &str, part| part == Part::Text && !line.trim_start().starts_with('|');
    for (number, line, part) in page.lines() {
        if !prose(line, part) || line.trim().is_empty() {
            end_sentence(&mut sheet, page, &mut sentence);
            continue;
        }
        let length = line.chars().count();
        if length > LONG_LINE && line.split_whitespace().count() > 1 {
            sheet.find(page, number, format!("a line of {length} characters"));
        }
        for word in line.split_whitespace() {
            if sentence.1 == 0 {
                sentence.0 = number;
            }
            sentence.1 += 1;
            sheet.count("words", 1);
            let letters = word.chars().filter(|c| c.is_alphabetic()).count();
            sheet.count("long words", usize::from(letters > 12));
            if word.ends_with(['.', '!', '?']) {
                end_sentence(&mut sheet, page, &mut sentence);
            }
        }
    }
    end_sentence(&mut sheet, page, &mut sentence);
    sheet
}

/// Counts the sentence that began on a line and has so many words, if it has any.
fn end_sentence(sheet: &mut Sheet, page: &Page, (line, words): &mut (usize, usize)) {
    if *words > 0 {
        sheet.count("sentences", 1);
    }
    if *words > LONG_SENTENCE {
        sheet.find(page, *line, format!("a sentence of {words} words"));
    }
    *words = 0;
}

fn list_code_blocks(page: &Page, _: &Library, _: NaiveDate) -> Sheet {
    let mut sheet = Sheet::default();
    for fence in &page.fences {
        sheet.count("blocks", 1);
        sheet.count("lines", fence.lines);
        if fence.language.is_empty() {
            sheet.find(page, fence.line, "a block without a language");
        } else {
            sheet.count(format!("in {}", fence.language), 1);
        }
        if !fence.closed {
            sheet.find(page, fence.line, "a block that is never closed");
        }
    }
    sheet
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
