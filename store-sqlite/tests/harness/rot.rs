//! Bit rot: flips one bit of a database file among the bytes that hold rows, whether in a table or in an index.
//!
//! The layout of pages and cells is SQLite's file format, which is documented and does not change.

use std::fs;
use std::ops::Range;
use std::path::Path;

use rusqlite::Connection;

/// Flips the bit that `seed` chooses. The store must be closed.
pub(crate) fn flip(path: &Path, seed: u64) {
    let mut bytes = fs::read(path).unwrap();
    let ranges = payloads(path, &bytes);
    let total: usize = ranges.iter().map(ExactSizeIterator::len).sum();
    // Spread, so that seeds that follow one another reach bytes far apart.
    let chosen = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let (mut at, bit) = ((chosen >> 3) as usize % total, chosen % 8);
    let range = ranges.iter().find(|range| match at.checked_sub(range.len()) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    });
    bytes[range.unwrap().start + at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

/// Where in the file the payloads of all rows and index entries lie.
fn payloads(path: &Path, bytes: &[u8]) -> Vec<Range<usize>> {
    let connection = Connection::open(path).unwrap();
    let page_size: u32 = connection.query_one("PRAGMA page_size", [], |row| row.get(0)).unwrap();
    let page_size = page_size as usize;
    let sql = "SELECT pageno FROM dbstat WHERE pagetype <> 'overflow' AND name NOT LIKE 'sqlite_schema'";
    let mut statement = connection.prepare(sql).unwrap();
    let pages = statement.query_map([], |row| row.get::<_, u32>(0)).unwrap();
    pages.flat_map(|page| page_payloads(bytes, page_size, page.unwrap() as usize)).collect()
}

fn page_payloads(bytes: &[u8], page_size: usize, page: usize) -> Vec<Range<usize>> {
    let start = (page - 1) * page_size;
    let kind = bytes[start];
    let header = if kind == 2 || kind == 5 { 12 } else { 8 };
    let cells = number(bytes, start + 3, 2);
    let cell = |index: usize| start + number(bytes, start + header + 2 * index, 2);
    match kind {
        5 => Vec::new(), // an inner page of a table holds keys alone
        _ => (0..cells).flat_map(|index| cell_payload(bytes, page_size, kind, cell(index))).collect(),
    }
}

/// The payload of a cell: a part beside it, and the rest on overflow pages.
fn cell_payload(bytes: &[u8], page_size: usize, kind: u8, cell: usize) -> Vec<Range<usize>> {
    let mut at = if kind == 2 { cell + 4 } else { cell };
    let size = varint(bytes, &mut at);
    if kind == 13 {
        varint(bytes, &mut at); // the row's id
    }
    let most = if kind == 13 { page_size - 35 } else { (page_size - 12) * 64 / 255 - 23 };
    let least = (page_size - 12) * 32 / 255 - 23;
    if size <= most {
        return std::iter::once(at..at + size).collect();
    }
    let surplus = least + (size - least) % (page_size - 4);
    let local = if surplus <= most { surplus } else { least };
    let mut ranges: Vec<_> = std::iter::once(at..at + local).collect();
    let (mut left, mut next) = (size - local, number(bytes, at + local, 4));
    while left > 0 {
        let page = (next - 1) * page_size;
        let here = left.min(page_size - 4);
        ranges.push(page + 4..page + 4 + here);
        (left, next) = (left - here, number(bytes, page, 4));
    }
    ranges
}

fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    bytes[at..at + length].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn varint(bytes: &[u8], at: &mut usize) -> usize {
    let mut number = 0;
    loop {
        let byte = bytes[*at];
        *at += 1;
        number = number << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return number;
        }
    }
}
