//! Values: a checksum, then what is stored. See `docs/format.md`.

use store_api::json::{checksum, verify_checksum};
use store_api::{Error, Result};

use crate::tables::Table;

/// How many bytes the checksum takes.
pub(crate) const HEADER: usize = size_of::<u64>();

/// A value to store: the checksum over table, key and body, then the body, which `write` appends.
///
/// # Errors
/// Those of `write`.
pub(crate) fn seal_written(
    table: Table,
    key: &[u8],
    write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut value = vec![0; HEADER];
    write(&mut value)?;
    let (header, body) = value.split_at_mut(HEADER);
    header.copy_from_slice(&sum(table, key, body));
    Ok(value)
}

/// A value to store, of a body that is there.
pub(crate) fn seal(table: Table, key: &[u8], body: &[u8]) -> Vec<u8> {
    [&sum(table, key, body), body].concat()
}

fn sum(table: Table, key: &[u8], body: &[u8]) -> [u8; HEADER] {
    checksum(&[table.name().as_bytes(), key, body]).to_be_bytes()
}

/// The body of a stored value.
///
/// # Errors
/// `Corrupt` when it is not what was sealed for this table and key (law ROT-1).
pub(crate) fn open<'v>(table: Table, key: &[u8], value: &'v [u8]) -> Result<&'v [u8]> {
    let what = || place(table, key);
    let (sum, body) = value
        .split_first_chunk::<HEADER>()
        .ok_or_else(|| Error::corrupt(what(), format!("{} bytes are no value", value.len())))?;
    verify_checksum(what, u64::from_be_bytes(*sum), &[table.name().as_bytes(), key, body])?;
    Ok(body)
}

/// The checksum and the body of a stored value, unchecked: for what in the body is sealed by itself.
pub(crate) fn split(value: &[u8]) -> (&[u8], &[u8]) {
    value.split_at(HEADER.min(value.len()))
}

/// A table and a key, as errors name them.
pub(crate) fn place(table: Table, key: &[u8]) -> String {
    format!("{table}/{}", key.escape_ascii())
}

/// The text of a body that was opened.
pub(crate) fn text<'v>(table: Table, key: &[u8], body: &'v [u8]) -> Result<&'v str> {
    std::str::from_utf8(body).map_err(|e| Error::corrupt(place(table, key), e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{DUE, RUNS};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_flipped_bit_in_key_or_value_is_found(
            key in proptest::collection::vec(any::<u8>(), 1..20),
            body in proptest::collection::vec(any::<u8>(), 0..40),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let sealed = seal(RUNS, &key, &body);
            prop_assert_eq!(open(RUNS, &key, &sealed).unwrap(), &body[..]);
            prop_assert!(open(DUE, &key, &sealed).is_err(), "of another table");
            let mut flipped = sealed.clone();
            flipped[at.index(sealed.len())] ^= 1 << bit;
            prop_assert!(open(RUNS, &key, &flipped).is_err());
            let mut flipped = key.clone();
            flipped[at.index(key.len())] ^= 1 << bit;
            prop_assert!(open(RUNS, &flipped, &sealed).is_err());
        }
    }

    #[test]
    fn what_is_shorter_than_a_checksum_is_no_value() {
        assert!(open(RUNS, b"k", b"").is_err() && open(RUNS, b"k", b"1234567").is_err());
    }
}
