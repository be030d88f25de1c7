//! Pieces of messages that are written by hand, because they are on every call's way: gRPC's five-byte prefix, and protobuf's
//! fields. What prost writes of the same message has the same bytes.

use bytes::{BufMut as _, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// Bytes before a message: a flag and the length.
pub const PREFIX_BYTES: usize = 5;

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
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

/// Appends a number field, unless it is 0.
pub fn put_number(tag: u32, number: u64, buffer: &mut BytesMut) {
    if number != 0 {
        encode_key(tag, WireType::Varint, buffer);
        encode_varint(number, buffer);
    }
}
