//! Inputs made from others. The dictionary of a format is what its kept inputs are put together from, and what lies at
//! the edges of every format.

use std::collections::BTreeSet;
use std::ops::Range;

use fastrand::Rng;

/// The longest input that is tried: room for every kept one.
const MAX_BYTES: usize = 8 * 1024;

/// The longest piece of a kept input that counts as a token.
const MAX_TOKEN: usize = 64;

/// How many changes make a new input, at most.
const MAX_CHANGES: usize = 4;

/// Words that formats treat in a special way, or should.
const EDGE_WORDS: &str = r#"0 -1 -0.0 1e-7 1e308 0.1 100000 4294967296 9007199254740993 9223372036854775807
    9223372036854775808 -9223372036854775808 18446744073709551615 18446744073709551616 1677-09-21T00:12:43.145224192Z
    2262-04-11T23:47:16.854775807Z 2016-12-31T23:59:60.5Z 9999-12-31T23:59:59.999999999-23:59 null true [] {} "" ,
    \u0000 \ud800 \"#;

/// And bytes.
const EDGE_BYTES: [&[u8]; 9] = [
    b"\0",
    b"\x7f",
    b"\xff",
    b"\r\n",
    b"\n",
    b"\xef\xbb\xbf",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\xf0\x9f\x8e\xaf",
];

/// Makes inputs from those of a corpus.
pub(super) struct Mutator {
    corpus: Vec<Vec<u8>>,
    dictionary: Vec<Vec<u8>>,
}

impl Mutator {
    pub(super) fn new(corpus: Vec<Vec<u8>>) -> Self {
        let words = corpus.iter().flat_map(|input| input.chunk_by(|a, b| is_word(*a) && is_word(*b)));
        let strings = corpus.iter().flat_map(|input| input.split(|byte| *byte == b'"'));
        let edges = EDGE_WORDS.split_ascii_whitespace().map(str::as_bytes).chain(EDGE_BYTES);
        let tokens: BTreeSet<&[u8]> = words.chain(strings).chain(edges).collect();
        let dictionary =
            tokens.into_iter().filter(|token| token.len() <= MAX_TOKEN).map(<[u8]>::to_vec).collect();
        Mutator { corpus, dictionary }
    }

    pub(super) fn corpus(&self) -> &[Vec<u8>] {
        &self.corpus
    }

    /// So many new inputs. The same generator gives the same ones.
    pub(super) fn inputs(&self, rng: &mut Rng, count: usize) -> Vec<Vec<u8>> {
        let mut new = || {
            let mut input = any(&self.corpus, rng).to_vec();
            for _ in 0..rng.usize(1..=MAX_CHANGES) {
                self.change(&mut input, rng);
                // After each: a word that is repeated again and again would fill the memory.
                input.truncate(MAX_BYTES);
            }
            input
        };
        (0..count).map(|_| new()).collect()
    }

    fn change(&self, input: &mut Vec<u8>, rng: &mut Rng) {
        let at = rng.usize(..=input.len());
        let some = some_of(input, rng);
        let (word, string) = (word_at(input, at), string_at(input, at));
        match rng.u8(..9) {
            0 => flip(input, at, 1 << rng.u32(..8)),
            1 => flip(input, at, rng.u8(..)),
            2 => replace(input, some, &[]),
            3 => {
                let again = input[some].to_vec();
                replace(input, at..at, &again);
            }
            4 => {
                let often = input[word.clone()].repeat(rng.usize(..200));
                replace(input, word, &often);
            }
            5 => {
                let other = any(&self.corpus, rng);
                replace(input, some, &other[some_of(other, rng)]);
            }
            6 => replace(input, at..at, any(&self.dictionary, rng)),
            7 => replace(input, word, any(&self.dictionary, rng)),
            _ => replace(input, string, any(&self.dictionary, rng)),
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || !byte.is_ascii()
}

fn any<'a>(from: &'a [Vec<u8>], rng: &mut Rng) -> &'a [u8] {
    from.get(rng.usize(..from.len().max(1))).map_or(&[], Vec::as_slice)
}

/// A piece of an input: short ones are as likely as long ones.
fn some_of(input: &[u8], rng: &mut Rng) -> Range<usize> {
    let start = rng.usize(..=input.len());
    let most = 1 << rng.u32(..10);
    let length = rng.usize(..=most);
    start..(start + length).min(input.len())
}

/// The word, or the single byte, that stands at a place.
fn word_at(input: &[u8], at: usize) -> Range<usize> {
    let (before, after) = input.split_at(at);
    let length = after.iter().take_while(|byte| is_word(**byte)).count();
    if length == 0 {
        return at..(at + 1).min(input.len());
    }
    let begun = before.iter().rev().take_while(|byte| is_word(**byte)).count();
    at - begun..at + length
}

/// What stands between the quotes around a place.
fn string_at(input: &[u8], at: usize) -> Range<usize> {
    let (before, after) = input.split_at(at);
    let is_quote = |byte: &u8| *byte == b'"';
    let start = before.iter().rposition(is_quote).map_or(0, |quote| quote + 1);
    start..at + after.iter().position(is_quote).unwrap_or(after.len())
}

fn flip(input: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= bits;
    }
}

fn replace(input: &mut Vec<u8>, range: Range<usize>, with: &[u8]) {
    drop(input.splice(range, with.iter().copied()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::rng;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_hardly_any_twice() {
        let mutator = Mutator::new(vec![br#"{"id":"some-id","n":[1,2.5]}"#.to_vec(), Vec::new()]);
        let inputs = |seed| mutator.inputs(&mut rng(seed, 1), 1000);
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let different: BTreeSet<_> = inputs(1).into_iter().collect();
        assert!(different.len() > 700, "{}", different.len());
    }

    #[test]
    fn words_and_strings_are_found_where_they_stand() {
        let input = br#"{"some-id":1}"#;
        for (at, expected) in [(0, 0..1), (2, 2..9), (8, 2..9), (9, 9..10), (13, 13..13)] {
            assert_eq!(word_at(input, at), expected, "{at}");
        }
        for (at, expected) in [(0, 0..1), (2, 2..9), (9, 2..9), (10, 10..13)] {
            assert_eq!(string_at(input, at), expected, "{at}");
        }
    }
}
