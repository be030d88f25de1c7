//! Values that say whose they are: every byte is covered by a checksum, so that a damaged, cut or foreign value is found.
//!
//! Layout, little endian: XXH3-64 of all that follows, a mark, the run, the key's index, the write's number, and filling.

use bytes::{BufMut as _, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of the shortest such value.
pub const MIN_BYTES: usize = 5 * size_of::<u64>();

/// Bytes of the checksum.
const SUM: usize = size_of::<u64>();

/// What such values begin with, after the checksum.
const MARK: u64 = u64::from_le_bytes(*b"larder-1");

/// Whose a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run that stored it.
    pub run: u64,
    pub key: u64,
    /// Of the write.
    pub number: u64,
}

/// Why a value is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it has {0} bytes, fewer than any that was stored")]
    Short(usize),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("somebody else stored it")]
    Foreign,
}

/// Makes a value of so many bytes, at least [`MIN_BYTES`].
pub fn encode(stamp: Stamp, bytes: usize) -> Bytes {
    let bytes = bytes.max(MIN_BYTES);
    let mut value = BytesMut::with_capacity(bytes + SUM);
    value.put_u64_le(0);
    for word in [MARK, stamp.run, stamp.key, stamp.number] {
        value.put_u64_le(word);
    }
    // Weyl's sequence: neighbouring values differ everywhere, so that a mixture of two is found.
    let mut filling = stamp.key ^ stamp.number;
    while value.len() < bytes {
        filling = filling.wrapping_add(0x9e37_79b9_7f4a_7c15);
        value.put_u64_le(filling);
    }
    value.truncate(bytes);
    let sum = xxh3_64(&value[SUM..]);
    value[..SUM].copy_from_slice(&sum.to_le_bytes());
    value.freeze()
}

/// Reads a value.
pub fn decode(value: &[u8]) -> Result<Stamp, Damage> {
    let (words, _) = value.as_chunks::<SUM>();
    let [sum, mark, run, key, number, ..] = *words else { return Err(Damage::Short(value.len())) };
    if u64::from_le_bytes(sum) != xxh3_64(&value[SUM..]) {
        return Err(if u64::from_le_bytes(mark) == MARK { Damage::Checksum } else { Damage::Foreign });
    }
    if u64::from_le_bytes(mark) != MARK {
        return Err(Damage::Foreign);
    }
    let [run, key, number] = [run, key, number].map(u64::from_le_bytes);
    Ok(Stamp { run, key, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 7, key: 41, number: 3 };

    #[test]
    fn a_value_says_whose_it_is() {
        for bytes in [0, MIN_BYTES, MIN_BYTES + 1, 1024, 100_003] {
            let value = encode(STAMP, bytes);
            assert_eq!(value.len(), bytes.max(MIN_BYTES));
            assert_eq!(decode(&value), Ok(STAMP));
        }
    }

    #[test]
    fn every_damage_is_found() {
        let value = encode(STAMP, 100);
        for at in 0..value.len() {
            let mut damaged = value.to_vec();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&value[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(decode(&value[..MIN_BYTES - 1]), Err(Damage::Short(MIN_BYTES - 1)));
        assert_eq!(decode(&[b'x'; 64]), Err(Damage::Foreign));
        assert!(decode(&[value.as_ref(), b"x"].concat()).is_err());
    }
}
