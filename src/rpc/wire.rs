//! Pieces of messages that are written by hand, because they are on every call's way: gRPC's five-byte prefix, and protobuf's
//! fields. What prost writes of the same message has the same bytes.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encoded_len_varint, key_len};

/// Bytes before a message: a flag and the length.
pub const PREFIX_BYTES: usize = 5;

/// Bytes of one varint at most.
const VARINT_BYTES: usize = 10;

/// Varints that one [`Heads`] takes at most.
const MAX_VARINTS: usize = 6;

/// Keys, lengths and numbers of fields, gathered and appended in one piece: byte by byte, each would ask the buffer for room.
struct Heads {
    bytes: [u8; MAX_VARINTS * VARINT_BYTES],
    length: usize,
}

/// Appends a frame's prefix. Messages are bounded far below 4 GiB.
pub fn put_prefix(length: usize, buffer: &mut BytesMut) {
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// Bytes of a bytes, text or message field; 0 if it is empty and therefore left out.
#[must_use]
pub fn bytes_len(tag: u32, length: usize) -> usize {
    if length == 0 { 0 } else { nested_len(tag, length) }
}

/// Bytes of a message field that is there although it is empty.
#[must_use]
pub fn nested_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

/// Bytes of a number field; 0 if it is 0 and therefore left out.
#[must_use]
pub fn number_len(tag: u32, number: u64) -> usize {
    if number == 0 { 0 } else { key_len(tag) + encoded_len_varint(number) }
}

/// Appends a bytes or text field, unless it is empty.
pub fn put_bytes(tag: u32, bytes: &[u8], buffer: &mut BytesMut) {
    if !bytes.is_empty() {
        put_nested(tag, bytes.len(), buffer);
        buffer.put_slice(bytes);
    }
}

/// Appends the head of a message field; its content must follow.
pub fn put_nested(tag: u32, length: usize, buffer: &mut BytesMut) {
    let mut heads = Heads::new();
    heads.nested(tag, length);
    heads.put(buffer);
}

/// Appends the heads of a message field whose first field is a number and whose second is a message, and that number: what
/// stands before the content of a result.
pub fn put_numbered(tag: u32, length: usize, number: (u32, u64), nested: (u32, usize), buffer: &mut BytesMut) {
    let mut heads = Heads::new();
    heads.nested(tag, length);
    heads.number(number.0, number.1);
    heads.nested(nested.0, nested.1);
    heads.put(buffer);
}

/// Appends a number field, unless it is 0.
pub fn put_number(tag: u32, number: u64, buffer: &mut BytesMut) {
    put_numbers([(tag, number)], buffer);
}

/// Appends number fields, each unless it is 0.
pub fn put_numbers<const N: usize>(numbers: [(u32, u64); N], buffer: &mut BytesMut) {
    const { assert!(2 * N <= MAX_VARINTS, "a key and a number each") };
    let mut heads = Heads::new();
    for (tag, number) in numbers {
        heads.number(tag, number);
    }
    heads.put(buffer);
}

/// A message as a frame.
#[must_use]
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    put_frame_of(length, message, &mut frame);
    frame.freeze()
}

/// Appends a message as a frame.
pub fn put_frame(message: &impl Message, buffer: &mut BytesMut) {
    put_frame_of(message.encoded_len(), message, buffer);
}

fn put_frame_of(length: usize, message: &impl Message, buffer: &mut BytesMut) {
    put_prefix(length, buffer);
    buffer.reserve(length);
    // A growing buffer has room for every message.
    let _ = message.encode(buffer);
}

impl Heads {
    fn new() -> Self {
        Self { bytes: [0; MAX_VARINTS * VARINT_BYTES], length: 0 }
    }

    fn nested(&mut self, tag: u32, length: usize) {
        self.key(tag, WireType::LengthDelimited);
        self.varint(length as u64);
    }

    fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.key(tag, WireType::Varint);
            self.varint(number);
        }
    }

    fn key(&mut self, tag: u32, wire_type: WireType) {
        self.varint(u64::from(tag << 3 | wire_type as u32));
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number | 0x80);
            number >>= 7;
        }
        self.byte(number);
    }

    #[expect(clippy::cast_possible_truncation, reason = "the rest of the number comes in the bytes after it")]
    fn byte(&mut self, byte: u64) {
        self.bytes[self.length] = byte as u8;
        self.length += 1;
    }

    fn put(&self, buffer: &mut BytesMut) {
        buffer.put_slice(&self.bytes[..self.length]);
    }
}

#[cfg(test)]
mod tests {
    use prost::encoding::{encode_key, encode_varint};

    use super::*;

    #[test]
    fn numbers_of_all_lengths_are_written_as_prost_writes_them() {
        for number in (0..64).map(|bits| u64::MAX >> bits).chain([1, 127, 128, 300]) {
            for tag in [1, 15, 16, 536_870_911] {
                let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
                put_numbers([(tag, number), (1, 0), (2, number)], &mut ours);
                for tag in [tag, 2] {
                    encode_key(tag, WireType::Varint, &mut theirs);
                    encode_varint(number, &mut theirs);
                }
                assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn the_heads_of_a_result_are_what_they_are_one_by_one() {
        let (mut whole, mut parts) = (BytesMut::new(), BytesMut::new());
        put_numbered(1, 70_000, (1, u64::MAX), (2, 69_000), &mut whole);
        put_nested(1, 70_000, &mut parts);
        put_number(1, u64::MAX, &mut parts);
        put_nested(2, 69_000, &mut parts);
        assert_eq!(whole, parts);
    }
}
