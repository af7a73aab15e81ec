//! Keys: the one place that knows how they are encoded. See `docs/format.md`.
//!
//! A key is a tuple of fields, and keys sort by bytes as their tuples do. The encoding of one field is never a prefix
//! of the encoding of another value of that field, so fields cannot run into each other, and the keys that start
//! with the same fields lie together.

use std::ops::{Bound, Deref};

use store_api::budget::AccountKey;
use store_api::{Error, Kind, Result};

/// Stands for U+0000 inside a text: it sorts after the end of the text and before every other byte.
const ESCAPED_ZERO: [u8; 2] = [0, 0xff];
/// Ends a text.
const END: [u8; 2] = [0, 0];

/// A key, or the first fields of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn new() -> Self {
        Key::default()
    }

    /// A small number that names a kind or a list.
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.0.push(code);
        self
    }

    /// Text, in the order of its bytes.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.reserve(text.len() + END.len());
        let mut parts = text.split('\0');
        self.0.extend(parts.next().unwrap_or_default().as_bytes());
        for part in parts {
            self.0.extend(ESCAPED_ZERO);
            self.0.extend(part.as_bytes());
        }
        self.0.extend(END);
        self
    }

    /// Nothing, which comes first, or text.
    pub(crate) fn optional_text(self, text: Option<&str>) -> Self {
        match text {
            None => self.code(0),
            Some(text) => self.code(1).text(text),
        }
    }

    /// Nothing, which comes first, or a signed number.
    pub(crate) fn optional_signed(self, number: Option<i64>) -> Self {
        match number {
            None => self.code(0),
            Some(number) => self.code(1).signed(number),
        }
    }

    pub(crate) fn unsigned(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// A signed number. With its sign flipped the smallest one is all zeros.
    pub(crate) fn signed(self, number: i64) -> Self {
        self.unsigned(number.cast_unsigned() ^ (1 << 63))
    }
}

impl Deref for Key {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Takes a key apart, field by field, in the order in which it was put together.
pub(crate) struct Fields<'k> {
    whole: &'k [u8],
    rest: &'k [u8],
}

impl<'k> Fields<'k> {
    pub(crate) fn of(key: &'k [u8]) -> Self {
        Fields { whole: key, rest: key }
    }

    fn damaged(&self) -> Error {
        Error::corrupt(format!("key {}", self.whole.escape_ascii()), "is none that this store makes")
    }

    pub(crate) fn code(&mut self) -> Result<u8> {
        let (code, rest) = self.rest.split_first().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(*code)
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        let mut text = Vec::new();
        loop {
            let zero = self.rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.damaged())?;
            let (part, rest) = self.rest.split_at(zero);
            text.extend(part);
            match rest.split_first_chunk() {
                Some((&END, rest)) => {
                    self.rest = rest;
                    return String::from_utf8(text).map_err(|_| self.damaged());
                }
                Some((&ESCAPED_ZERO, rest)) => {
                    self.rest = rest;
                    text.push(0);
                }
                _ => return Err(self.damaged()),
            }
        }
    }

    pub(crate) fn optional_text(&mut self) -> Result<Option<String>> {
        match self.code()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(self.damaged()),
        }
    }

    pub(crate) fn optional_signed(&mut self) -> Result<Option<i64>> {
        match self.code()? {
            0 => Ok(None),
            1 => self.signed().map(Some),
            _ => Err(self.damaged()),
        }
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64> {
        let (number, rest) = self.rest.split_first_chunk().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*number))
    }

    pub(crate) fn signed(&mut self) -> Result<i64> {
        Ok((self.unsigned()? ^ (1 << 63)).cast_signed())
    }

    /// Checks that nothing is left.
    pub(crate) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }
}

/// A run of neighbouring keys.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    from: Bound<Vec<u8>>,
    /// The key that it ends before.
    to: Option<Vec<u8>>,
}

impl Span {
    /// Every key of a table.
    pub(crate) fn all() -> Self {
        Span { from: Bound::Unbounded, to: None }
    }

    /// The keys that start with these fields.
    pub(crate) fn under(prefix: &[u8]) -> Self {
        Span { from: Bound::Included(prefix.to_vec()), to: end_of(prefix) }
    }

    /// From `key` on, which is not before its start.
    pub(crate) fn starting(mut self, key: &[u8]) -> Self {
        self.from = Bound::Included(key.to_vec());
        self
    }

    /// After `key`, which is not before its start.
    pub(crate) fn after(mut self, key: &[u8]) -> Self {
        self.from = Bound::Excluded(key.to_vec());
        self
    }

    /// Only the keys before `key`.
    pub(crate) fn before(mut self, key: &[u8]) -> Self {
        if self.to.as_deref().is_none_or(|to| key < to) {
            self.to = Some(key.to_vec());
        }
        self
    }

    /// Only the keys up to those that start with `prefix`, and those.
    pub(crate) fn through(self, prefix: &[u8]) -> Self {
        match end_of(prefix) {
            Some(end) => self.before(&end),
            None => self,
        }
    }

    /// The bounds, as redb takes them.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let to = self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (self.from.as_ref().map(Vec::as_slice), to)
    }

    /// Whether `key` lies in it.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        std::ops::RangeBounds::contains(&self.bounds(), key)
    }

    /// Whether no key can lie in it. redb does not take such bounds.
    pub(crate) fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from) | Bound::Excluded(from), Some(to)) => from >= to,
            (Bound::Unbounded, _) | (_, None) => false,
        }
    }
}

/// The end of the keys that start with `prefix`: the least text of bytes that is above all of them, if there is one.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end: Vec<u8> = prefix.iter().take(last + 1).copied().collect();
    *end.last_mut()? += 1;
    Some(end)
}

pub(crate) fn definition(kind: Kind, id: &str) -> Key {
    of_kind(kind).text(id)
}

pub(crate) fn of_kind(kind: Kind) -> Key {
    Key::new().code(kind.code())
}

/// The kind that a key starts with.
pub(crate) fn kind(fields: &mut Fields<'_>) -> Result<Kind> {
    let code = fields.code()?;
    let known = [Kind::Skill, Kind::Agent].into_iter().find(|kind| kind.code() == code);
    known.ok_or_else(|| fields.damaged())
}

pub(crate) fn version(kind: Kind, definition: &str, seq: u64) -> Key {
    self::definition(kind, definition).unsigned(seq)
}

pub(crate) fn name(kind: Kind, owner: &str, name: &str) -> Key {
    of_kind(kind).text(owner).text(name)
}

pub(crate) fn due(kind: Kind, next_run_at: i64, id: &str) -> Key {
    of_kind(kind).signed(next_run_at).text(id)
}

/// What of a definition a list looks in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Facet {
    Owner = 1,
    Tag = 2,
    Channel = 3,
}

pub(crate) fn facet(kind: Kind, facet: Facet, term: &str) -> Key {
    of_kind(kind).code(facet as u8).text(term)
}

pub(crate) fn account((caller, meter, window): &AccountKey) -> Key {
    Key::new().text(caller).text(meter).text(window)
}

/// Which lists of runs there are. Each is in order of (started_at, id).
#[derive(Debug, Clone, Copy)]
pub(crate) enum RunList {
    All = 1,
    /// By parent; the runs without one are the top-level ones.
    Parent = 2,
    Skill = 3,
    Agent = 4,
    Caller = 5,
    Channel = 6,
    Status = 7,
}

pub(crate) fn run_list(list: RunList, term: Option<&str>) -> Key {
    Key::new().code(list as u8).optional_text(term)
}

pub(crate) fn event(run: &str, seq: u64) -> Key {
    Key::new().text(run).unsigned(seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One of each kind of field, as a tuple that Rust orders field by field. Texts are compared by bytes.
    type Tuple = (u8, String, Option<String>, i64, u64, String);

    fn encode((code, first, optional, signed, unsigned, last): &Tuple) -> Key {
        Key::new()
            .code(*code)
            .text(first)
            .optional_text(optional.as_deref())
            .signed(*signed)
            .unsigned(*unsigned)
            .text(last)
    }

    fn decode(key: &[u8]) -> Result<Tuple> {
        let mut fields = Fields::of(key);
        let tuple = (
            fields.code()?,
            fields.text()?,
            fields.optional_text()?,
            fields.signed()?,
            fields.unsigned()?,
            fields.text()?,
        );
        fields.end()?;
        Ok(tuple)
    }

    /// Texts that are often the beginning of each other, with the characters that the encoding is careful about.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[\0\u{1}ab\u{ff}]{0,4}", any::<String>()]
    }

    fn signed() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), -2i64..=2, Just(i64::MIN), Just(i64::MAX)]
    }

    fn tuple() -> impl Strategy<Value = Tuple> {
        (0u8..3, text(), proptest::option::of(text()), signed(), prop_oneof![any::<u64>(), 0u64..3], text())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn keys_are_in_the_order_of_their_values(a in tuple(), b in tuple()) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        }

        #[test]
        fn texts_and_what_follows_them_are_in_order(a in text(), b in text(), m: u64, n: u64) {
            let (left, right) = (Key::new().text(&a).unsigned(m), Key::new().text(&b).unsigned(n));
            prop_assert_eq!(left.cmp(&right), (&a, m).cmp(&(&b, n)));
        }

        #[test]
        fn decoding_inverts_encoding(value in tuple()) {
            prop_assert_eq!(decode(&encode(&value)).unwrap(), value);
        }

        #[test]
        fn decoding_anything_gives_a_value_or_an_error(bytes: Vec<u8>) {
            if let Ok(value) = decode(&bytes) {
                prop_assert_eq!(&*encode(&value), &bytes[..]);
            }
        }

        #[test]
        fn no_field_is_the_beginning_of_another(a in text(), b in text(), m in signed(), n in signed()) {
            let (left, right) = (Key::new().text(&a), Key::new().text(&b));
            prop_assert_eq!(left.starts_with(&right), a == b);
            let (left, right) = (Key::new().optional_text(Some(&a)), Key::new().optional_text(None));
            prop_assert!(!left.starts_with(&right) && !right.starts_with(&left));
            prop_assert_eq!(Key::new().signed(m).starts_with(&Key::new().signed(n)), m == n);
        }

        #[test]
        fn a_span_holds_exactly_the_keys_under_its_prefix(a in text(), b in text(), n: u64) {
            let prefix = Key::new().text(&a);
            let key = Key::new().text(&b).unsigned(n);
            let inside = Span::under(&prefix).contains(&key);
            prop_assert_eq!(inside, key.starts_with(&prefix));
        }
    }

    #[test]
    fn a_prefix_of_the_highest_bytes_has_no_end() {
        assert_eq!(end_of(&[0xff, 0xff]), None);
        assert_eq!(end_of(&[1, 0xff]), Some(vec![2]));
        assert_eq!(end_of(&[]), None);
    }

    #[test]
    fn spans_that_hold_nothing_are_known_to() {
        let key = |n| Key::new().unsigned(n);
        assert!(Span::under(&key(5)).after(&key(9)).is_empty());
        assert!(Span::all().starting(&key(5)).before(&key(5)).is_empty());
        assert!(!Span::all().starting(&key(5)).before(&key(6)).is_empty());
        assert!(!Span::all().is_empty());
        assert!(
            Span::all().before(&key(3)).before(&key(5)).starting(&key(3)).is_empty(),
            "the lower end stays"
        );
    }
}
