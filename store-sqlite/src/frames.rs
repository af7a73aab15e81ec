//! The write-ahead log, before SQLite touches it: opening a database plays its log back, so what the log would make of
//! the header has to be known before that.
//!
//! The layout is SQLite's file format, which is documented and does not change.

use std::io::{self, BufReader, Read};

/// The header of a log, and of each frame in it.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// How a log begins; the last bit says that its checksums are big-endian.
const MAGIC: u32 = 0x377f_0682;

/// The largest page that there is.
const LARGEST_PAGE: usize = 65_536;

/// The first page of a database as the last commit in its log left it; nothing when the log does not hold it.
pub(crate) fn first_page(log: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut log = BufReader::with_capacity(1 << 16, log);
    let mut header = [0; LOG_HEADER];
    if !fill(&mut log, &mut header)? || number(&header, 0) & !1 != MAGIC {
        return Ok(None);
    }
    let mut sum = Sum { big_endian: number(&header, 0) & 1 == 1, parts: (0, 0) };
    let page_size = number(&header, 8) as usize;
    sum.add(&header[..24]);
    if sum.parts != (number(&header, 24), number(&header, 28))
        || !(512..=LARGEST_PAGE).contains(&page_size)
        || !page_size.is_power_of_two()
    {
        return Ok(None);
    }
    let (mut frame, mut page) = ([0; FRAME_HEADER], vec![0; page_size]);
    let (mut committed, mut pending) = (None, None);
    // A frame with another salt or sum is where the log ends: what follows is from before, or was never finished.
    while fill(&mut log, &mut frame)? && fill(&mut log, &mut page)? {
        sum.add(&frame[..8]);
        sum.add(&page);
        if frame[8..16] != header[16..24] || sum.parts != (number(&frame, 16), number(&frame, 20)) {
            break;
        }
        if number(&frame, 0) == 1 {
            pending = Some(page.clone());
        }
        if number(&frame, 4) != 0 {
            committed = pending.take().or(committed);
        }
    }
    Ok(committed)
}

/// Fills the buffer, if there is as much to read.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// The running checksum of a log.
struct Sum {
    big_endian: bool,
    parts: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<4>();
        let word =
            |bytes| if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        let (mut one, mut two) = self.parts;
        for pair in words.chunks_exact(2) {
            one = one.wrapping_add(word(pair[0])).wrapping_add(two);
            two = two.wrapping_add(word(pair[1])).wrapping_add(one);
        }
        self.parts = (one, two);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    fn version(page: &[u8]) -> u32 {
        number(page, 60)
    }

    #[test]
    fn the_last_committed_first_page_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        let log = directory.path().join("s.db-wal");
        let first_page = |bytes: &[u8]| super::first_page(bytes).unwrap().map_or(0, |page| version(&page));
        for number in 1..4 {
            db.execute_batch(&format!(
                "PRAGMA user_version = {number}; INSERT INTO t VALUES (randomblob(9000))"
            ))
            .unwrap();
            assert_eq!(first_page(&std::fs::read(&log).unwrap()), number);
        }
        // Whatever is cut off or changed, what is found is what some commit left, and nothing after the damage.
        let whole = std::fs::read(&log).unwrap();
        for at in (0..whole.len()).step_by(97) {
            let cut = first_page(&whole[..at]);
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(cut <= 3 && first_page(&changed) <= cut, "byte {at}");
        }
    }
}
