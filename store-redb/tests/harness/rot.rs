//! Bit rot: flips one bit of a key or a value in a file, through a raw handle or where its bytes lie.

use std::fs;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

/// One entry of a table.
pub(crate) struct Entry {
    pub(crate) table: String,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Every entry of every table.
pub(crate) fn entries(path: &Path) -> Vec<Entry> {
    let raw = Database::open(path).unwrap();
    let tx = raw.begin_read().unwrap();
    let mut entries = Vec::new();
    for table in tx.list_tables().unwrap() {
        let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table.name());
        for entry in tx.open_table(definition).unwrap().iter().unwrap() {
            let (key, value) = entry.unwrap();
            let (key, value) = (key.value().to_vec(), value.value().to_vec());
            entries.push(Entry { table: table.name().to_owned(), key, value });
        }
    }
    entries
}

/// Spreads seeds that follow one another, so that they reach bytes far apart.
pub(crate) fn spread(seed: u64) -> usize {
    (seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 3) as usize
}

/// Flips the bit that `seed` chooses among those of all keys and values, where they lie in the file. The store must
/// be closed.
pub(crate) fn flip(path: &Path, seed: u64) {
    let entries = entries(path);
    let pieces: Vec<&Vec<u8>> = entries.iter().flat_map(|entry| [&entry.key, &entry.value]).collect();
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut at = spread(seed) % total;
    let piece = pieces.iter().find(|piece| match at.checked_sub(piece.len()) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    });
    let piece = piece.unwrap().as_slice();
    let mut bytes = fs::read(path).unwrap();
    // Pages that were freed may hold an older copy of the same bytes, so every copy is damaged.
    let places: Vec<usize> =
        (0..bytes.len() - piece.len()).filter(|at| bytes[*at..].starts_with(piece)).collect();
    for place in places {
        bytes[place + at] ^= 1 << (seed % 8);
    }
    fs::write(path, bytes).unwrap();
}
