//! Writes answers. Values are copied once, from the store's memory into the buffer that goes to the socket, so the messages
//! that carry values are encoded by hand; the rest by prost.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::PREFIX_BYTES;
use crate::cache::store::EntryRef;
use crate::cache::version::Now;
pub use crate::rpc::wire::{
    bytes_len, frame, nested_len, number_len, put_bytes, put_frame, put_nested, put_number, put_numbered, put_numbers,
    put_prefix,
};

/// Field numbers of `GetResponse` and `DumpItem`.
const VAL: u32 = 1;
const VERSION: u32 = 2;
const REMAINING_TTL_MS: u32 = 3;

/// Bytes from which a value is copied after its shard's lock and not under it: it is shared with the store meanwhile.
const SHARED_FROM_BYTES: usize = 64 * 1024;

/// A `GetResponse` that is still in the store. The tutorial's `GetResp` is its first field alone.
pub struct Value<'a> {
    source: Source<'a>,
    version: u64,
    remaining_ttl_ms: u64,
}

enum Source<'a> {
    /// Under the lock.
    Entry(&'a EntryRef<'a>),
    /// After it.
    Shared(Bytes),
}

impl<'a> Value<'a> {
    #[must_use]
    pub fn new(entry: &'a EntryRef<'a>, now: Now) -> Self {
        let remaining_ttl_ms = entry.remaining_ttl_ms(now).unwrap_or(0);
        Self { source: Source::Entry(entry), version: entry.version().as_u64(), remaining_ttl_ms }
    }

    /// The same without version and time to live.
    #[must_use]
    pub fn bare(entry: &'a EntryRef<'a>) -> Self {
        Self { source: Source::Entry(entry), version: 0, remaining_ttl_ms: 0 }
    }

    /// Uses the value under the lock if it is small; a large one is handed back, to be used after the lock.
    pub fn use_or_share<R>(self, put: &mut Option<impl FnOnce(&Value<'_>) -> R>) -> Used<R> {
        match self.source {
            Source::Entry(entry) if self.len() >= SHARED_FROM_BYTES => {
                Used::Later(Value { source: Source::Shared(entry.value()), ..self })
            }
            _ => Used::Now(put.take().map(|put| put(&self))),
        }
    }

    fn len(&self) -> usize {
        match &self.source {
            Source::Entry(entry) => entry.value_len(),
            Source::Shared(value) => value.len(),
        }
    }

    /// Bytes of the encoded message.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        bytes_len(VAL, self.len())
            + number_len(VERSION, self.version)
            + number_len(REMAINING_TTL_MS, self.remaining_ttl_ms)
    }

    /// Appends the message.
    pub fn encode(&self, buffer: &mut BytesMut) {
        let length = self.len();
        if length > 0 {
            put_nested(VAL, length, buffer);
            match &self.source {
                Source::Entry(entry) => entry.copy_value_to(buffer),
                Source::Shared(value) => buffer.put_slice(value),
            }
        }
        put_numbers([(VERSION, self.version), (REMAINING_TTL_MS, self.remaining_ttl_ms)], buffer);
    }

    /// The message as a frame of its own.
    #[must_use]
    pub fn to_frame(&self) -> Bytes {
        let length = self.encoded_len();
        let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
        put_prefix(length, &mut frame);
        self.encode(&mut frame);
        frame.freeze()
    }
}

/// What came of a value under its shard's lock.
pub enum Used<R> {
    Now(Option<R>),
    Later(Value<'static>),
}

impl<R> Used<R> {
    /// What comes of it now that the lock is gone. `put` is the same as before; it is called once in all.
    pub fn finish(self, put: &mut Option<impl FnOnce(&Value<'_>) -> R>) -> Option<R> {
        match self {
            Self::Now(done) => done,
            Self::Later(value) => put.take().map(|put| put(&value)),
        }
    }
}
