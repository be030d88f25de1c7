//! A copy as it is lent, still in the store, and the pieces of a message that copies are written into.

use bytes::{Bytes, BytesMut};

use crate::cache::key::AccountId;
use crate::cache::quota::{Budget, Tenant};
use crate::cache::store::counter::Remembered;
use crate::cache::store::entry::EntryRef;
use crate::cache::store::member::{Carried, RememberedRequest};
use crate::cache::store::shard::Shard;
use crate::cache::version::{Now, Version};

/// Bytes from which a value is shared and not copied: a piece more costs less than the copy.
const SHARED_FROM_BYTES: usize = 16 * 1024;

/// How a copy is written into a message. The store does not know: that is the wire's business.
pub type WriteCopy = fn(&Lent<'_>, Now, &mut Pieces);

/// An entry or tombstone under its shard's lock.
pub struct Lent<'a> {
    pub space: &'a AccountId,
    /// Bytes of UTF-8.
    pub key: &'a [u8],
    pub version: Version,
    /// `None`: a tombstone.
    pub value: Option<LentValue<'a>>,
}

/// What goes with a value. See [`Carried`].
pub struct LentValue<'a> {
    source: Source<'a>,
    pub expires_ms: Option<u64>,
    pub payer: Option<&'a AccountId>,
    pub budget: Option<Budget>,
    pub requests: Vec<RememberedRequest>,
}

enum Source<'a> {
    Entry(EntryRef<'a>),
    #[cfg(test)]
    Bytes(&'a Bytes),
}

/// What is written: one buffer, and between its parts large values that are shared with the store.
#[derive(Debug, Default)]
pub struct Pieces {
    closed: Vec<Bytes>,
    open: BytesMut,
}

impl<'a> LentValue<'a> {
    /// One whose time is over is a tombstone (rule 10).
    pub(in crate::cache::store) fn of(shard: &'a Shard, entry: EntryRef<'a>, now: Now) -> Option<Self> {
        if entry.meta().is_tombstone() || entry.is_expired(now) {
            return None;
        }
        let requests = entry.outside().and_then(|outside| outside.requests.as_deref());
        let payer = shard.charged(&entry);
        let other = payer.filter(|payer| payer.slot() != entry.meta().space_slot());
        Some(Self {
            source: Source::Entry(entry),
            expires_ms: entry.expires_ms(),
            payer: payer.map(Tenant::id),
            budget: other.and_then(Tenant::known_budget),
            requests: requests.map(Remembered::list).unwrap_or_default(),
        })
    }

    /// For tests of what is written.
    #[cfg(test)]
    pub(crate) fn of_carried(carried: &'a Carried) -> Self {
        Self {
            source: Source::Bytes(&carried.value),
            expires_ms: carried.expires_ms,
            payer: carried.payer.as_ref(),
            budget: carried.budget,
            requests: carried.requests.clone(),
        }
    }

    /// Bytes of the value itself.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks that")]
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Entry(entry) => entry.value_len(),
            #[cfg(test)]
            Source::Bytes(bytes) => bytes.len(),
        }
    }

    pub(super) fn into_carried(self) -> Carried {
        Carried {
            value: self.shared(),
            expires_ms: self.expires_ms,
            payer: self.payer.cloned(),
            budget: self.budget,
            requests: self.requests,
        }
    }

    fn shared(&self) -> Bytes {
        match &self.source {
            Source::Entry(entry) => entry.value(),
            #[cfg(test)]
            Source::Bytes(bytes) => Bytes::clone(bytes),
        }
    }
}

impl Pieces {
    /// Room for so many bytes in one buffer: the one of what was written before, if nobody has that any more.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.open.reserve(bytes);
    }

    /// Where to write.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.open
    }

    /// Appends a value.
    pub fn put_value(&mut self, value: &LentValue<'_>) {
        if value.len() >= SHARED_FROM_BYTES {
            let before = self.open.split();
            self.closed.extend([before.freeze(), value.shared()]);
            return;
        }
        match &value.source {
            Source::Entry(entry) => entry.copy_value_to(&mut self.open),
            #[cfg(test)]
            Source::Bytes(bytes) => self.open.extend_from_slice(bytes),
        }
    }

    /// All that was written, in order.
    pub fn finish(&mut self) -> Vec<Bytes> {
        let mut pieces = std::mem::take(&mut self.closed);
        let last = self.open.split().freeze();
        pieces.extend(Some(last).filter(|last| !last.is_empty()));
        pieces
    }
}
