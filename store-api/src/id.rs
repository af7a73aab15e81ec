//! Ids and names: validated once, when they are built, also when they are read through serde.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use arrayvec::ArrayString;

use crate::{Error, Result};

/// The longest id, name, tag or key, in bytes: long enough for a URL path or an e-mail address, short
/// enough for every engine's index key.
pub const MAX_ID_BYTES: usize = 255;

/// The one rule for ids: not empty, at most [`MAX_ID_BYTES`] bytes of UTF-8, no control characters.
fn check(field: &'static str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid(field, "is empty"));
    }
    if text.len() > MAX_ID_BYTES {
        return Err(Error::invalid(field, format!("is {} bytes long, at most {MAX_ID_BYTES}", text.len())));
    }
    if may_have_control(text)
        && let Some((at, c)) = text.char_indices().find(|(_, c)| c.is_control())
    {
        return Err(Error::invalid(
            field,
            format!("has the control character U+{:04X} at byte {at}", u32::from(c)),
        ));
    }
    Ok(())
}

/// A quick look at all bytes at once: false for nearly every id, which then needs no look at its characters. The
/// control characters above ASCII, U+0080 to U+009F, begin with the byte C2.
fn may_have_control(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| found | byte.is_ascii_control() | (byte == 0xc2))
}

/// The longest text that an id keeps in place: room for a UUID (36 bytes), and what makes the whole 48 bytes.
const IN_PLACE: usize = 40;

/// The text of an id. Short ones, nearly all, are kept in place: comparing, hashing and cloning them touches no
/// other memory, and no counter that threads share. Long ones are shared.
#[derive(Clone)]
enum Text {
    InPlace(ArrayString<IN_PLACE>),
    Shared(Arc<str>),
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Text::InPlace(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        ArrayString::from(text).map_or_else(|_| Text::Shared(text.into()), Text::InPlace)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Text {
    /// As the text itself, which ids are borrowed as.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $field:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// Not empty, at most [`MAX_ID_BYTES`] bytes, no control characters; ordered by bytes.
        /// Cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Text);

        impl $name {
            /// Checks the text and takes it.
            ///
            /// # Errors
            /// `InvalidInput` when the text is empty, too long, or has a control character.
            pub fn new(text: impl AsRef<str>) -> Result<Self> {
                let text = text.as_ref();
                check($field, text)?;
                Ok(Self(text.into()))
            }

            /// A new id: a version 7 UUID, so ids made later sort later (to the millisecond).
            pub fn generate() -> Self {
                let mut buffer = uuid::Uuid::encode_buffer();
                let text: &str = uuid::Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.0.as_str()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }
    )*};
}

ids! {
    /// The id of a skill.
    SkillId = "skill id";
    /// The id of an agent.
    AgentId = "agent id";
    /// The id of a version, unique in the store.
    VersionId = "version id";
    /// The id of a run, unique in the store.
    RunId = "run id";
    /// The id of a reservation, unique in its account.
    ReservationId = "reservation id";
    /// Somebody who owns definitions, calls them, saves them or pays for them.
    PrincipalId = "principal id";
    /// A process that claims work.
    WorkerId = "worker id";
    /// A channel that messages come through, as the host names it.
    ChannelId = "channel id";
    /// The name of a definition, unique among those of its owner and kind.
    Name = "name";
    /// What a meter counts (`usd`, `tokens`, `seconds`).
    MeterName = "meter name";
    /// A label that definitions are found by.
    Tag = "tag";
    /// Makes a charge happen once, however often it is sent.
    IdempotencyKey = "idempotency key";
}

/// Which saved state of a definition this is.
///
/// Revisions come from one counter for the whole store, so a later save always has the higher one,
/// and none is ever used twice, also not after a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which claim of a record this is. Tokens come from the same counter as revisions: none is ever used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct LeaseToken(pub u64);

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_long_and_control_are_refused_with_the_field() {
        for (text, part) in [
            ("", "empty"),
            (&"x".repeat(256) as &str, "256 bytes"),
            ("a\0b", "U+0000"),
            ("a\u{85}", "U+0085"),
        ] {
            let error = SkillId::new(text).unwrap_err();
            assert!(error.to_string().starts_with("invalid skill id: "), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(SkillId::new("x".repeat(255)).is_ok());
        assert!(SkillId::new("naïve / 技能 🎯").is_ok());
    }

    #[test]
    fn ids_in_place_and_shared_ones_compare_and_hash_as_their_texts() {
        use std::hash::BuildHasher;
        let hasher = std::hash::RandomState::new();
        let texts = ["a".repeat(IN_PLACE - 1), "a".repeat(IN_PLACE), "a".repeat(IN_PLACE + 1), "b".into()];
        for one in &texts {
            let id = RunId::new(one).unwrap();
            assert_eq!(hasher.hash_one(&id), hasher.hash_one(one.as_str()));
            for other in &texts {
                assert_eq!(id.cmp(&RunId::new(other).unwrap()), one.cmp(other));
                assert_eq!(id == RunId::new(other).unwrap(), one == other);
            }
        }
        assert_eq!(size_of::<RunId>(), 48);
    }

    #[test]
    fn numbers_show_as_numbers() {
        assert_eq!(format!("{} {:>3}", Revision(7), LeaseToken(8)), "7   8");
    }

    #[test]
    fn serde_checks_too() {
        assert!(serde_json::from_str::<RunId>("\"\"").is_err());
        assert!(serde_json::from_str::<RunId>("\"a\\u0000\"").is_err());
        let id: RunId = serde_json::from_str("\"r1\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"r1\"");
    }

    #[test]
    fn generated_ids_sort_by_time() {
        let ids: Vec<RunId> = (0..1000).map(|_| RunId::generate()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
