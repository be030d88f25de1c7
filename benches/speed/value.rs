//! The keys and values that every peer is given, and the check that an answer carries the right one.

use bytes::{BufMut, Bytes, BytesMut};

/// How many bytes of a value name its key; the rest is a pattern.
const INDEX_BYTES: usize = 8;

/// Keys walk in this stride, a prime, so that neighbours in time are not neighbours in the table.
const STRIDE: usize = 7_919;

/// A set of keys, each with a value of the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    pub keys: usize,
    pub bytes: usize,
}

impl Values {
    /// The key with this index; the size is part of it, so that two sets may be stored in one server.
    pub fn key(self, index: usize) -> String {
        format!("speed/{}/{index:06}", self.bytes)
    }

    /// The value of the key with this index.
    pub fn value(self, index: usize) -> Bytes {
        let mut value = BytesMut::with_capacity(self.bytes);
        value.put_u64(index as u64);
        value.extend((INDEX_BYTES..self.bytes).map(pattern));
        value.freeze()
    }

    /// Where a caller goes on after this index.
    pub fn next(self, index: usize) -> usize {
        (index + STRIDE) % self.keys
    }

    /// Checks the length, the index and a sample of the pattern. The no-op peers answer every key with the value of index 0.
    pub fn check(self, index: usize, constant: bool, value: &[u8]) -> Result<(), String> {
        let index = if constant { 0 } else { index };
        if value.len() != self.bytes {
            return Err(format!("{} has {} bytes, not {}", self.key(index), value.len(), self.bytes));
        }
        let sample = [self.bytes / 3, self.bytes / 2, self.bytes - 1];
        if value[..INDEX_BYTES] != (index as u64).to_be_bytes()
            || sample.into_iter().any(|at| at >= INDEX_BYTES && value[at] != pattern(at))
        {
            return Err(format!("{} has the value of another key", self.key(index)));
        }
        Ok(())
    }
}

fn pattern(at: usize) -> u8 {
    u8::try_from(at * 31 % 251).unwrap_or_default()
}
