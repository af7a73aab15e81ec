//! As much of Markdown as the skills need: front matter, fences, headings, links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use store::{Error, Result};
use store_files::{Kind, front_matter, read_file, walk};

/// What a line is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    FrontMatter,
    Heading,
    Text,
    /// The line that opens a fence.
    Fence,
    /// Inside of a fence, its last line included.
    Code,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heading {
    pub(crate) line: usize,
    pub(crate) level: usize,
    pub(crate) text: String,
    /// What a link's `#anchor` says, unique in its page.
    pub(crate) slug: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) lines: usize,
    pub(crate) closed: bool,
}

/// One Markdown page, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Relative to the collection, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) parts: Vec<Part>,
    pub(crate) headings: Vec<Heading>,
    pub(crate) fences: Vec<Fence>,
}

/// All pages of a collection, by path, and the names of all files in it.
#[derive(Debug, Default)]
pub(crate) struct Library {
    pub(crate) pages: Vec<Page>,
    pub(crate) files: BTreeSet<String>,
    /// What could not be read.
    pub(crate) refused: Vec<String>,
}

impl Library {
    /// Reads every `*.md` below `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Library> {
        let mut library = Library::default();
        files_below(dir, dir, 0, &mut library.files)
            .map_err(|e| Error::backend(format!("listing {}", dir.display()), e))?;
        for path in walk(dir, Kind::Agents).files {
            let page = read_file(&path).and_then(|bytes| {
                let text = String::from_utf8(bytes).map_err(|_| store_files::FileError {
                    path: path.clone(),
                    line: None,
                    reason: "not UTF-8".to_owned(),
                })?;
                Ok(Page::parse(&relative(dir, &path), text))
            });
            match page {
                Ok(page) => library.pages.push(page),
                Err(error) => library.refused.push(error.to_string()),
            }
        }
        Ok(library)
    }

    pub(crate) fn page(&self, path: &str) -> Option<&Page> {
        self.pages.iter().find(|page| page.path == path)
    }
}

fn relative(dir: &Path, path: &Path) -> String {
    let path = path.strip_prefix(dir).unwrap_or(path);
    path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn files_below(root: &Path, dir: &Path, depth: usize, files: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && depth < store_files::MAX_WALK_DEPTH {
            files_below(root, &entry.path(), depth + 1, files)?;
        } else if kind.is_file() {
            files.insert(relative(root, &entry.path()));
        }
    }
    Ok(())
}

impl Page {
    /// Takes a page apart. Any text is a page.
    pub(crate) fn parse(path: &str, text: String) -> Page {
        let body_starts = match front_matter::split(text.as_bytes()) {
            Ok(parts) => text.len() - parts.body.len(),
            Err(_) => 0,
        };
        let mut page = Page { path: path.to_owned(), text, parts: vec![], headings: vec![], fences: vec![] };
        let mut slugs = BTreeMap::new();
        let mut open: Option<(char, usize)> = None;
        let mut at = 0;
        for (index, raw) in page.text.split_inclusive('\n').enumerate() {
            let begins_at = at;
            at += raw.len();
            let (number, line) = (index + 1, raw.trim_end());
            let part = if begins_at < body_starts {
                Part::FrontMatter
            } else if let Some(mark) = open {
                let closes =
                    fence(line).is_some_and(|(c, n, rest)| c == mark.0 && n >= mark.1 && rest.is_empty());
                if let Some(last) = page.fences.last_mut() {
                    last.closed = closes;
                    last.lines += usize::from(!closes);
                }
                open = open.filter(|_| !closes);
                Part::Code
            } else if let Some((c, length, rest)) = fence(line) {
                let language = rest.split_whitespace().next().unwrap_or_default().to_owned();
                page.fences.push(Fence { line: number, language, lines: 0, closed: false });
                open = Some((c, length));
                Part::Fence
            } else if let Some((level, text)) = heading(line) {
                let slug = unique_slug(text, &mut slugs);
                page.headings.push(Heading { line: number, level, text: text.to_owned(), slug });
                Part::Heading
            } else {
                Part::Text
            };
            page.parts.push(part);
        }
        page
    }

    /// The lines with their numbers from 1 and their parts.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str, Part)> {
        self.text.lines().zip(&self.parts).enumerate().map(|(index, (line, part))| (index + 1, line, *part))
    }

    /// The targets of all links and images outside of code, with their lines.
    pub(crate) fn links(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines()
            .filter(|(_, _, part)| matches!(part, Part::Text | Part::Heading))
            .flat_map(|(number, line, _)| targets(line).into_iter().map(move |target| (number, target)))
    }
}

/// The mark, its length and what follows it, if the line could open or close a fence.
fn fence(line: &str) -> Option<(char, usize, &str)> {
    let text = line.trim_start_matches(' ');
    let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let rest = text.trim_start_matches(mark);
    let length = text.len() - rest.len();
    (length >= 3 && line.len() - text.len() <= 3 && !rest.contains('`')).then(|| (mark, length, rest.trim()))
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    let is_heading = (1..=6).contains(&level) && (text.is_empty() || text.starts_with([' ', '\t']));
    is_heading.then(|| (level, text.trim().trim_end_matches('#').trim_end()))
}

fn unique_slug(text: &str, taken: &mut BTreeMap<String, usize>) -> String {
    let slug: String = text
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
            _ => None,
        })
        .collect();
    let count = taken.entry(slug.clone()).or_default();
    *count += 1;
    if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
}

/// The targets of the links in one line, those in `code` left out.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_code = false;
    let mut rest = line;
    while let Some(at) = rest.find(['`', ']']) {
        let after = rest.get(at..).unwrap_or_default();
        if after.starts_with('`') {
            in_code = !in_code;
        } else if !in_code
            && let Some(target) = after.strip_prefix("](")
            && let Some(end) = target.find(')')
        {
            found.push(target.get(..end).unwrap_or_default().split_whitespace().next().unwrap_or_default());
        }
        rest = after.get(1..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page::parse("a/b.md", text.to_owned())
    }

    #[test]
    fn parts() {
        let page = page("---\na: 1\n---\n# One\ntext\n```sh x\n# no\n```\n~~~\nopen\n");
        use Part::{Code, Fence, FrontMatter, Heading, Text};
        let parts = [FrontMatter, FrontMatter, FrontMatter, Heading, Text, Fence, Code, Code, Fence, Code];
        assert_eq!(page.parts, parts);
        let fences: Vec<_> =
            page.fences.iter().map(|f| (f.line, f.language.as_str(), f.lines, f.closed)).collect();
        assert_eq!(fences, [(6, "sh", 1, true), (9, "", 1, false)]);
    }

    #[test]
    fn slugs() {
        let page = page("# `tide` in 5 Minutes!\n## Twin\n## Twin\n#none\n");
        let slugs: Vec<_> = page.headings.iter().map(|h| h.slug.as_str()).collect();
        assert_eq!(slugs, ["tide-in-5-minutes", "twin", "twin-1"]);
    }

    #[test]
    fn links() {
        let page = page("[a](x.md) `[b](y.md)` ![c](z.png \"t\") [d](#e) [f](unclosed\n```\n[g](h)\n```\n");
        assert_eq!(page.links().collect::<Vec<_>>(), [(1, "x.md"), (1, "z.png"), (1, "#e")]);
    }
}
