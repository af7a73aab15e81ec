//! Splits a file into its YAML block and its body.
//!
//! The block opens with a line `---` at the top of the file and closes with the next line that is `---` or
//! `...`; spaces and tabs after either are allowed, nothing before them is. A byte order mark and blank lines
//! before the opening line are skipped. Lines end in LF or CRLF, also mixed; a lone CR is not a line end.
//! The closing line may be the last one and need not end in a line break.
//!
//! **The body is kept exactly**: every byte after the closing line's line break, CRLF as CRLF, further `---`
//! lines and leading blank lines included. Only the byte order mark is not part of it.

use thiserror::Error;

/// The longest YAML block that is read.
pub const MAX_FRONT_MATTER_BYTES: usize = 1024 * 1024;

/// A file in two parts. Lines are numbered from 1, in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The lines between the delimiters, line breaks included; `None` when the file has no front matter.
    pub yaml: Option<&'a str>,
    /// The line of the first byte of `yaml` (where it would be, if it is empty).
    pub yaml_line: usize,
    /// Everything after the closing line; the whole text when there is no front matter.
    pub body: &'a str,
    /// The line of the first byte of `body`.
    pub body_line: usize,
    /// Whether blank lines stood before the opening `---`.
    pub blank_lines_before: bool,
}

/// Why a file could not be split.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The bytes are not UTF-8.
    #[error("not UTF-8: invalid byte at offset {offset}")]
    NotUtf8 {
        /// Of the first invalid byte, from 0.
        offset: usize,
        /// The line it is on.
        line: usize,
    },
    /// There is a NUL character in the file.
    #[error("NUL character at byte offset {offset}")]
    Nul {
        /// Of the first NUL, from 0.
        offset: usize,
        /// The line it is on.
        line: usize,
    },
    /// The front matter has no closing line.
    #[error("front matter is not closed: no line `---` or `...` after it")]
    NotClosed {
        /// The line of the opening `---`.
        line: usize,
    },
    /// The block is longer than [`MAX_FRONT_MATTER_BYTES`].
    #[error("front matter is {bytes} bytes long, the limit is {MAX_FRONT_MATTER_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The line of the opening `---`.
        line: usize,
    },
}

impl SplitError {
    /// The line in the file the error is about.
    pub fn line(&self) -> usize {
        match self {
            Self::NotUtf8 { line, .. }
            | Self::Nul { line, .. }
            | Self::NotClosed { line }
            | Self::TooLong { line, .. } => *line,
        }
    }
}

/// Splits the bytes of a file. A file without front matter is not an error here: `yaml` is `None`.
pub fn split(bytes: &[u8]) -> Result<Parts<'_>, SplitError> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let offset = e.valid_up_to();
        SplitError::NotUtf8 { offset, line: line_at(bytes, offset) }
    })?;
    if let Some(offset) = bytes.iter().position(|b| *b == 0) {
        return Err(SplitError::Nul { offset, line: line_at(bytes, offset) });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let none = Parts { yaml: None, yaml_line: 1, body: text, body_line: 1, blank_lines_before: false };

    let mut lines = Lines { rest: text, number: 0 };
    let opening = loop {
        match lines.next() {
            Some((number, line)) if trim_end(line) == "---" => break number,
            Some((_, line)) if line.trim().is_empty() => {}
            _ => return Ok(none),
        }
    };
    let from = lines.rest;
    let mut bytes = 0;
    while let Some((number, line)) = lines.next() {
        if matches!(trim_end(line), "---" | "...") {
            if bytes > MAX_FRONT_MATTER_BYTES {
                return Err(SplitError::TooLong { bytes, line: opening });
            }
            return Ok(Parts {
                yaml: Some(from.get(..bytes).unwrap_or_default()),
                yaml_line: opening + 1,
                body: lines.rest,
                body_line: number + 1,
                blank_lines_before: opening > 1,
            });
        }
        bytes += line.len();
    }
    Err(SplitError::NotClosed { line: opening })
}

/// A delimiter without what may follow it.
fn trim_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line).trim_end_matches([' ', '\t'])
}

fn line_at(bytes: &[u8], offset: usize) -> usize {
    1 + bytes.iter().take(offset).filter(|b| **b == b'\n').count()
}

/// Lines with their line breaks, numbered from 1, and what is left after them.
struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |i| i + 1);
        let (line, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        self.number += 1;
        Some((self.number, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parts(text: &str) -> (Option<&str>, usize, &str, usize) {
        let p = split(text.as_bytes()).expect("splits");
        (p.yaml, p.yaml_line, p.body, p.body_line)
    }

    #[test]
    fn delimiters() {
        let table: &[(&str, Option<&str>, &str)] = &[
            ("---\na: 1\n---\nbody\n", Some("a: 1\n"), "body\n"),
            ("---\r\na: 1\r\n---\r\nbody\r\nmore\r\n", Some("a: 1\r\n"), "body\r\nmore\r\n"),
            ("---\r\na: 1\n---\nbody", Some("a: 1\n"), "body"),
            ("\u{feff}---\na: 1\n---\nbody", Some("a: 1\n"), "body"),
            ("---  \t\na: 1\n---   \nbody", Some("a: 1\n"), "body"),
            ("---\na: 1\n...\nbody", Some("a: 1\n"), "body"),
            ("---\na: 1\n---", Some("a: 1\n"), ""),
            ("---\na: 1\n---\r", Some("a: 1\n"), ""),
            ("---\na: 1\n...", Some("a: 1\n"), ""),
            ("---\n---\n", Some(""), ""),
            ("---\n---", Some(""), ""),
            ("---\na: 1\n---\n\none\n---\ntwo\n---\n", Some("a: 1\n"), "\none\n---\ntwo\n---\n"),
            ("---\na: |\n  ---\n  x\n---\nb", Some("a: |\n  ---\n  x\n"), "b"),
            ("---\na: ---\n----\n---\nb", Some("a: ---\n----\n"), "b"),
            ("\n \r\n---\na: 1\n---\nb", Some("a: 1\n"), "b"),
            ("", None, ""),
            ("\u{feff}", None, ""),
            ("# Title\n---\nx\n---\n", None, "# Title\n---\nx\n---\n"),
            (" ---\na: 1\n---\n", None, " ---\na: 1\n---\n"),
            ("----\na: 1\n---\n", None, "----\na: 1\n---\n"),
            ("--- a\nb\n---\n", None, "--- a\nb\n---\n"),
            ("---\ra: 1\r---\r", None, "---\ra: 1\r---\r"),
        ];
        for (text, yaml, body) in table {
            let got = split(text.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!((got.yaml, got.body), (*yaml, *body), "{text:?}");
        }
    }

    #[test]
    fn lines_are_counted_in_the_file() {
        assert_eq!(parts("---\na: 1\n---\nb"), (Some("a: 1\n"), 2, "b", 4));
        assert_eq!(parts("\n\n---\r\na: 1\r\nb: 2\r\n...\r\nx"), (Some("a: 1\r\nb: 2\r\n"), 4, "x", 7));
        assert!(split(b"\n---\n---\n").expect("splits").blank_lines_before);
    }

    #[test]
    fn refusals_name_the_line() {
        assert_eq!(split(b"---\na: \xff\n---\n"), Err(SplitError::NotUtf8 { offset: 7, line: 2 }));
        assert_eq!(split(b"---\na: 1\n---\nx\n\xe2\x82"), Err(SplitError::NotUtf8 { offset: 15, line: 5 }));
        assert_eq!(split(b"---\n---\n\n\0"), Err(SplitError::Nul { offset: 9, line: 4 }));
        assert_eq!(split(b"---\na: 1\n"), Err(SplitError::NotClosed { line: 1 }));
        assert_eq!(split(b"\n---"), Err(SplitError::NotClosed { line: 2 }));
        assert_eq!(split(b"---\na: 1\n ---\n"), Err(SplitError::NotClosed { line: 1 }));
        let long = format!("---\na: {}\n---\n", "x".repeat(MAX_FRONT_MATTER_BYTES));
        assert!(matches!(split(long.as_bytes()), Err(SplitError::TooLong { line: 1, .. })));
    }
}
