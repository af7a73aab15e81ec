//! Lines of bounded length: input that never ends must not fill the memory.

use std::io::{self, BufRead, Read};

/// The longest line that is read: a record of 16 MiB in which every byte is escaped takes six times as much.
pub(crate) const MAX_LINE_BYTES: u64 = 128 * 1024 * 1024;

/// What the next line is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, in the buffer, without its line feed.
    Whole,
    /// The last line, in the buffer: no line feed follows it.
    Unended,
    /// A line of more than [`MAX_LINE_BYTES`]. To read on, [`skip`] the rest of it.
    TooLong,
    /// There is none.
    End,
}

/// Reads the next line into `buffer`, which is cleared first.
pub(crate) fn read(input: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<Line> {
    read_up_to(MAX_LINE_BYTES, input, buffer)
}

fn read_up_to(max: u64, input: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<Line> {
    buffer.clear();
    let read = input.take(max + 1).read_until(b'\n', buffer)?;
    if buffer.last() == Some(&b'\n') {
        buffer.pop();
        return Ok(Line::Whole);
    }
    match read as u64 {
        0 => Ok(Line::End),
        read if read <= max => Ok(Line::Unended),
        _ => {
            buffer.clear();
            Ok(Line::TooLong)
        }
    }
}

/// Passes over the rest of a line that is too long.
pub(crate) fn skip(input: &mut impl BufRead) -> io::Result<()> {
    input.skip_until(b'\n').map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_up_to_their_limit() {
        let mut input: &[u8] = b"abc\n\nabcd\nx\nabcdefgh\nend";
        let mut buffer = Vec::new();
        let mut next = || {
            let line = read_up_to(3, &mut input, &mut buffer).unwrap();
            if line == Line::TooLong {
                skip(&mut input).unwrap();
            }
            (line, buffer.clone())
        };
        assert_eq!(next(), (Line::Whole, b"abc".to_vec()));
        assert_eq!(next(), (Line::Whole, b"".to_vec()));
        assert_eq!(next(), (Line::TooLong, b"".to_vec()));
        assert_eq!(next(), (Line::Whole, b"x".to_vec()));
        assert_eq!(next(), (Line::TooLong, b"".to_vec()));
        assert_eq!(next(), (Line::Unended, b"end".to_vec()));
        assert_eq!(next(), (Line::End, b"".to_vec()));
    }
}
