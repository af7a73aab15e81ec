//! Pages: every list is read in pages, each with a limit and an opaque cursor to the next.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::json::checksum;
use crate::{Error, Result};

/// The most items that one page may hold: a page is read whole into memory.
pub const MAX_PAGE: usize = 1000;

/// How many items a page holds when nobody says.
pub const DEFAULT_PAGE: usize = 50;

/// Which page: how many items, and after which one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    limit: usize,
    after: Option<Cursor>,
}

impl Default for PageRequest {
    /// The first [`DEFAULT_PAGE`] items.
    fn default() -> Self {
        PageRequest { limit: DEFAULT_PAGE, after: None }
    }
}

impl PageRequest {
    /// The first `limit` items, 1 to [`MAX_PAGE`].
    ///
    /// # Errors
    /// `InvalidInput` for any other limit.
    pub fn first(limit: usize) -> Result<Self> {
        if (1..=MAX_PAGE).contains(&limit) {
            return Ok(PageRequest { limit, after: None });
        }
        Err(Error::invalid("limit", format!("{limit} is not between 1 and {MAX_PAGE}")))
    }

    /// The page after `cursor`, which came with the page before.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// How many items the page may hold.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// For engines: the position to go on after, or `None` for the first page.
    ///
    /// # Errors
    /// `InvalidInput` for a cursor of another list, or one that no store made.
    pub fn position<K: DeserializeOwned>(&self, list: List) -> Result<Option<K>> {
        self.after.as_ref().map(|cursor| cursor.open(list)).transpose()
    }
}

/// One page of a list.
///
/// Pages are stable while others insert: an item that was there when the first page was read, and stays where it
/// is in the order, is listed exactly once (law PAGE-1).
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Page<T> {
    /// The items, in the order that the list documents.
    pub items: Vec<T>,
    /// Where the next page starts, or `None` when this page was the last.
    #[serde(rename = "next_cursor")]
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// For engines: a page from up to `limit + 1` items, read in order from the request's position on. The item over
    /// the limit says only that there is a next page.
    ///
    /// # Errors
    /// As [`Page::of`].
    pub fn cut<K: Serialize>(
        list: List,
        request: &PageRequest,
        mut items: Vec<T>,
        position: impl FnOnce(&T) -> K,
    ) -> Result<Page<T>> {
        let more = items.len() > request.limit;
        items.truncate(request.limit);
        Page::of(list, items, more, position)
    }

    /// For engines: a page of these items. If there are `more`, the next page starts after the `position` of the last
    /// one.
    ///
    /// # Errors
    /// `Backend` when a position cannot be encoded, which none of ours causes.
    pub fn of<K: Serialize>(
        list: List,
        items: Vec<T>,
        more: bool,
        position: impl FnOnce(&T) -> K,
    ) -> Result<Page<T>> {
        let next = match items.last() {
            Some(last) if more => Some(Cursor::new(list, &position(last))?),
            _ => None,
        };
        Ok(Page { items, next })
    }

    /// The same page with each item turned into something else.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }

    /// The same, where that can fail.
    ///
    /// # Errors
    /// The first that `f` gives.
    pub fn try_map<U>(self, f: impl FnMut(T) -> Result<U>) -> Result<Page<U>> {
        Ok(Page { items: self.items.into_iter().map(f).collect::<Result<_>>()?, next: self.next })
    }
}

/// All items of a list, page after page: `all(500, |page| store.runs(&filter, page))`.
///
/// Each page is a read of its own; run it inside [`snapshot`](crate::Store::snapshot) for one moment in time.
/// After an error the iterator ends.
pub fn all<T>(
    limit: usize,
    mut fetch: impl FnMut(&PageRequest) -> Result<Page<T>>,
) -> impl Iterator<Item = Result<T>> {
    let mut request = Some(PageRequest::first(limit));
    let mut items = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(item) = items.next() {
                return Some(Ok(item));
            }
            let page = match request.take()?.and_then(|request| fetch(&request)) {
                Ok(page) => page,
                Err(error) => return Some(Err(error)),
            };
            items = page.items.into_iter();
            request = page.next.map(|cursor| PageRequest::first(limit).map(|first| first.after(cursor)));
        }
    })
}

/// The lists there are: a cursor belongs to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named after the methods that return them
pub enum List {
    Skills,
    Agents,
    SkillVersions,
    AgentVersions,
    DueSkills,
    DueAgents,
    ChannelAgents,
    Accounts,
    Runs,
    Children,
    Events,
    Summary,
    Interrupted,
}

/// Where a page ends. Opaque: keep it, hand it back, do not read it. It stays good as long as the store does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cursor(String);

/// How many bytes of the checksum stand before a cursor's position.
const SUM_BYTES: usize = 4;

/// What holds the position of nearly every list: a number and a UUID with their quotes and names.
const USUAL_CURSOR_BYTES: usize = 128;

impl Cursor {
    /// For engines: the cursor after the item at `position`.
    ///
    /// # Errors
    /// `Backend` when the position cannot be encoded, which none of ours causes.
    pub fn new<K: Serialize>(list: List, position: &K) -> Result<Self> {
        let mut bytes = Vec::with_capacity(USUAL_CURSOR_BYTES);
        bytes.extend([0; SUM_BYTES]);
        serde_json::to_writer(&mut bytes, &(list, position))
            .map_err(|e| Error::backend("encoding a cursor", e))?;
        let (sum, body) = bytes.split_at_mut(SUM_BYTES);
        sum.copy_from_slice(&checksum(&[body]).to_be_bytes()[..SUM_BYTES]);
        Ok(Cursor(URL_SAFE_NO_PAD.encode(bytes)))
    }

    fn open<K: DeserializeOwned>(&self, list: List) -> Result<K> {
        let refuse = || Error::invalid("cursor", format!("{:?} is no cursor of this list", self.0));
        let bytes = URL_SAFE_NO_PAD.decode(&self.0).map_err(|_| refuse())?;
        let (sum, body) = bytes.split_at_checked(SUM_BYTES).ok_or_else(refuse)?;
        if checksum(&[body]).to_be_bytes()[..SUM_BYTES] != *sum {
            return Err(refuse());
        }
        let (found, position): (List, K) = serde_json::from_slice(body).map_err(|_| refuse())?;
        if found == list { Ok(position) } else { Err(refuse()) }
    }

    /// The text to hand back later.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Cursor {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let fits = text.len() <= 8 * crate::MAX_ID_BYTES;
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if text.is_empty() || !fits || !plain {
            return Err(Error::invalid("cursor", "is no cursor"));
        }
        Ok(Cursor(text.to_owned()))
    }
}

impl TryFrom<String> for Cursor {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> String {
        cursor.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_opens_only_its_own_list() {
        let cursor = Cursor::new(List::Runs, &(5i64, "r1")).unwrap();
        let request = PageRequest::default().after(cursor.to_string().parse().unwrap());
        assert_eq!(request.position::<(i64, String)>(List::Runs).unwrap(), Some((5, "r1".to_owned())));
        assert!(request.position::<(i64, String)>(List::Children).is_err());
    }

    #[test]
    fn a_cursor_is_its_text_and_no_other_text_is_one() {
        let cursor = Cursor::new(List::Runs, &(5i64, "r1")).unwrap();
        assert_eq!(cursor.as_str(), cursor.to_string());
        assert_eq!(String::from(cursor.clone()), cursor.to_string());
        for bad in ["", "a b", "a+", &"a".repeat(8 * crate::MAX_ID_BYTES + 1)] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_checked() {
        assert!(PageRequest::first(0).is_err());
        assert!(PageRequest::first(MAX_PAGE + 1).is_err());
    }

    #[test]
    fn the_longest_position_makes_a_cursor_that_parses() {
        let id = "\"".repeat(crate::MAX_ID_BYTES);
        let cursor = Cursor::new(List::Accounts, &(&id, &id, "sliding:1ns/100000")).unwrap();
        assert!(cursor.to_string().parse::<Cursor>().is_ok(), "{} bytes", cursor.as_str().len());
    }

    proptest! {
        #[test]
        fn damaged_cursors_are_refused(at in 0usize..20, flip in 1u8..=255) {
            let cursor = Cursor::new(List::Skills, &"some-skill-id").unwrap();
            let mut bytes = cursor.0.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Ok(text) = String::from_utf8(bytes) && let Ok(damaged) = text.parse::<Cursor>() {
                prop_assert!(damaged.open::<String>(List::Skills).is_err());
            }
        }

        #[test]
        fn pages_joined_are_the_list(total in 0usize..40, limit in 1usize..12) {
            let items: Vec<usize> = (0..total).collect();
            let fetch = |request: &PageRequest| {
                let after: Option<usize> = request.position(List::Events)?;
                let found = items.iter().filter(|i| after.is_none_or(|a| **i > a)).take(request.limit() + 1);
                Page::cut(List::Events, request, found.copied().collect(), |i| *i)
            };
            let joined: Vec<usize> = all(limit, fetch).collect::<Result<_>>().unwrap();
            prop_assert_eq!(joined, items);
        }
    }
}
