//! What does not fit a chunk: large values, and the request ids that counters remember.
//!
//! A dense array; removing one moves the last into its place, as in the slab.

use bytes::Bytes;

use super::counter::Remembered;
use super::slab::ChunkRef;

/// Bytes charged for an outside value beside its allocation: its place in the array, and `Bytes`' count once it is shared.
const BOOKKEEPING_BYTES: u64 = 88;

/// A value in an allocation of its own.
#[derive(Clone, Debug)]
pub(super) struct Outside {
    pub value: Bytes,
    /// Of a counter.
    pub requests: Option<Box<Remembered>>,
}

/// All of a shard.
#[derive(Default)]
pub(super) struct Outsides {
    places: Vec<Place>,
}

struct Place {
    owner: ChunkRef,
    outside: Outside,
}

impl Outside {
    pub(super) fn charge(&self) -> u64 {
        Self::value_charge(self.value.len()) + self.requests.as_ref().map_or(0, |requests| requests.charge())
    }

    /// Without request ids. Allocators keep eight sizes between powers of two; the next one is what a value takes.
    pub(super) fn value_charge(value_len: usize) -> u64 {
        let spacing = (value_len.next_power_of_two() / 16).max(8);
        BOOKKEEPING_BYTES + value_len.next_multiple_of(spacing) as u64
    }
}

impl Outsides {
    pub(super) fn get(&self, index: u32) -> Option<&Outside> {
        self.places.get(index as usize).map(|place| &place.outside)
    }

    /// Where the new one is.
    pub(super) fn push(&mut self, owner: ChunkRef, outside: Outside) -> u32 {
        self.places.push(Place { owner, outside });
        #[expect(clippy::cast_possible_truncation, reason = "no more than the shard's 2^32 chunks")]
        let index = (self.places.len() - 1) as u32;
        index
    }

    /// Takes one out; answers whose place is `index` now.
    pub(super) fn remove(&mut self, index: u32) -> (Option<Outside>, Option<ChunkRef>) {
        let index = index as usize;
        if index >= self.places.len() {
            debug_assert!(false, "an outside value is missing");
            return (None, None);
        }
        let place = self.places.swap_remove(index);
        if self.places.capacity() > 4 * self.places.len() + 16 {
            self.places.shrink_to(2 * self.places.len());
        }
        (Some(place.outside), self.places.get(index).map(|place| place.owner))
    }

    pub(super) fn replace(&mut self, index: u32, outside: Outside) -> Option<Outside> {
        self.places.get_mut(index as usize).map(|place| std::mem::replace(&mut place.outside, outside))
    }

    /// The entry lies elsewhere now.
    pub(super) fn set_owner(&mut self, index: u32, owner: ChunkRef) {
        if let Some(place) = self.places.get_mut(index as usize) {
            place.owner = owner;
        }
    }
}
