//! A hierarchical timing wheel (Varghese and Lauck 1987, "Hashed and Hierarchical Timing Wheels", scheme 7), linked through
//! the entries themselves: setting, changing and cancelling a time take constant time, nothing stale is left behind, and
//! reclaiming looks only at what is due, beside the slots that it passes on the way down.
//!
//! Level `l` has 64 slots of 64^l milliseconds; eleven levels hold any 64-bit time, so nothing overflows. An entry is on the
//! level of the highest 6-bit digit in which its time differs from the wheel's.
//! Not here: whether an entry is readable. Reads compare times themselves, so a wheel that turns late expires nothing late.

use super::entry::{self, Chain, Links};
use super::slab::{ChunkRef, Moved, Slab};

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 64_usize.div_ceil(BITS as usize);

/// Links that name a slot of the wheel and no chunk: no class has this number.
const SLOT_LINK: u32 = 0xFE00_0000;

pub(super) struct Wheel {
    /// The wheel's time in milliseconds: everything before it has been reclaimed or sorted down.
    time: u64,
    /// A bit for each slot that has entries.
    occupied: [u64; LEVELS],
    slots: Box<[ChunkRef; LEVELS * SLOTS]>,
}

/// What [`Wheel::next`] found.
pub(super) enum Due {
    /// This entry's time is over; it is still linked.
    Entry(ChunkRef),
    /// An entry was sorted down.
    Sorted,
    Nothing,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { time: 0, occupied: [0; LEVELS], slots: Box::new([ChunkRef::NIL; LEVELS * SLOTS]) }
    }

    /// Links an entry by its expiry.
    pub(super) fn insert(&mut self, slab: &mut Slab, at: ChunkRef) {
        let when = entry::expiry(slab, at).max(self.time);
        let differs = when ^ self.time;
        let level = if differs == 0 { 0 } else { differs.ilog2() / BITS } as usize;
        let slot = level * SLOTS + digit(when, level);
        let first = self.slots[slot];
        Links { prev: slot_link(slot), next: first }.write(slab, at, Chain::Timer);
        if !first.is_nil() {
            let links = Links::read(slab, first, Chain::Timer);
            Links { prev: at, ..links }.write(slab, first, Chain::Timer);
        }
        self.slots[slot] = at;
        self.occupied[level] |= 1 << (slot % SLOTS);
    }

    pub(super) fn remove(&mut self, slab: &mut Slab, at: ChunkRef) {
        let links = Links::read(slab, at, Chain::Timer);
        self.set_next_of(slab, links.prev, links.next);
        if !links.next.is_nil() {
            let next = Links::read(slab, links.next, Chain::Timer);
            Links { prev: links.prev, ..next }.write(slab, links.next, Chain::Timer);
        }
    }

    /// An entry of the wheel lies elsewhere now.
    pub(super) fn moved(&mut self, slab: &mut Slab, moved: Moved) {
        let links = Links::read(slab, moved.to, Chain::Timer);
        self.set_next_of(slab, links.prev, moved.to);
        if !links.next.is_nil() {
            let next = Links::read(slab, links.next, Chain::Timer);
            Links { prev: moved.to, ..next }.write(slab, links.next, Chain::Timer);
        }
    }

    /// One step towards `now`, in milliseconds.
    pub(super) fn next(&mut self, slab: &mut Slab, now: u64) -> Due {
        loop {
            let Some((level, slot_time)) = self.earliest() else {
                self.time = self.time.max(now);
                return Due::Nothing;
            };
            if slot_time > now {
                self.time = self.time.max(now);
                return Due::Nothing;
            }
            self.time = self.time.max(slot_time);
            let slot = level * SLOTS + digit(slot_time, level);
            let at = self.slots[slot];
            if at.is_nil() {
                self.occupied[level] &= !(1 << (slot % SLOTS));
                continue;
            }
            if level == 0 {
                return Due::Entry(at);
            }
            self.remove(slab, at);
            self.insert(slab, at);
            return Due::Sorted;
        }
    }

    /// The level and the first millisecond of the earliest slot with entries. A slot of a higher level that the wheel is
    /// inside of has not been sorted down yet and comes first.
    fn earliest(&self) -> Option<(usize, u64)> {
        let inside = (1..LEVELS).rev().find(|&level| self.occupied[level] >> digit(self.time, level) & 1 == 1);
        if let Some(level) = inside {
            return Some((level, self.time >> shift(level) << shift(level)));
        }
        (0..LEVELS).find(|&level| self.occupied[level] != 0).map(|level| {
            let digit = u64::from(self.occupied[level].trailing_zeros());
            let higher = self.time.checked_shr(shift(level) + BITS).unwrap_or(0);
            let base = higher.checked_shl(shift(level) + BITS).unwrap_or(0);
            (level, base | digit << shift(level))
        })
    }

    fn set_next_of(&mut self, slab: &mut Slab, prev: ChunkRef, next: ChunkRef) {
        if prev.raw() >= SLOT_LINK {
            let slot = (prev.raw() - SLOT_LINK) as usize;
            self.slots[slot] = next;
            if next.is_nil() {
                self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
            }
        } else {
            let links = Links::read(slab, prev, Chain::Timer);
            Links { next, ..links }.write(slab, prev, Chain::Timer);
        }
    }
}

fn slot_link(slot: usize) -> ChunkRef {
    #[expect(clippy::cast_possible_truncation, reason = "there are 704 slots")]
    ChunkRef::from_raw(SLOT_LINK + slot as u32)
}

fn shift(level: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "there are 11 levels")]
    let level = level as u32;
    level * BITS
}

#[expect(clippy::cast_possible_truncation, reason = "6 bits")]
fn digit(time: u64, level: usize) -> usize {
    usize::from((time >> shift(level)) as u8) % SLOTS
}
