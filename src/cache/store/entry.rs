//! How an entry lies in its chunk, and what it is charged.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | version |
//! | 4 + 4 | links of the eviction queue: towards its front, towards its tail |
//! | 8 | [`Meta`]: account, lengths, flags |
//! | 8 + 4 + 4 | if it expires: when, in monotonic milliseconds, and the links of the timing wheel |
//! | 8 | if it is charged to another account than its key space's: which, or none |
//! | | the key |
//! | | the value; of one kept outside, 4 bytes that say where |
//!
//! Neither hash is kept: they are computed again on the rare ways that need them (a split, a move, an eviction).

use bytes::{BufMut, Bytes};

use super::outside::{Outside, Outsides};
use super::slab::{Chunk, ChunkRef, Slab};
use crate::cache::version::{Now, Version};

/// Bytes an entry is charged for its share of what is not its own: the index (a reference and a tag at a load of 44 to 88 %),
/// eviction's memory of one or two fingerprints, and what of the last pages is not filled.
const SHARED_BYTES: usize = 16;

/// Bytes of a chunk up to which the value lies in it. A larger value is an allocation of its own: read by reference count,
/// and never copied under the lock.
const MAX_INLINE_BYTES: usize = 4096;

const HEADER_BYTES: usize = 24;
const EXPIRY_BYTES: usize = 16;
const CHARGED_BYTES: usize = 8;
const OUTSIDE_BYTES: usize = 4;

const VERSION_WORD: usize = 0;
const LINKS_WORD: usize = 1;
const META_WORD: usize = 2;
const EXPIRY_WORD: usize = 3;
const TIMER_WORD: usize = 4;

/// Stands for "charged to nobody".
const NOBODY: u64 = u64::MAX;

/// Slots that tenants may have: 24 bits.
pub(super) const MAX_TENANTS: u32 = 1 << 24;

/// The third word of a chunk: account (24 bits), length of the key (13) and of the inline value (13), and flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta(u64);

/// Which list an entry is linked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Small = 0,
    Main = 1,
    Tombstones = 2,
}

/// What decides the size of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub key_len: usize,
    /// Of the inline value; 0 if it is outside.
    pub value_len: usize,
    pub expires: bool,
    pub charged_apart: bool,
    pub outside: bool,
}

/// An entry under its shard's lock.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    chunk: Chunk<'a>,
    meta: Meta,
    outside: Option<&'a Outside>,
}

/// Bytes of memory that the store counts for an entry: its chunk, 16 bytes for its share of the index, and for a value over
/// about 4 KiB an allocation of its own. `charged_apart`: it is charged to another account than its key space's.
#[must_use]
pub fn entry_charge(key_len: usize, value_len: usize, expires: bool, charged_apart: bool) -> u64 {
    let outside = !is_inline(key_len, value_len);
    let inline_len = if outside { 0 } else { value_len };
    let layout = Layout { key_len, value_len: inline_len, expires, charged_apart, outside };
    let allocation = if outside { Outside::value_charge(value_len) } else { 0 };
    layout.charge() + allocation
}

/// Whether key and value share a chunk.
pub(super) fn is_inline(key_len: usize, value_len: usize) -> bool {
    HEADER_BYTES + EXPIRY_BYTES + CHARGED_BYTES + key_len + value_len <= MAX_INLINE_BYTES
}

impl EntryRef<'_> {
    #[must_use]
    pub fn version(&self) -> Version {
        Version::from_u64(self.chunk.word(VERSION_WORD))
    }

    /// In milliseconds, at least 1; `None`: the entry does not expire.
    #[must_use]
    pub fn remaining_ttl_ms(&self, now: Now) -> Option<u64> {
        self.expires_ms().map(|at| at.saturating_sub(now.monotonic_ms).max(1))
    }

    /// Bytes.
    #[must_use]
    pub fn value_len(&self) -> usize {
        self.outside.map_or(self.meta.value_len(), |outside| outside.value.len())
    }

    pub fn copy_value_to(&self, target: &mut impl BufMut) {
        if let Some(outside) = self.outside {
            target.put_slice(&outside.value);
            return;
        }
        for piece in self.chunk.pieces(self.meta.value_offset(), self.meta.value_len()) {
            target.put_slice(piece);
        }
    }

    /// The value: a copy if it is small, shared if it is large.
    #[must_use]
    pub fn value(&self) -> Bytes {
        if let Some(outside) = self.outside {
            return outside.value.clone();
        }
        if let Some(slice) = self.chunk.slice(self.meta.value_offset(), self.meta.value_len()) {
            return Bytes::copy_from_slice(slice);
        }
        let mut copy = Vec::with_capacity(self.meta.value_len());
        self.chunk.append_to(self.meta.value_offset(), self.meta.value_len(), &mut copy);
        copy.into()
    }
}

impl<'a> EntryRef<'a> {
    pub(super) fn new(slab: &'a Slab, outsides: &'a Outsides, at: ChunkRef) -> Self {
        let chunk = slab.chunk(at);
        let meta = Meta(chunk.word(META_WORD));
        let outside = meta.is_outside().then(|| outsides.get(meta.outside_index(chunk)));
        Self { chunk, meta, outside: outside.flatten() }
    }

    pub(super) fn meta(&self) -> Meta {
        self.meta
    }

    pub(super) fn outside(&self) -> Option<&'a Outside> {
        self.outside
    }

    pub(super) fn expires_ms(&self) -> Option<u64> {
        self.meta.has_expiry().then(|| self.chunk.word(EXPIRY_WORD))
    }

    pub(super) fn is_expired(&self, now: Now) -> bool {
        self.expires_ms().is_some_and(|at| at <= now.monotonic_ms)
    }

    /// The slot of the account it is charged to.
    pub(super) fn charged_slot(&self) -> Option<u32> {
        if !self.meta.is_charged_apart() {
            return (!self.meta.is_tombstone()).then(|| self.meta.space_slot());
        }
        let word = HEADER_BYTES / 8 + if self.meta.has_expiry() { EXPIRY_BYTES / 8 } else { 0 };
        u32::try_from(self.chunk.word(word)).ok()
    }

    pub(super) fn key_equals(&self, key: &[u8]) -> bool {
        self.meta.key_len() == key.len() && self.chunk.equals(self.meta.key_offset(), key)
    }

    pub(super) fn key_starts_with(&self, prefix: &[u8]) -> bool {
        self.meta.key_len() >= prefix.len() && self.chunk.equals(self.meta.key_offset(), prefix)
    }

    pub(super) fn with_key<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        self.chunk.with(self.meta.key_offset(), self.meta.key_len(), f)
    }

    /// Bytes that count against a quota.
    pub(super) fn quota_bytes(&self) -> u64 {
        (self.meta.key_len() + self.value_len()) as u64
    }

    pub(super) fn layout(&self) -> Layout {
        Layout {
            key_len: self.meta.key_len(),
            value_len: self.meta.value_len(),
            expires: self.meta.has_expiry(),
            charged_apart: self.meta.is_charged_apart(),
            outside: self.meta.is_outside(),
        }
    }
}

impl Layout {
    /// Bytes before the chunk is rounded up.
    pub(super) fn bytes(self) -> usize {
        self.value_offset() + if self.outside { OUTSIDE_BYTES } else { self.value_len }
    }

    /// What an entry in such a chunk is charged, without its outside.
    pub(super) fn charge(self) -> u64 {
        (Slab::chunk_bytes(self.bytes()) + SHARED_BYTES) as u64
    }

    fn key_offset(self) -> usize {
        let expiry = if self.expires { EXPIRY_BYTES } else { 0 };
        HEADER_BYTES + expiry + if self.charged_apart { CHARGED_BYTES } else { 0 }
    }

    fn value_offset(self) -> usize {
        self.key_offset() + self.key_len
    }

    /// Writes all but the links, which the lists own. `charged`: only looked at if it is charged apart.
    pub(super) fn write(self, slab: &mut Slab, at: ChunkRef, meta: Meta, charged: Option<u32>, key: &[u8]) {
        slab.set_word(at, META_WORD, meta.0);
        if self.charged_apart {
            let word = self.key_offset() / 8 - 1;
            slab.set_word(at, word, charged.map_or(NOBODY, u64::from));
        }
        slab.write(at, self.key_offset(), key);
    }
}

impl Meta {
    pub(super) fn new(space_slot: u32, layout: Layout, queue: Queue, frequency: u8) -> Self {
        let lengths = (layout.key_len as u64) << 24 | (layout.value_len as u64) << 37;
        let flags = u64::from(layout.expires) | u64::from(layout.charged_apart) << 1 | u64::from(layout.outside) << 2;
        Self(u64::from(space_slot) | lengths | u64::from(frequency) << 50 | (queue as u64) << 52 | flags << 54)
    }

    pub(super) fn read(slab: &Slab, at: ChunkRef) -> Self {
        Self(slab.word(at, META_WORD))
    }

    pub(super) fn write(self, slab: &mut Slab, at: ChunkRef) {
        slab.set_word(at, META_WORD, self.0);
    }

    #[expect(clippy::cast_possible_truncation, reason = "24 bits")]
    pub(super) fn space_slot(self) -> u32 {
        self.0 as u32 & (MAX_TENANTS - 1)
    }

    #[expect(clippy::cast_possible_truncation, reason = "13 bits")]
    pub(super) fn key_len(self) -> usize {
        usize::from((self.0 >> 24) as u16 & 0x1FFF)
    }

    /// Of an inline value.
    #[expect(clippy::cast_possible_truncation, reason = "13 bits")]
    pub(super) fn value_len(self) -> usize {
        usize::from((self.0 >> 37) as u16 & 0x1FFF)
    }

    #[expect(clippy::cast_possible_truncation, reason = "2 bits")]
    pub(super) fn frequency(self) -> u8 {
        (self.0 >> 50) as u8 & 3
    }

    pub(super) fn with_frequency(self, frequency: u8) -> Self {
        debug_assert!(frequency < 4);
        Self(self.0 & !(3 << 50) | u64::from(frequency) << 50)
    }

    pub(super) fn queue(self) -> Queue {
        match self.0 >> 52 & 3 {
            0 => Queue::Small,
            1 => Queue::Main,
            _ => Queue::Tombstones,
        }
    }

    pub(super) fn with_queue(self, queue: Queue) -> Self {
        Self(self.0 & !(3 << 52) | (queue as u64) << 52)
    }

    pub(super) fn is_tombstone(self) -> bool {
        self.queue() == Queue::Tombstones
    }

    pub(super) fn has_expiry(self) -> bool {
        self.0 >> 54 & 1 == 1
    }

    pub(super) fn is_charged_apart(self) -> bool {
        self.0 >> 55 & 1 == 1
    }

    pub(super) fn is_outside(self) -> bool {
        self.0 >> 56 & 1 == 1
    }

    fn key_offset(self) -> usize {
        let expiry = if self.has_expiry() { EXPIRY_BYTES } else { 0 };
        HEADER_BYTES + expiry + if self.is_charged_apart() { CHARGED_BYTES } else { 0 }
    }

    pub(super) fn value_offset(self) -> usize {
        self.key_offset() + self.key_len()
    }

    fn outside_index(self, chunk: Chunk<'_>) -> u32 {
        chunk.with(self.value_offset(), OUTSIDE_BYTES, |bytes| {
            bytes.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
        })
    }
}

/// Reads the cache lines in which an entry's head and most keys lie.
pub(super) fn warm(slab: &Slab, at: ChunkRef) -> u64 {
    let chunk = slab.chunk(at);
    let last_word = (Slab::size(at) / 8 - 1).min(7);
    chunk.word(META_WORD) ^ chunk.word(last_word)
}

/// Where the value of an outside entry is; the entry must have been written before.
pub(super) fn outside_index(slab: &Slab, at: ChunkRef) -> u32 {
    Meta::read(slab, at).outside_index(slab.chunk(at))
}

pub(super) fn set_outside_index(slab: &mut Slab, at: ChunkRef, index: u32) {
    let offset = Meta::read(slab, at).value_offset();
    slab.write(at, offset, &index.to_le_bytes());
}

pub(super) fn set_version(slab: &mut Slab, at: ChunkRef, version: Version) {
    slab.set_word(at, VERSION_WORD, version.as_u64());
}

pub(super) fn set_expiry(slab: &mut Slab, at: ChunkRef, expires_ms: u64) {
    slab.set_word(at, EXPIRY_WORD, expires_ms);
}

pub(super) fn expiry(slab: &Slab, at: ChunkRef) -> u64 {
    slab.word(at, EXPIRY_WORD)
}

/// A pair of links of a doubly linked list.
#[derive(Clone, Copy)]
pub(super) struct Links {
    pub prev: ChunkRef,
    pub next: ChunkRef,
}

/// Which of an entry's two pairs of links.
#[derive(Clone, Copy)]
pub(super) enum Chain {
    Queue,
    Timer,
}

impl Chain {
    fn word(self) -> usize {
        match self {
            Self::Queue => LINKS_WORD,
            Self::Timer => TIMER_WORD,
        }
    }
}

impl Links {
    #[expect(clippy::cast_possible_truncation, reason = "each half of the word is a link")]
    pub(super) fn read(slab: &Slab, at: ChunkRef, chain: Chain) -> Self {
        let word = slab.word(at, chain.word());
        Self { prev: ChunkRef::from_raw(word as u32), next: ChunkRef::from_raw((word >> 32) as u32) }
    }

    pub(super) fn write(self, slab: &mut Slab, at: ChunkRef, chain: Chain) {
        slab.set_word(at, chain.word(), u64::from(self.prev.raw()) | u64::from(self.next.raw()) << 32);
    }
}
