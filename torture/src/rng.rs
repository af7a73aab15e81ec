//! Random numbers: one small generator, from the seed of a run.

use fastrand::Rng;

/// The generator of one part of a run. Each part has its own numbers, in whatever order the parts are run.
pub(crate) fn rng(seed: u64, part: u64) -> Rng {
    // The finaliser of SplitMix64: neighbouring parts get numbers that have nothing to do with each other.
    let mut mixed = seed.wrapping_add(part.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Rng::with_seed(mixed ^ (mixed >> 31))
}
