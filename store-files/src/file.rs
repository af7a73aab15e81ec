//! Skills and agents as their files say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::front_matter::{self, Parts};
use crate::repair;
use crate::yaml::{self, Node, Scalar, Shape};

/// A file that was refused. Shown as `path:line: reason`, or `path: reason` where no line is to blame.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
pub struct FileError {
    /// The file, as it was named to this crate.
    pub path: PathBuf,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

impl FileError {
    pub(crate) fn new(path: impl Into<PathBuf>, line: Option<usize>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), line, reason: reason.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

/// Something about a file that was taken, and that its author may want to know. Shown as `line 3: reason`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// What was found and what was made of it.
    pub reason: String,
}

impl Warning {
    pub(crate) fn at(line: usize, reason: impl Into<String>) -> Self {
        Self { line: Some(line), reason: reason.into() }
    }

    fn new(reason: impl Into<String>) -> Self {
        Self { line: None, reason: reason.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// A `SKILL.md`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SkillFile {
    /// The file, as it was named to [`parse_skill`].
    pub path: PathBuf,
    /// `name`; the name of the directory, with a warning, where the file has none.
    pub name: String,
    /// `description`, without white space at its ends; empty, with a warning, where the file has none.
    pub description: String,
    /// `license`.
    pub license: Option<String>,
    /// `compatibility`.
    pub compatibility: Option<String>,
    /// `allowed-tools`: a list, or text cut at commas and white space outside of brackets.
    pub allowed_tools: Vec<String>,
    /// `metadata`, values of any type.
    pub metadata: Map<String, Value>,
    /// Every other key; also a known one whose value has a shape this crate does not take (with a warning).
    pub extra: Map<String, Value>,
    /// What follows the front matter, to the byte.
    pub body: String,
    /// The line of each key of the front matter, from 1.
    #[serde(skip)]
    pub lines: BTreeMap<String, usize>,
    /// What was taken other than as it stands.
    pub warnings: Vec<Warning>,
}

/// An agent's Markdown file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentFile {
    /// The file, as it was named to [`parse_agent`].
    pub path: PathBuf,
    /// `name`; the name of the file without `.md`, with a warning, where the file has none.
    pub name: String,
    /// `description`, without white space at its ends; empty, with a warning, where the file has none.
    pub description: String,
    /// `tools`: a list, or text cut at commas and white space outside of brackets.
    pub tools: Vec<String>,
    /// `model`.
    pub model: Option<String>,
    /// `skills`: a list, or text cut as for `tools`.
    pub skills: Vec<String>,
    /// Every other key; also a known one whose value has a shape this crate does not take (with a warning).
    pub extra: Map<String, Value>,
    /// What follows the front matter, to the byte: the agent's prompt.
    pub body: String,
    /// The line of each key of the front matter, from 1.
    #[serde(skip)]
    pub lines: BTreeMap<String, usize>,
    /// What was taken other than as it stands.
    pub warnings: Vec<Warning>,
}

const SKILL_KEYS: &[&str] = &["name", "description", "license", "compatibility", "metadata", "allowed-tools"];
const AGENT_KEYS: &[&str] = &["name", "description", "tools", "model", "skills"];

/// Reads a `SKILL.md`. `path` names it in errors and gives the name of a skill that has none.
pub fn parse_skill(path: impl AsRef<Path>, bytes: &[u8]) -> Result<SkillFile, FileError> {
    let path = path.as_ref();
    let mut header = Header::read(path, bytes, SKILL_KEYS)?;
    let directory = path.parent().and_then(Path::file_name).and_then(|n| n.to_str());
    let name = header.name(directory, "its directory")?;
    let description = header.description()?;
    let license = header.text("license");
    let compatibility = header.text("compatibility");
    let allowed_tools = header.list("allowed-tools");
    let metadata = header.map("metadata");
    let lines = header.lines();
    let (extra, body, warnings) = header.rest();
    let path = path.to_owned();
    Ok(SkillFile {
        path,
        name,
        description,
        license,
        compatibility,
        allowed_tools,
        metadata,
        extra,
        body,
        lines,
        warnings,
    })
}

/// Reads an agent's file. `path` names it in errors and gives the name of an agent that has none.
pub fn parse_agent(path: impl AsRef<Path>, bytes: &[u8]) -> Result<AgentFile, FileError> {
    let path = path.as_ref();
    let mut header = Header::read(path, bytes, AGENT_KEYS)?;
    let name = header.name(path.file_stem().and_then(|n| n.to_str()), "the file")?;
    let description = header.description()?;
    let tools = header.list("tools");
    let model = header.text("model");
    let skills = header.list("skills");
    let lines = header.lines();
    let (extra, body, warnings) = header.rest();
    let path = path.to_owned();
    Ok(AgentFile { path, name, description, tools, model, skills, extra, body, lines, warnings })
}

/// A front matter whose keys are taken out one by one; what stays is `extra`.
struct Header<'a> {
    path: &'a Path,
    yaml: String,
    first_line: usize,
    order: Vec<(String, usize)>,
    entries: BTreeMap<String, (usize, Rc<Node>)>,
    extra: Map<String, Value>,
    body: &'a str,
    warnings: Vec<Warning>,
}

impl<'a> Header<'a> {
    fn read(path: &'a Path, bytes: &'a [u8], known: &[&str]) -> Result<Self, FileError> {
        let parts =
            front_matter::split(bytes).map_err(|e| FileError::new(path, Some(e.line()), e.to_string()))?;
        let Parts { yaml: Some(yaml), yaml_line, body, blank_lines_before, .. } = parts else {
            return Err(FileError::new(
                path,
                Some(1),
                "no front matter: the file does not begin with a line `---`",
            ));
        };
        let mut header = Header {
            path,
            yaml: yaml.to_owned(),
            first_line: yaml_line,
            order: Vec::new(),
            entries: BTreeMap::new(),
            extra: Map::new(),
            body,
            warnings: Vec::new(),
        };
        if blank_lines_before {
            header
                .warnings
                .push(Warning::at(1, "blank lines before the front matter; other tools may not see it"));
        }
        let document = match yaml::parse(yaml) {
            Ok(document) => document,
            Err(strict) => {
                let repaired =
                    if strict.fault == yaml::Fault::Refused { None } else { repair::repair(yaml, known) };
                let Some(repaired) = repaired else { return Err(header.refusal(&strict)) };
                let document = yaml::parse(&repaired.yaml).map_err(|e| header.refusal(&e))?;
                for change in repaired.changes {
                    let reason = format!(
                        "the value of `{}` is not valid YAML ({}); read as if it stood in quotes",
                        change.key, change.reason
                    );
                    header.warnings.push(Warning::at(yaml_line + change.line - 1, reason));
                }
                header.yaml = repaired.yaml;
                document
            }
        };
        for line in document.unused_anchors {
            let reason =
                "`&` begins a YAML anchor, and nothing refers to this one; quote the value to keep its text";
            header.warnings.push(Warning::at(header.line(line), reason));
        }
        match document.root.as_deref() {
            None => {}
            Some(node) if node.is_null() => {}
            Some(Node { kind: Shape::Map(entries), .. }) => {
                for entry in entries {
                    header.order.push((entry.key.clone(), entry.line));
                    header.entries.insert(entry.key.clone(), (entry.line, Rc::clone(&entry.value)));
                }
            }
            Some(node) => {
                let reason =
                    format!("the front matter must be a map of keys to values, but is {}", node.noun());
                return Err(FileError::new(path, Some(header.line(node.line)), reason));
            }
        }
        Ok(header)
    }

    /// The line in the file of each key.
    fn lines(&self) -> BTreeMap<String, usize> {
        self.order.iter().map(|(key, line)| (key.clone(), self.line(*line))).collect()
    }

    /// A line in the file for one in the block.
    fn line(&self, in_block: usize) -> usize {
        self.first_line + in_block.saturating_sub(1)
    }

    fn refusal(&self, error: &yaml::YamlError) -> FileError {
        FileError::new(self.path, Some(self.line(error.line)), error.reason.clone())
    }

    fn take(&mut self, key: &str) -> Option<(usize, Rc<Node>)> {
        self.entries.remove(key)
    }

    /// Says so when a comment was cut off what a person may take for text.
    fn note_comment(&mut self, key: &str, line: usize, node: &Node) {
        let raw = self.yaml.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        if matches!(node.kind, Shape::Scalar { plain: true, .. })
            && (raw.contains(" #") || raw.contains("\t#"))
        {
            let reason = format!(
                "` #` begins a YAML comment, which is not part of `{key}`; quote the value to keep it"
            );
            self.warnings.push(Warning::at(self.line(line), reason));
        }
    }

    /// `name` or `description`: text, or refused.
    fn required(&mut self, key: &str) -> Result<Option<String>, FileError> {
        let Some((line, node)) = self.take(key) else { return Ok(None) };
        self.note_comment(key, line, &node);
        match &node.kind {
            _ if node.is_null() => Ok(None),
            Shape::Scalar { text, .. } => Ok(Some(text.trim().to_owned()).filter(|t| !t.is_empty())),
            _ => {
                let reason = format!(
                    "`{key}` must be text, but is {}; quote the value if it is meant as text",
                    node.noun()
                );
                Err(FileError::new(self.path, Some(self.line(line)), reason))
            }
        }
    }

    fn name(&mut self, fallback: Option<&str>, of: &str) -> Result<String, FileError> {
        if let Some(name) = self.required("name")? {
            return Ok(name);
        }
        let Some(name) = fallback.map(str::trim).filter(|n| !n.is_empty()) else {
            return Err(FileError::new(
                self.path,
                None,
                format!("no `name`, and {of} has no name to use instead"),
            ));
        };
        self.warnings.push(Warning::new(format!("no `name`; named `{name}` after {of}")));
        Ok(name.to_owned())
    }

    fn description(&mut self) -> Result<String, FileError> {
        let description = self.required("description")?;
        if description.is_none() {
            self.warnings.push(Warning::new("no `description`"));
        }
        Ok(description.unwrap_or_default())
    }

    /// Optional text. Another shape goes to `extra`.
    fn text(&mut self, key: &str) -> Option<String> {
        let (line, node) = self.take(key)?;
        match &node.kind {
            _ if node.is_null() => None,
            Shape::Scalar { text, .. } => Some(text.trim().to_owned()),
            _ => {
                self.keep(key, line, &node, "text");
                None
            }
        }
    }

    /// A list of texts, or text that lists. Another shape goes to `extra`.
    fn list(&mut self, key: &str) -> Vec<String> {
        let Some((line, node)) = self.take(key) else { return Vec::new() };
        let items: Option<Vec<String>> = match &node.kind {
            _ if node.is_null() => Some(Vec::new()),
            Shape::Scalar { text, value: Scalar::Text, .. } => Some(cut(text)),
            Shape::Scalar { text, .. } => Some(vec![text.clone()]),
            Shape::List(items) => items
                .iter()
                .filter(|n| !n.is_null())
                .map(|n| match &n.kind {
                    Shape::Scalar { text, .. } => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            Shape::Map(_) => None,
        };
        items.unwrap_or_else(|| {
            self.keep(key, line, &node, "a list of texts");
            Vec::new()
        })
    }

    /// A map. Another shape goes to `extra`.
    fn map(&mut self, key: &str) -> Map<String, Value> {
        let Some((line, node)) = self.take(key) else { return Map::new() };
        match node.kind {
            _ if node.is_null() => Map::new(),
            Shape::Map(_) => match node.to_json(self.first_line, &mut self.warnings) {
                Value::Object(map) => map,
                _ => Map::new(),
            },
            _ => {
                self.keep(key, line, &node, "a map");
                Map::new()
            }
        }
    }

    fn keep(&mut self, key: &str, line: usize, node: &Node, expected: &str) {
        let json = node.to_json(self.first_line, &mut self.warnings);
        let reason = format!("`{key}` should be {expected}, but is not; kept as it is in `extra`");
        self.warnings.push(Warning::at(self.line(line), reason));
        self.extra.insert(key.to_owned(), json);
    }

    fn rest(mut self) -> (Map<String, Value>, String, Vec<Warning>) {
        for (key, _) in std::mem::take(&mut self.order) {
            let Some((line, node)) = self.take(&key) else { continue };
            if key == "<<" {
                self.warnings.push(yaml::merge_warning(self.line(line)));
            }
            let json = node.to_json(self.first_line, &mut self.warnings);
            self.extra.insert(key, json);
        }
        // A value that several aliases repeat is noted once.
        let mut seen = BTreeSet::new();
        self.warnings.retain(|w| seen.insert((w.line, w.reason.clone())));
        self.warnings.sort_by_key(|w| w.line);
        (self.extra, self.body.to_owned(), self.warnings)
    }
}

/// Cuts at commas and white space, but not inside of brackets: `Bash(git add:*), Read` is two.
pub(crate) fn cut(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let mut depth = 0usize;
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (c == ',' || c.is_whitespace()) {
            items.push(std::mem::take(&mut item));
        } else {
            item.push(c);
        }
    }
    items.push(item);
    items.retain(|i| !i.is_empty());
    items
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn skill(text: &str) -> SkillFile {
        parse_skill("skills/a-skill/SKILL.md", text.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}"))
    }

    fn agent(text: &str) -> AgentFile {
        parse_agent("agents/an-agent.md", text.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}"))
    }

    fn refusal(text: &str) -> String {
        parse_skill("s/SKILL.md", text.as_bytes()).expect_err(text).to_string()
    }

    fn shown(warnings: &[Warning]) -> Vec<String> {
        warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_of_a_skill() {
        let s = skill(
            "---\nname: count-words\ndescription: Counts.\nlicense: MIT\ncompatibility: Any host\n\
             metadata:\n  author: someone\n  version: \"1.0\"\n  n: 3\nallowed-tools: Read, Bash(git log:*) Grep\n\
             version: 1.2.3\nnested:\n  a: [1, 2.5, ~, true, 2026-01-31]\n---\n\n# Body\n",
        );
        assert_eq!((s.name.as_str(), s.description.as_str()), ("count-words", "Counts."));
        assert_eq!(s.license.as_deref(), Some("MIT"));
        assert_eq!(s.compatibility.as_deref(), Some("Any host"));
        assert_eq!(s.allowed_tools, ["Read", "Bash(git log:*)", "Grep"]);
        assert_eq!(Value::from(s.metadata), json!({"author": "someone", "version": "1.0", "n": 3}));
        assert_eq!(
            Value::from(s.extra),
            json!({"version": "1.2.3", "nested": {"a": [1, 2.5, null, true, "2026-01-31"]}})
        );
        assert_eq!(s.body, "\n# Body\n");
        assert_eq!(s.warnings, []);
        assert_eq!(s.path, Path::new("skills/a-skill/SKILL.md"));
    }

    #[test]
    fn every_key_of_an_agent() {
        let a = agent(
            "---\nname: editor\ndescription: >\n  Edits\n  text.\ntools: [Read, Write]\nmodel: small\n\
             skills:\n  - count-words\n  - 12\ncolor: blue\nmetadata: {a: 1}\n---\nYou edit.",
        );
        assert_eq!((a.name.as_str(), a.description.as_str()), ("editor", "Edits text."));
        assert_eq!(a.tools, ["Read", "Write"]);
        assert_eq!(a.model.as_deref(), Some("small"));
        assert_eq!(a.skills, ["count-words", "12"]);
        assert_eq!(Value::from(a.extra), json!({"color": "blue", "metadata": {"a": 1}}));
        assert_eq!(a.body, "You edit.");
        assert_eq!(a.warnings, []);
    }

    #[test]
    fn missing_name_and_description() {
        for text in
            ["---\n---\nx", "---\n# nothing\n---\nx", "---\nname:\ndescription: ''\n---\nx", "---\n~\n---\nx"]
        {
            let s = skill(text);
            assert_eq!((s.name.as_str(), s.description.as_str(), s.body.as_str()), ("a-skill", "", "x"));
            assert_eq!(
                shown(&s.warnings),
                ["no `name`; named `a-skill` after its directory", "no `description`"]
            );
        }
        assert_eq!(agent("---\ndescription: x\n---\n").name, "an-agent");
        let alone = parse_skill("SKILL.md", b"---\n---\n").expect_err("has no name");
        assert_eq!(alone.to_string(), "SKILL.md: no `name`, and its directory has no name to use instead");
        assert!(parse_skill("", b"---\n---\n").is_err());
        assert!(parse_agent("..", b"---\n---\n").is_err());
    }

    #[test]
    fn texts_are_kept_as_written() {
        let s = skill("---\nname: 007\ndescription: 1.10\nlicense: true\n---\n");
        assert_eq!((s.name.as_str(), s.description.as_str()), ("007", "1.10"));
        assert_eq!(s.license.as_deref(), Some("true"));
        assert_eq!(s.warnings, []);
        assert_eq!(
            skill("---\nname: a\ndescription: |\n  One: two\n  # three\n\n---\n").description,
            "One: two\n# three"
        );
    }

    #[test]
    fn numbers_that_lose_their_looks_are_noted() {
        let s = skill("---\nname: a\ndescription: b\nmetadata:\n  version: 1.10\nx: [0x10, 1.5, 3]\n---\n");
        assert_eq!(s.metadata["version"], 1.1);
        assert_eq!(
            shown(&s.warnings),
            [
                "line 5: `1.10` is read as the number 1.1; quote it to keep the text",
                "line 6: `0x10` is read as the number 16; quote it to keep the text",
            ]
        );
    }

    #[test]
    fn other_shapes_are_kept_in_extra() {
        let s = skill(
            "---\nname: a\ndescription: b\nlicense: [MIT]\nmetadata: none\nallowed-tools: {Read: true}\n---\n",
        );
        assert_eq!(
            Value::from(s.extra),
            json!({"license": ["MIT"], "metadata": "none", "allowed-tools": {"Read": true}})
        );
        assert_eq!(s.warnings.len(), 3);
        assert_eq!(
            s.warnings[0].to_string(),
            "line 4: `license` should be text, but is not; kept as it is in `extra`"
        );
        let a = agent("---\nname: a\ndescription: b\ntools:\n  - [x]\nmodel: {x: 1}\n---\n");
        assert_eq!(Value::from(a.extra), json!({"tools": [["x"]], "model": {"x": 1}}));
    }

    #[test]
    fn comments_and_anchors_are_noted() {
        let s =
            skill("---\nname: a # short\ndescription: fixes issue #12 # and #13\nlicense: MIT # yes\n---\n");
        assert_eq!(s.description, "fixes issue");
        assert_eq!(s.warnings.iter().map(|w| w.line).collect::<Vec<_>>(), [Some(2), Some(3)]);
        assert_eq!(skill("---\nname: a\ndescription: C#/F# x\n---\n").warnings, []);
        assert_eq!(skill("---\nname: a\ndescription: 'x # y'\n---\n").warnings, []);
        let s = skill("---\nname: a\ndescription: &nbsp; x\n---\n");
        assert_eq!((s.description.as_str(), s.warnings[0].line), ("x", Some(3)));
    }

    #[test]
    fn repaired_lines_are_noted() {
        let s = skill("---\nname: a\ndescription: Use when: asked # twice\nversion: 2\n---\nbody");
        assert_eq!(s.description, "Use when: asked # twice");
        assert_eq!(s.extra["version"], 2);
        assert_eq!(
            shown(&s.warnings),
            [
                "line 3: the value of `description` is not valid YAML (mapping values are not allowed in this context \
              (column 22)); read as if it stood in quotes"
            ]
        );
    }

    #[test]
    fn refusals() {
        let table = [
            ("", "s/SKILL.md:1: no front matter: the file does not begin with a line `---`"),
            ("# Title\n", "s/SKILL.md:1: no front matter: the file does not begin with a line `---`"),
            ("---\nname: a\n", "s/SKILL.md:1: front matter is not closed: no line `---` or `...` after it"),
            (
                "---\n- a\n---\n",
                "s/SKILL.md:2: the front matter must be a map of keys to values, but is a list",
            ),
            (
                "---\n\ntext\n---\n",
                "s/SKILL.md:3: the front matter must be a map of keys to values, but is text",
            ),
            (
                "---\nname: [a]\n---\n",
                "s/SKILL.md:2: `name` must be text, but is a list; quote the value if it is meant as text",
            ),
            (
                "---\nx: 1\ndescription: {a: b}\n---\n",
                "s/SKILL.md:3: `description` must be text, but is a map; quote the value if it is meant as text",
            ),
            ("---\na: 1\nb: 2\na: 3\n---\n", "s/SKILL.md:4: the key `a` is there twice, first 2 lines above"),
            (
                "---\nd: x: y\na: 1\na: 3\n---\n",
                "s/SKILL.md:4: the key `a` is there twice, first one line above",
            ),
            ("\n---\na:\n  b: .inf\n---\n", "s/SKILL.md:4: `.inf` has no place in JSON"),
            ("---\nname: a\0\n---\n", "s/SKILL.md:2: NUL character at byte offset 11"),
        ];
        for (text, expected) in table {
            assert_eq!(refusal(text), expected, "{text:?}");
        }
        let not_utf8 = parse_agent("a.md", b"---\nname: \xe9\n---\n").expect_err("is Latin-1");
        assert_eq!(not_utf8.to_string(), "a.md:2: not UTF-8: invalid byte at offset 10");
    }

    #[test]
    fn cutting() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            (" , ,", &[]),
            ("Read", &["Read"]),
            ("Read,Write", &["Read", "Write"]),
            ("Read Write\tGrep\nGlob", &["Read", "Write", "Grep", "Glob"]),
            ("Bash(git add:*), Bash(a, b) x", &["Bash(git add:*)", "Bash(a, b)", "x"]),
            ("a) b (c d", &["a)", "b", "(c d"]),
        ];
        for (text, expected) in table {
            assert_eq!(cut(text), *expected, "{text:?}");
        }
    }
}
