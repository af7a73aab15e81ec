//! JSON at the edge: what may enter a document, and how a document becomes bytes and back.
//!
//! Everything that engines would treat differently is refused here, once: text with U+0000, documents that are too
//! large or too deep to be read back, integers beyond `u64` and `i64`, keys that appear twice, unknown fields that
//! shadow a known one. Floats keep every bit (serde_json's `float_roundtrip`).

use std::{fmt, io};

use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};
use serde_json::{Map, Number, Value};
use twox_hash::XxHash3_64;

use crate::{Error, Result};

/// The most text that one record may hold, in bytes, counted by the rules of [`Weigh`]: far above any prompt,
/// far below what would make one record stall the others.
pub const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

/// How deep the free JSON inside a record may nest. serde_json reads 127 levels; the rest is for the
/// records and streams around it.
pub const MAX_JSON_DEPTH: usize = 100;

/// Unknown fields, kept as they are.
pub type Extra = Map<String, Value>;

/// Checks a record's contents and counts them. All engines refuse the same records because they all ask here.
///
/// A record weighs the bytes of its strings and keys, and 8 for each JSON number, boolean, null, list and map.
#[derive(Debug, Default)]
pub struct Weigh {
    bytes: usize,
}

impl Weigh {
    /// Nothing weighed yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, bytes: usize) -> Weighed {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_RECORD_BYTES {
            return Err(Refused::here(format!("the record is larger than {MAX_RECORD_BYTES} bytes here")));
        }
        Ok(())
    }

    /// A text field: any Unicode but U+0000.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn text(&mut self, field: &str, text: &str) -> Result<()> {
        self.string(text).map_err(|refused| refused.of(field))
    }

    /// A list of text fields.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn texts<S: AsRef<str>>(&mut self, field: &str, texts: impl IntoIterator<Item = S>) -> Result<()> {
        let mut text = |text: S| {
            self.add(8)?;
            self.string(text.as_ref())
        };
        texts.into_iter().try_for_each(&mut text).map_err(|refused| refused.of(field))
    }

    /// Any JSON.
    ///
    /// # Errors
    /// `InvalidInput` with the path from the field to the value that is refused.
    pub fn value(&mut self, field: &str, value: &Value) -> Result<()> {
        self.walk(value, 1).map_err(|refused| refused.of(field))
    }

    /// A JSON object.
    ///
    /// # Errors
    /// As [`Weigh::value`].
    pub fn map(&mut self, field: &str, map: &Map<String, Value>) -> Result<()> {
        self.entries(map, 1).map_err(|refused| refused.of(field))
    }

    /// The unknown fields of a record, none of which may be one of its `known` fields.
    ///
    /// # Errors
    /// As [`Weigh::value`], and `InvalidInput` for a field that shadows a known one.
    pub fn extra(&mut self, field: &str, extra: &Extra, known: &[&str]) -> Result<()> {
        if let Some(key) = extra.keys().find(|key| known.contains(&key.as_str())) {
            return Err(Error::invalid(format!("{field}.{key}"), "shadows the field of that name"));
        }
        self.map(field, extra)
    }

    fn string(&mut self, text: &str) -> Weighed {
        if let Some(at) = memchr::memchr(0, text.as_bytes()) {
            return Err(Refused::here(format!("has the character U+0000 at byte {at}")));
        }
        self.add(text.len())
    }

    fn walk(&mut self, value: &Value, depth: usize) -> Weighed {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.add(8),
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                self.add(8)?;
                check_depth(depth)?;
                let mut items = items.iter().enumerate();
                items.try_for_each(|(index, item)| {
                    self.walk(item, depth + 1).map_err(|refused| refused.inside(format_args!("[{index}]")))
                })
            }
            Value::Object(map) => self.entries(map, depth),
        }
    }

    fn entries(&mut self, map: &Map<String, Value>, depth: usize) -> Weighed {
        self.add(8)?;
        check_depth(depth)?;
        map.iter().try_for_each(|(key, item)| {
            self.string(key)?;
            self.walk(item, depth + 1).map_err(|refused| refused.inside(format_args!(".{key}")))
        })
    }
}

fn check_depth(depth: usize) -> Weighed {
    if depth > MAX_JSON_DEPTH {
        return Err(Refused::here(format!("nests deeper than {MAX_JSON_DEPTH} levels")));
    }
    Ok(())
}

type Weighed = std::result::Result<(), Refused>;

/// What is refused, and where: the path to it grows on the way out, so that what is let in costs none.
struct Refused {
    path: String,
    reason: String,
}

impl Refused {
    /// The most characters of a path that an error shows.
    const SHOWN: usize = 200;

    fn here(reason: String) -> Self {
        Refused { path: String::new(), reason }
    }

    fn inside(self, step: fmt::Arguments<'_>) -> Self {
        Refused { path: format!("{step}{}", self.path), reason: self.reason }
    }

    fn of(self, field: &str) -> Error {
        let path: String = field.chars().chain(self.path.chars()).take(Self::SHOWN).collect();
        Error::invalid(path, self.reason)
    }
}

/// Parses JSON from outside, strictly: a key that appears twice in one object, an integer beyond `i64` and `u64`
/// and nesting beyond what serde_json reads are errors, where serde_json alone would keep the last key and round
/// the integer.
///
/// # Errors
/// `InvalidInput` naming `field`, with line and column.
pub fn parse(field: &'static str, text: &str) -> Result<Value> {
    let refuse = |reason: String| Error::invalid(field, reason);
    let value = serde_json::from_str::<Strict>(text).map_err(|e| refuse(e.to_string()))?.0;
    if let Some((line, number)) = large_integer(text) {
        return Err(refuse(format!("the integer {number} on line {line} does not fit 64 bits")));
    }
    Ok(value)
}

/// Parses one record from outside with the strictness of [`parse`].
///
/// # Errors
/// `InvalidInput` naming `field`.
pub fn parse_as<T: DeserializeOwned>(field: &'static str, text: &str) -> Result<T> {
    serde_json::from_value(parse(field, text)?).map_err(|e| Error::invalid(field, e.to_string()))
}

/// The JSON text of a record that was checked before.
///
/// # Errors
/// `Backend` when serde cannot write it, which a checked record never causes.
pub fn encode<T: Serialize>(record: &T) -> Result<String> {
    serde_json::to_string(record).map_err(|e| Error::backend("encoding a record", e))
}

/// The same text, as UTF-8, of a record that nobody has weighed, if it is plain on the way that any [`Weigh`] lets it
/// in: no U+0000, not deep, not large. Nothing when that takes a closer look.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_if_plain<T: Serialize>(record: &T) -> Result<Option<Vec<u8>>> {
    let mut text = Light(Vec::with_capacity(128));
    match record.serialize(&mut Serializer::with_formatter(&mut text, Plain { depth: 0 })) {
        Ok(()) => Ok(Some(text.0)),
        Err(e) if e.is_io() => Ok(None),
        Err(e) => Err(Error::backend("encoding a record", e)),
    }
}

/// A text too short for its record to weigh too much: what weighs most for its length is a digit and a comma, 8 for 2.
struct Light(Vec<u8>);

impl io::Write for Light {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > (MAX_RECORD_BYTES / 4).saturating_sub(self.0.len()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes).map(drop)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes as serde_json does by itself, but fails at U+0000 and where it gets deep.
struct Plain {
    depth: usize,
}

impl Plain {
    fn enter(&mut self) -> io::Result<()> {
        self.depth += 1;
        if self.depth > MAX_JSON_DEPTH { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }
}

impl Formatter for Plain {
    #[inline]
    fn write_char_escape<W: ?Sized + io::Write>(&mut self, to: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::AsciiControl(0) => Err(io::ErrorKind::InvalidData.into()),
            other => CompactFormatter.write_char_escape(to, other),
        }
    }
    #[inline]
    fn begin_array<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.enter()?;
        CompactFormatter.begin_array(to)
    }
    #[inline]
    fn end_array<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_array(to)
    }
    #[inline]
    fn begin_object<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.enter()?;
        CompactFormatter.begin_object(to)
    }
    #[inline]
    fn end_object<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_object(to)
    }
}

/// The same text as [`encode`] gives, behind what is in `to` already.
///
/// # Errors
/// As [`encode`].
pub fn encode_into<T: Serialize>(to: &mut Vec<u8>, record: &T) -> Result<()> {
    serde_json::to_writer(to, record).map_err(|e| Error::backend("encoding a record", e))
}

/// Reads back what [`encode`] wrote.
///
/// # Errors
/// `Corrupt` naming `what`.
pub fn decode<T: DeserializeOwned>(what: impl FnOnce() -> String, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::corrupt(what(), e.to_string()))
}

/// The checksum that stands beside each stored value, over all parts that must not change or be mixed up: the
/// record's table and key, then its value.
pub fn checksum(parts: &[&[u8]]) -> u64 {
    parts.iter().fold(Checksum::default(), |sum, part| sum.and(part)).get()
}

/// A [`checksum`] part by part, for who knows how long some of them are: the compiler then leaves out what other
/// lengths would need. XXH3, each part seeded with the sum so far and its length.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checksum(u64);

impl Checksum {
    /// The checksum over one part more.
    #[inline]
    #[must_use]
    pub fn and(self, part: &[u8]) -> Self {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        Checksum(XxHash3_64::oneshot_with_seed(self.0 ^ length.rotate_left(32), part))
    }

    /// The checksum over the parts so far.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Compares a stored checksum with the one of what was read.
///
/// # Errors
/// `Corrupt` naming `what` (law ROT-1).
pub fn verify_checksum(what: impl FnOnce() -> String, stored: u64, parts: &[&[u8]]) -> Result<()> {
    let found = checksum(parts);
    if found == stored {
        return Ok(());
    }
    Err(Error::corrupt(what(), format!("checksum {found:016x}, stored {stored:016x}")))
}

/// The first integer token that fits neither `i64` nor `u64`, with its line. The text is valid JSON.
fn large_integer(text: &str) -> Option<(usize, &str)> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(&byte) = bytes.get(at) {
                    match byte {
                        b'"' => break,
                        b'\\' => at += 2,
                        _ => at += 1,
                    }
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|b| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
                    .count();
                let token = &text[at..at + length];
                let integer = !token.contains(['.', 'e', 'E']);
                if integer && token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
                    return Some((line, token));
                }
                at += length;
            }
            _ => {
                line += usize::from(byte == b'\n');
                at += 1;
            }
        }
    }
    None
}

/// A JSON value that refuses a key that appears twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} appears twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn strict_parsing_refuses_what_would_be_lost() {
        for (text, part) in [
            (r#"{"a":1,"a":2}"#, "\"a\" appears twice"),
            (r#"[{"b":{"a":1,"a":2}}]"#, "appears twice"),
            ("[1,\n18446744073709551616]", "18446744073709551616 on line 2"),
            ("-9223372036854775809", "does not fit"),
            ("1e400", "number out of range"),
            ("{", "EOF"),
        ] {
            let error = parse("doc", text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(
            parse("doc", r#"{"s":"18446744073709551616\" 1","n":18446744073709551615}"#).unwrap()["n"],
            u64::MAX
        );
        assert_eq!(parse("doc", "100000000000000000000.0").unwrap(), json!(1e20));
        assert_eq!(parse("doc", r#"[null,true,-1,"x"]"#).unwrap(), json!([null, true, -1, "x"]));
    }

    #[test]
    fn integers_are_looked_for_outside_of_texts_alone() {
        const LARGE: &str = "18446744073709551616";
        for before in
            [r#""x""#, r#""""#, r#""\\""#, r#""\"""#, r#""a\"b","c""#, r#""aa\n","b""#, "1", "-1.5e3"]
        {
            assert!(parse("doc", &format!("[{before},{LARGE}]")).is_err(), "{before}");
        }
        for text in [format!(r#"["\" {LARGE}"]"#), format!(r#"["\\","{LARGE}"]"#)] {
            assert!(parse("doc", &text).is_ok(), "{text}");
        }
    }

    #[test]
    fn depth_is_checked_on_write_and_reads_back() {
        let nest = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let mut weigh = Weigh::new();
        assert!(weigh.value("x", &nest(MAX_JSON_DEPTH)).is_ok());
        let error = weigh.value("x", &nest(MAX_JSON_DEPTH + 1)).unwrap_err();
        assert!(error.to_string().contains("deeper than 100"), "{error}");
        let text = encode(&nest(MAX_JSON_DEPTH + 20)).unwrap();
        assert!(decode::<Value>(|| "x".into(), &text).is_ok(), "records may wrap 20 levels around it");
    }

    #[test]
    fn nul_is_named_by_its_path() {
        let error = Weigh::new().value("extra", &json!({"a": [1, "x\0"]})).unwrap_err();
        assert_eq!(error.to_string(), "invalid extra.a[1]: has the character U+0000 at byte 1");
        assert!(Weigh::new().map("extra", json!({"a\0": 1}).as_object().unwrap()).is_err());
        let error = Weigh::new().texts("tools", ["x", "y\0"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid tools: has the character U+0000 at byte 1");
    }

    #[test]
    fn a_record_may_weigh_so_much_and_no_more() {
        let mut weigh = Weigh::new();
        weigh.text("body", &"x".repeat(MAX_RECORD_BYTES - 1)).unwrap();
        weigh.text("name", "x").unwrap();
        assert!(weigh.text("name", "x").unwrap_err().to_string().contains("larger than"));
    }

    #[test]
    fn the_checksum_sees_where_parts_end() {
        assert_ne!(checksum(&[b"ab", b"c"]), checksum(&[b"a", b"bc"]));
        assert_ne!(checksum(&[b"a", b""]), checksum(&[b"", b"a"]));
        assert!(verify_checksum(|| "x".into(), checksum(&[b"a"]), &[b"a"]).is_ok());
        let error = verify_checksum(|| "x".into(), checksum(&[b"a"]), &[b"b"]).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
        assert_eq!(checksum(&[b"ab", b"c"]), 0x6f9c_d028_6a0e_6cc8, "files hold it, so it never changes");
    }

    proptest! {
        #[test]
        fn floats_round_trip_to_the_bit(f in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            let text = encode(&json!({ "f": f })).unwrap();
            let back = parse("doc", &text).unwrap()["f"].as_f64().unwrap();
            prop_assert_eq!(back.to_bits(), f.to_bits());
        }

        #[test]
        fn integers_are_kept_or_refused(n: i128) {
            let parsed = parse("doc", &n.to_string());
            let fits = i64::try_from(n).is_ok() || u64::try_from(n).is_ok();
            prop_assert_eq!(parsed.is_ok(), fits);
            if let Ok(value) = parsed {
                prop_assert_eq!(value.to_string(), n.to_string());
            }
        }

        #[test]
        fn no_input_panics(text in "[\\[\\]{}\":,0-9eE+\\\\ -]{0,40}") {
            if let Ok(value) = parse("doc", &text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
