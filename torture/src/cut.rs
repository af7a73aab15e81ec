//! Power cuts: what a disk may hold after each prefix of what happened to it, each image once.

use std::collections::HashSet;
use std::io;
use std::ops::RangeInclusive;

use fastrand::Rng;
use fault_disk::{Event, Fate, Image, Replay};
use twox_hash::XxHash3_128;

/// How many ways of mixing kept, dropped and torn writes are tried after each prefix.
const MIXES: usize = 3;

/// Shows what the disk may hold after each prefix of the events from `first` on, with the states that are honest
/// then, until `see` has enough. What was shown with the same honest states is not shown again.
pub(crate) fn each(
    events: &[Event],
    first: usize,
    rng: &mut Rng,
    honest: impl Fn(usize) -> RangeInclusive<usize>,
    mut see: impl FnMut(usize, &Image, RangeInclusive<usize>, &mut Rng) -> io::Result<bool>,
) -> io::Result<()> {
    let mut replay = Replay::new();
    // What the disk held before the first thing happened is no prefix of its own.
    let found = events.iter().take_while(|event| matches!(event, Event::Found(..))).count();
    let (before, rest) = events.split_at(first.max(found));
    before.iter().for_each(|event| replay.advance(event));
    let mut shown = HashSet::new();
    let positions = before.len()..=events.len();
    for (position, event) in positions.zip(rest.iter().map(Some).chain([None])) {
        for mix in 0..MIXES + 2 {
            let image = replay.image(&mut match mix {
                0 => Fate::Kept,
                1 => Fate::Dropped,
                _ => Fate::Mixed(rng),
            });
            let honest = honest(position);
            if shown.insert((fingerprint(&image), honest.clone())) && !see(position, &image, honest, rng)? {
                return Ok(());
            }
        }
        if let Some(event) = event {
            replay.advance(event);
        }
    }
    Ok(())
}

fn fingerprint(image: &Image) -> u128 {
    let mut hash = XxHash3_128::new();
    for (path, content) in image {
        hash.write(path.as_os_str().as_encoded_bytes());
        hash.write(&content.len().to_le_bytes());
        hash.write(content);
    }
    hash.finish_128()
}
