//! What moves from whom to whom when one ring takes the place of another.

use super::Ring;

/// A stretch of hashes, both ends included. A stretch over the end of the hash space is two of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    pub first: u64,
    pub last: u64,
}

/// Hashes that change hands. `None` is an empty ring: nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move<'a> {
    pub stretch: Stretch,
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
}

impl Stretch {
    /// Every hash.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    #[must_use]
    pub fn contains(self, hash: u64) -> bool {
        (self.first..=self.last).contains(&hash)
    }

    /// How many hashes it has; `u128`, as the whole space has 2^64.
    #[must_use]
    pub fn width(self) -> u128 {
        u128::from(self.last - self.first) + 1
    }
}

/// All that changes hands from `old` to `new`, sorted, as few stretches as possible.
#[must_use]
pub fn diff<'a>(old: &'a Ring, new: &'a Ring) -> Vec<Move<'a>> {
    let mut ends: Vec<u64> = old.hashes.iter().chain(&new.hashes).copied().chain([u64::MAX]).collect();
    ends.sort_unstable();
    ends.dedup();
    let mut moves: Vec<Move<'a>> = Vec::new();
    let mut first = 0;
    // Neither ring has an entry inside a piece, so the owners of its last hash own all of it.
    for last in ends {
        let (from, to) = (old.owner_of(last), new.owner_of(last));
        if from != to {
            match moves.last_mut() {
                Some(before)
                    if before.stretch.last.checked_add(1) == Some(first) && (before.from, before.to) == (from, to) =>
                {
                    before.stretch.last = last;
                }
                _ => moves.push(Move { stretch: Stretch { first, last }, from, to }),
            }
        }
        first = last.wrapping_add(1);
    }
    moves
}
