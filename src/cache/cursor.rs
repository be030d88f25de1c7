//! A place in the order of a dump: right after one entry.
//!
//! The order is that of the route hash, then the key; it is the same at every replica, so a cursor works at any of them, and
//! an entry that exists all the while is met exactly once however the store grows. On the wire a cursor is opaque:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the encoding's version, 1 |
//! | 8 | route hash, big endian |
//! | 0 to 4,096 | the key; empty: right before the first key of this hash |
//! | 4 | the low half of the XXH64 (seed 0) of all before, big endian: tells a cursor from a mistake, not from a forgery |

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh64::xxh64;

use super::limits::MAX_KEY_BYTES;

/// The only encoding so far.
const ENCODING: u8 = 1;

/// Bytes of a cursor beside its key.
const FRAME_BYTES: usize = 1 + 8 + 4;

/// A place right after the entry with this route hash and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    hash: u64,
    key: Box<str>,
}

/// Why bytes are no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one of Larder's; use the `cursor` of an item as it came")]
pub struct CursorError;

impl Cursor {
    pub(super) fn after(hash: u64, key: &str) -> Self {
        Self { hash, key: key.into() }
    }

    /// Right before the first entry with this route hash.
    pub(super) fn before_hash(hash: u64) -> Self {
        Self { hash, key: "".into() }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Opaque bytes for the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(FRAME_BYTES + self.key.len());
        bytes.put_u8(ENCODING);
        bytes.put_u64(self.hash);
        bytes.put_slice(self.key.as_bytes());
        let check = checksum(&bytes);
        bytes.put_u32(check);
        bytes.freeze()
    }

    /// Reads what [`Self::to_bytes`] wrote, at this replica or another.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CursorError> {
        let (content, check) = bytes.split_last_chunk::<4>().ok_or(CursorError)?;
        let (&[encoding], rest) = content.split_first_chunk::<1>().ok_or(CursorError)?;
        let (&hash, key) = rest.split_first_chunk::<8>().ok_or(CursorError)?;
        if encoding != ENCODING || key.len() > MAX_KEY_BYTES || u32::from_be_bytes(*check) != checksum(content) {
            return Err(CursorError);
        }
        let key = std::str::from_utf8(key).map_err(|_| CursorError)?;
        Ok(Self::after(u64::from_be_bytes(hash), key))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn checksum(bytes: &[u8]) -> u32 {
    xxh64(bytes, 0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        for cursor in
            [Cursor::after(u64::MAX, "ä key"), Cursor::before_hash(0), Cursor::after(7, &"k".repeat(MAX_KEY_BYTES))]
        {
            assert_eq!(Cursor::from_bytes(&cursor.to_bytes()), Ok(cursor));
        }
    }

    #[test]
    fn one_changed_bit_makes_it_no_cursor() {
        let good = Cursor::after(0x0123_4567_89AB_CDEF, "key").to_bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Cursor::from_bytes(&bad), Err(CursorError), "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(Cursor::from_bytes(&good[..length]), Err(CursorError), "length {length}");
        }
    }
}
