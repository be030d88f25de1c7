//! Pieces of a request as its client encoded it. What goes on to another replica is not encoded again, so that a value is
//! not copied for that.
//!
//! A message that is well-formed and unusual (a field that is there twice, which means both of them merged) is not read here:
//! its caller encodes it anew.

use bytes::{Buf as _, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The messages of a repeated field with number 1, one after the other: the items of a batch or of a message of a pipeline.
#[derive(Debug, Default)]
pub struct Messages(Bytes);

impl Messages {
    #[must_use]
    pub fn of(message: Bytes) -> Self {
        Self(message)
    }
}

impl Iterator for Messages {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.0.has_remaining() {
            if let Field::Message(1, message) = field(&mut self.0)? {
                return Some(message);
            }
        }
        None
    }
}

/// The one message among the fields `tags` of an item; none if there are several, or none.
#[must_use]
pub fn operation(item: &Bytes, tags: std::ops::RangeInclusive<u32>) -> Option<Bytes> {
    let mut item = item.clone();
    let mut found = None;
    while item.has_remaining() {
        if let Field::Message(tag, message) = field(&mut item)?
            && tags.contains(&tag)
            && found.replace(message).is_some()
        {
            return None;
        }
    }
    found
}

/// The first field of a message and nothing else, if it is number 1; else the whole message.
pub(super) fn first_field(message: &Bytes) -> Bytes {
    let mut rest = message.clone();
    match field(&mut rest) {
        Some(Field::Message(1, _)) => message.slice(..message.len() - rest.len()),
        _ => message.clone(),
    }
}

/// A field of a message.
enum Field {
    /// Its number and content.
    Message(u32, Bytes),
    Number,
}

/// Takes the next field; none if it cannot be read.
fn field(message: &mut Bytes) -> Option<Field> {
    let (tag, wire_type) = decode_key(message).ok()?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, message, DecodeContext::default()).ok()?;
        return Some(Field::Number);
    }
    let length = usize::try_from(decode_varint(message).ok()?).ok()?;
    (length <= message.len()).then(|| Field::Message(tag, message.split_to(length)))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::rpc::proto::v1;

    fn item(key: &str) -> v1::BatchGetItem {
        let context = Some(v1::CallContext { timeout_ms: 7, ..Default::default() });
        v1::BatchGetItem { get: Some(v1::GetRequest { key: key.into() }), context }
    }

    #[test]
    fn items_come_as_they_were_encoded() {
        let request = v1::BatchGetRequest { items: vec![item("a"), item("b")] };
        let raw: Vec<Bytes> = Messages::of(request.encode_to_vec().into()).collect();
        assert_eq!(raw, [item("a").encode_to_vec(), item("b").encode_to_vec()]);
        let get = operation(&raw[1], 1..=1).unwrap();
        assert_eq!(get, v1::GetRequest { key: "b".into() }.encode_to_vec());
        assert_eq!(operation(&raw[1], 3..=7), None);
    }

    #[test]
    fn an_operation_that_is_there_twice_is_left_to_the_decoder() {
        let twice = [item("a").encode_to_vec(), item("b").encode_to_vec()].concat();
        assert_eq!(operation(&twice.into(), 1..=1), None);
        assert_eq!(operation(&Bytes::from_static(b"\x0a\x05k"), 1..=1), None);
    }

    #[test]
    fn the_key_is_read_without_the_value() {
        let store = v1::StoreRequest { key: "k".into(), val: vec![7; 1000].into(), ..Default::default() };
        let first = first_field(&store.encode_to_vec().into());
        assert_eq!(v1::GetRequest::decode(first).unwrap(), v1::GetRequest { key: "k".into() });
    }
}
