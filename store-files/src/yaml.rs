//! From YAML text to a tree that knows its lines, and from there to JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

use crate::file::Warning;

/// How deep lists and maps may nest, aliases followed.
pub const MAX_YAML_DEPTH: usize = 64;
/// How many values a front matter may hold, each alias counted as all that it stands for.
pub const MAX_YAML_NODES: usize = 100_000;
/// How many bytes of text a front matter may hold, each alias counted as all that it stands for.
pub const MAX_YAML_BYTES: usize = 4 * 1024 * 1024;

/// Why a YAML block was refused. The line is counted from 1 within the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub(crate) line: usize,
    pub(crate) reason: String,
    pub(crate) fault: Fault,
}

/// What kind of refusal it is, as far as repair has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not YAML, or a tag nobody knows: text that was meant as text may look like this.
    Syntax,
    /// An alias without its anchor: `*bold*` looks like this too.
    UnknownAnchor,
    /// YAML that is understood and not taken. Never repaired.
    Refused,
}

impl YamlError {
    fn refused(line: usize, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into(), fault: Fault::Refused }
    }
}

/// One value and the line it starts on.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Shape,
}

#[derive(Debug)]
pub(crate) enum Shape {
    Scalar {
        text: String,
        /// Written without quotes and not as a block.
        plain: bool,
        value: Scalar,
    },
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) value: Rc<Node>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    Text,
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.kind, Shape::Scalar { value: Scalar::Null, .. })
    }

    /// What a person would call it.
    pub(crate) fn noun(&self) -> &'static str {
        match &self.kind {
            Shape::Scalar { value: Scalar::Null, .. } => "empty",
            Shape::Scalar { .. } => "text",
            Shape::List(_) => "a list",
            Shape::Map(_) => "a map",
        }
    }

    /// The value as JSON. Numbers whose text JSON would write otherwise are noted.
    pub(crate) fn to_json(&self, first_line: usize, warnings: &mut Vec<Warning>) -> Value {
        match &self.kind {
            Shape::Scalar { text, value, .. } => match value {
                Scalar::Null => Value::Null,
                Scalar::Bool(b) => Value::Bool(*b),
                Scalar::Text => Value::String(text.clone()),
                Scalar::Number(n) => {
                    let written = n.to_string();
                    if written != *text {
                        let reason =
                            format!("`{text}` is read as the number {written}; quote it to keep the text");
                        warnings.push(Warning::at(first_line + self.line - 1, reason));
                    }
                    Value::Number(n.clone())
                }
            },
            Shape::List(items) => items.iter().map(|n| n.to_json(first_line, warnings)).collect(),
            Shape::Map(entries) => {
                let mut map = Map::new();
                for entry in entries {
                    if entry.key == "<<" {
                        warnings.push(merge_warning(first_line + entry.line - 1));
                    }
                    map.insert(entry.key.clone(), entry.value.to_json(first_line, warnings));
                }
                Value::Object(map)
            }
        }
    }
}

pub(crate) fn merge_warning(line: usize) -> Warning {
    Warning::at(line, "`<<` is not YAML 1.2: kept as a key, nothing is merged")
}

/// A parsed block.
#[derive(Debug)]
pub(crate) struct Document {
    /// `None` for a block without any value.
    pub(crate) root: Option<Rc<Node>>,
    /// Lines of anchors that no alias refers to.
    pub(crate) unused_anchors: Vec<usize>,
}

/// Parses one YAML document, strictly.
pub(crate) fn parse(yaml: &str) -> Result<Document, YamlError> {
    let mut options = Options::default();
    options.flow_nesting_limit = MAX_YAML_DEPTH;
    options.block_nesting_limit = MAX_YAML_DEPTH;
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(yaml, options) {
        let (event, span) = next.map_err(|e| YamlError {
            line: e.marker().line().max(1),
            reason: format!("{} (column {})", e.info(), e.marker().col() + 1),
            fault: match e.kind() {
                ErrorKind::UnknownAnchor => Fault::UnknownAnchor,
                _ => Fault::Syntax,
            },
        })?;
        builder.event(event, span.start.line().max(1))?;
    }
    let unused_anchors = builder.anchors.values().filter(|a| !a.used).map(|a| a.line).collect();
    Ok(Document { root: builder.root.map(|b| b.node), unused_anchors })
}

/// A finished node and what it weighs when every alias in it is written out.
#[derive(Debug, Clone)]
struct Built {
    node: Rc<Node>,
    height: usize,
    nodes: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Anchor {
    line: usize,
    used: bool,
    /// `None` while the node is still being read: an alias to it now would be a cycle.
    built: Option<Built>,
}

#[derive(Debug)]
struct Frame {
    line: usize,
    anchor: usize,
    height: usize,
    nodes: usize,
    bytes: usize,
    open: Open,
}

#[derive(Debug)]
enum Open {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, lines: BTreeMap<String, usize>, key: Option<(String, usize)> },
}

#[derive(Debug, Default)]
struct Builder {
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Anchor>,
    root: Option<Built>,
    documents: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(YamlError::refused(line, "a second YAML document begins here"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let value = scalar(&text, plain, tag.as_deref(), line)?;
                let bytes = text.len();
                let kind = Shape::Scalar { text: text.into_owned(), plain, value };
                self.open_anchor(anchor, line);
                self.finish(
                    anchor,
                    line,
                    Built { node: Rc::new(Node { line, kind }), height: 0, nodes: 1, bytes },
                )
            }
            Event::SequenceStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", line)?;
                self.push(line, anchor, Open::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "map", line)?;
                let open = Open::Map { entries: Vec::new(), lines: BTreeMap::new(), key: None };
                self.push(line, anchor, open)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.stack.pop() else { return Ok(()) };
                let kind = match frame.open {
                    Open::List(items) => Shape::List(items),
                    Open::Map { entries, .. } => Shape::Map(entries),
                };
                let node = Rc::new(Node { line: frame.line, kind });
                let Frame { line, anchor, height, nodes, bytes, .. } = frame;
                self.finish(anchor, line, Built { node, height, nodes, bytes })
            }
            Event::Alias(id) => match self.anchors.get_mut(&id) {
                Some(Anchor { built: Some(built), used, .. }) => {
                    *used = true;
                    let built = built.clone();
                    self.finish(0, line, built)
                }
                Some(_) => Err(YamlError::refused(line, "the alias refers to the value it is part of")),
                None => Err(YamlError::refused(line, "the alias refers to nothing")),
            },
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            // Options that would send others are off; what a later parser may send must not be lost.
            _ => Err(YamlError::refused(line, "a YAML feature that is not supported")),
        }
    }

    fn open_anchor(&mut self, anchor: usize, line: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchor { line, used: false, built: None });
        }
    }

    fn push(&mut self, line: usize, anchor: usize, open: Open) -> Result<(), YamlError> {
        self.open_anchor(anchor, line);
        self.stack.push(Frame { line, anchor, height: 1, nodes: 1, bytes: 0, open });
        Ok(())
    }

    fn finish(&mut self, anchor: usize, line: usize, built: Built) -> Result<(), YamlError> {
        if self.stack.len() + built.height > MAX_YAML_DEPTH {
            return Err(YamlError::refused(line, format!("nested more than {MAX_YAML_DEPTH} deep")));
        }
        if let Some(a) = self.anchors.get_mut(&anchor) {
            a.built = Some(built.clone());
        }
        let Some(top) = self.stack.last_mut() else {
            self.root = Some(built);
            return Ok(());
        };
        top.height = top.height.max(built.height + 1);
        top.nodes = top.nodes.saturating_add(built.nodes);
        top.bytes = top.bytes.saturating_add(built.bytes);
        if top.nodes > MAX_YAML_NODES {
            return Err(YamlError::refused(
                line,
                format!("more than {MAX_YAML_NODES} values, aliases written out"),
            ));
        }
        if top.bytes > MAX_YAML_BYTES {
            let reason = format!("more than {MAX_YAML_BYTES} bytes of text, aliases written out");
            return Err(YamlError::refused(line, reason));
        }
        match &mut top.open {
            Open::List(items) => items.push(built.node),
            Open::Map { entries, lines, key } => match key.take() {
                Some((key, line)) => entries.push(Entry { key, line, value: built.node }),
                None => {
                    let name = match &built.node.kind {
                        Shape::Scalar { text, .. } => text.clone(),
                        _ => built.node.to_json(1, &mut Vec::new()).to_string(),
                    };
                    if let Some(first) = lines.insert(name.clone(), line) {
                        let reason =
                            format!("the key `{name}` is there twice, first {}", before(first, line));
                        return Err(YamlError::refused(line, reason));
                    }
                    *key = Some((name, line));
                }
            },
        }
        Ok(())
    }
}

/// Where the first of two keys stands, said so that it holds whatever line the block begins on.
fn before(first: usize, second: usize) -> Cow<'static, str> {
    match second.saturating_sub(first) {
        0 => "on the same line".into(),
        1 => "one line above".into(),
        n => format!("{n} lines above").into(),
    }
}

fn unknown_tag(tag: &Tag, line: usize) -> YamlError {
    YamlError {
        line,
        reason: format!("the YAML tag `{}` is not supported", tag.original()),
        fault: Fault::Syntax,
    }
}

fn collection_tag(tag: Option<&Tag>, expected: &str, line: usize) -> Result<(), YamlError> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.core_suffix() == Some(expected) || is_bare(tag) => Ok(()),
        Some(tag) => Err(unknown_tag(tag, line)),
    }
}

/// `!` alone: "not resolved by its looks", that is, text.
fn is_bare(tag: &Tag) -> bool {
    let (handle, suffix) = tag.parts();
    (handle.is_empty() && suffix == "!") || (handle == "!" && suffix.is_empty())
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>, line: usize) -> Result<Scalar, YamlError> {
    let Some(tag) = tag else {
        return if plain { resolve(text, line) } else { Ok(Scalar::Text) };
    };
    if is_bare(tag) {
        return Ok(Scalar::Text);
    }
    let Some(suffix) = tag.core_suffix() else { return Err(unknown_tag(tag, line)) };
    let value = resolve(text, line)?;
    match (suffix, &value) {
        ("str", _) => Ok(Scalar::Text),
        ("null", Scalar::Null) | ("bool", Scalar::Bool(_)) => Ok(value),
        ("int", Scalar::Number(n)) if !n.is_f64() => Ok(value),
        ("float", Scalar::Number(n)) => match n.as_f64().and_then(Number::from_f64) {
            Some(n) => Ok(Scalar::Number(n)),
            None => Ok(value),
        },
        _ => Err(YamlError::refused(line, format!("`{text}` is not what its tag `{}` says", tag.original()))),
    }
}

/// The YAML 1.2 core schema.
fn resolve(text: &str, line: usize) -> Result<Scalar, YamlError> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" => Scalar::Bool(true),
        "false" | "False" | "FALSE" => Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => {
            return Err(YamlError::refused(line, format!("`{text}` has no place in JSON")));
        }
        _ => {
            let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
            if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
                return Err(YamlError::refused(line, format!("`{text}` has no place in JSON")));
            }
            let too_big = || YamlError::refused(line, format!("the integer `{text}` is beyond 64 bits"));
            let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).map_err(|_| too_big());
            let all =
                |digits: &str, ok: fn(&char) -> bool| !digits.is_empty() && digits.chars().all(|c| ok(&c));
            match (text.strip_prefix("0o"), text.strip_prefix("0x")) {
                (Some(octal), _) if all(octal, |c| c.is_digit(8)) => Scalar::Number(radix(octal, 8)?.into()),
                (_, Some(hex)) if all(hex, char::is_ascii_hexdigit) => Scalar::Number(radix(hex, 16)?.into()),
                _ if all(unsigned, char::is_ascii_digit) => {
                    let digits = text.strip_prefix('+').unwrap_or(text);
                    let number = match digits.parse::<i64>() {
                        Ok(n) => Number::from(n),
                        Err(_) => Number::from(digits.parse::<u64>().map_err(|_| too_big())?),
                    };
                    Scalar::Number(number)
                }
                _ if is_float(unsigned) => {
                    let reason = || format!("the number `{text}` is beyond the range of a 64-bit float");
                    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
                    Scalar::Number(number.ok_or_else(|| YamlError::refused(line, reason()))?)
                }
                _ => Scalar::Text,
            }
        }
    })
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, the sign taken off.
fn is_float(text: &str) -> bool {
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['+', '-']).unwrap_or(e))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn to_json(yaml: &str) -> Result<Value, YamlError> {
        let document = parse(yaml)?;
        Ok(document.root.map_or(Value::Null, |n| n.to_json(1, &mut Vec::new())))
    }

    #[track_caller]
    fn refused(yaml: &str, line: usize, part: &str) {
        let error = to_json(yaml).expect_err(yaml);
        assert!(error.reason.contains(part), "{yaml:?}: {error:?}");
        assert_eq!(error.line, line, "{yaml:?}: {error:?}");
        assert_eq!(error.fault, Fault::Refused, "{yaml:?}: {error:?}");
    }

    #[test]
    fn core_schema() {
        let table = [
            ("1", json!(1)),
            ("+12", json!(12)),
            ("-3", json!(-3)),
            ("007", json!(7)),
            ("0o17", json!(15)),
            ("0xfF", json!(255)),
            ("9223372036854775807", json!(i64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("-.5e+2", json!(-50.0)),
            ("1e3", json!(1000.0)),
            ("0.1", json!(0.1)),
            ("~", Value::Null),
            ("null", Value::Null),
            ("", Value::Null),
            ("True", json!(true)),
            ("FALSE", json!(false)),
            ("yes", json!("yes")),
            ("off", json!("off")),
            ("nULL", json!("nULL")),
            ("2026-01-31", json!("2026-01-31")),
            ("2026-01-31T07:00:00Z", json!("2026-01-31T07:00:00Z")),
            ("12:30", json!("12:30")),
            ("1.2.3", json!("1.2.3")),
            ("1_000", json!("1_000")),
            ("0b11", json!("0b11")),
            ("0x", json!("0x")),
            ("-0x1", json!("-0x1")),
            (".", json!(".")),
            ("e3", json!("e3")),
            ("1e", json!("1e")),
            ("+", json!("+")),
            ("nan", json!("nan")),
            ("infinity", json!("infinity")),
            ("'1'", json!("1")),
            ("\"true\"", json!("true")),
            ("!!str 1", json!("1")),
            ("! 1", json!("1")),
            ("!!int \"5\"", json!(5)),
            ("!!float 5", json!(5.0)),
            ("!!null ''", Value::Null),
            ("|\n  a\n  b\n", json!("a\nb\n")),
            (">-\n  a\n  b\n", json!("a b")),
            ("\"\\u00e9\\n\"", json!("é\n")),
        ];
        for (text, value) in table {
            let got = to_json(&format!("k: {text}\n")).unwrap_or_else(|e| panic!("{text:?}: {e:?}"));
            assert_eq!(got, json!({"k": value}), "{text:?}");
        }
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        refused("a: 1\nb: 18446744073709551616\n", 2, "beyond 64 bits");
        refused("a: -9223372036854775809\n", 1, "beyond 64 bits");
        refused("a: 0x1ffffffffffffffff\n", 1, "beyond 64 bits");
        refused("a:\n  - .nan\n", 2, "no place in JSON");
        refused("a: -.INF\n", 1, "no place in JSON");
        refused("a: +.inf\n", 1, "no place in JSON");
        refused("a: 1e999\n", 1, "beyond the range");
        refused("a: !!int x\n", 1, "not what its tag");
    }

    #[test]
    fn keys_become_text() {
        let got = to_json("1: a\ntrue: b\n~: c\n1.50: d\n? [x, 1]\n: e\n'': f\n").expect("parses");
        assert_eq!(got, json!({"1": "a", "true": "b", "~": "c", "1.50": "d", "[\"x\",1]": "e", "": "f"}));
    }

    #[test]
    fn duplicates_are_refused_at_any_depth() {
        refused("a: 1\nb: 2\na: 3\n", 3, "`a` is there twice, first 2 lines above");
        refused("a:\n  b: 1\n  b: 2\n", 3, "one line above");
        refused("1: x\n'1': y\n", 2, "twice");
        refused("a: {b: 1, b: 2}\n", 1, "on the same line");
    }

    #[test]
    fn aliases() {
        let got = to_json("a: &x [1, {b: 2}]\nc: *x\nd: *x\n").expect("parses");
        assert_eq!(got, json!({"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": [1, {"b": 2}]}));
        assert_eq!(to_json("a: &x 1\nb: &x 2\nc: *x\n").expect("parses")["c"], 2);
        refused("a: &x\n  - *x\n", 2, "part of");
        refused("a: &x {b: {c: *x}}\n", 1, "part of");
        assert_eq!(parse("a: &x 1\nb: &y 2\nc: *y\n").expect("parses").unused_anchors, [1]);
    }

    #[test]
    fn alias_bombs() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..30 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
        }
        assert!(to_json(&bomb).expect_err("too much").reason.contains("values, aliases written out"));

        let mut deep = String::from("a0: &a0 [x]\n");
        for i in 1..100 {
            deep.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
        }
        assert!(to_json(&deep).expect_err("too deep").reason.contains("deep"));

        let long = "y".repeat(100_000);
        let text = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 100].join(", "));
        assert!(to_json(&text).expect_err("too long").reason.contains("bytes of text"));
    }

    #[test]
    fn depth() {
        let nested = |n: usize| format!("a: {}1{}\n", "[".repeat(n), "]".repeat(n));
        assert!(to_json(&nested(MAX_YAML_DEPTH - 1)).is_ok());
        assert!(to_json(&nested(MAX_YAML_DEPTH)).is_err());
        assert!(to_json(&nested(100_000)).is_err());
        assert!(to_json(&"- ".repeat(50_000)).is_err());
        assert!(to_json(&"{".repeat(50_000)).is_err());
        let block: String = (0..500).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(to_json(&block).is_err());
    }

    #[test]
    fn tags_and_documents() {
        for yaml in ["a: !thing x\n", "a: !!binary aGk=\n", "a: !!set {x}\n", "a: !x [1]\n"] {
            assert_eq!(to_json(yaml).expect_err(yaml).fault, Fault::Syntax, "{yaml:?}");
        }
        refused("a: 1\n--- b\n", 2, "second YAML document");
        assert_eq!(to_json("").expect("parses"), Value::Null);
        assert_eq!(to_json("# only a comment\n").expect("parses"), Value::Null);
    }
}
