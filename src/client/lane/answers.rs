//! How the answers of a pipeline are read: by hand, because this is every call's way. Fields that are not known are skipped.

use bytes::{Buf, Bytes};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::super::operation::Answer;
use super::super::values::{Counted, Entry, Touched, duration};
use crate::rpc::failure::Failure;
use crate::rpc::fields::error::USER_ERROR_CODE;
use crate::rpc::fields::pipeline_response::{DRAIN, RESULTS, TOPOLOGY};
use crate::rpc::fields::pipeline_result::{DELETE, ERROR, GET, ID, INCREMENT, STORE, TOUCH};
use crate::rpc::proto::v1;
use crate::rpc::status::failure_of_error;

/// A value is shared with the message in which it came if it is at least this part of it; else it is copied, so that one
/// small value that a program keeps does not keep the whole message.
const SHARED_PART: usize = 4;

/// What a message says beside its results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) drains: bool,
    /// 0: nothing.
    pub(super) topology: u64,
}

/// Reads a `PipelineResponse`; hands over each result.
///
/// # Errors
/// When it is none.
pub(super) fn read(mut message: Bytes, mut result: impl FnMut(u64, Answer)) -> Result<Said, Malformed> {
    let whole = message.len();
    let mut said = Said::default();
    while message.has_remaining() {
        match field(&mut message)? {
            (RESULTS, Content::Nested(content)) => {
                if let Some((id, answer)) = read_result(content, whole)? {
                    result(id, answer);
                }
            }
            (DRAIN, Content::Nested(_)) => said.drains = true,
            (TOPOLOGY, Content::Fixed(digest)) => said.topology = digest,
            _ => {}
        }
    }
    Ok(said)
}

/// Bytes that are no answer.
#[derive(Debug)]
pub(super) struct Malformed;

enum Content {
    Number(u64),
    Fixed(u64),
    Nested(Bytes),
    Other,
}

/// Takes a field.
fn field(buffer: &mut Bytes) -> Result<(u32, Content), Malformed> {
    let (tag, wire_type) = decode_key(buffer).map_err(|_| Malformed)?;
    let content = match wire_type {
        WireType::Varint => Content::Number(decode_varint(buffer).map_err(|_| Malformed)?),
        WireType::LengthDelimited => {
            let length = decode_varint(buffer).map_err(|_| Malformed)?;
            let length =
                usize::try_from(length).ok().filter(|length| *length <= buffer.remaining()).ok_or(Malformed)?;
            Content::Nested(buffer.split_to(length))
        }
        WireType::SixtyFourBit => Content::Fixed(buffer.try_get_u64_le().map_err(|_| Malformed)?),
        other => {
            skip_field(other, tag, buffer, DecodeContext::default()).map_err(|_| Malformed)?;
            Content::Other
        }
    };
    Ok((tag, content))
}

/// A `PipelineResult`; `None` if it has no id, or a result that this client does not know.
fn read_result(mut result: Bytes, whole: usize) -> Result<Option<(u64, Answer)>, Malformed> {
    let (mut id, mut answer) = (0, None);
    while result.has_remaining() {
        match field(&mut result)? {
            (ID, Content::Number(number)) => id = number,
            (kind @ GET..=ERROR, Content::Nested(content)) => answer = Some(read_answer(kind, content, whole)?),
            _ => {}
        }
    }
    Ok(answer.filter(|_| id != 0).map(|answer| (id, answer)))
}

fn read_answer(kind: u32, mut content: Bytes, whole: usize) -> Result<Answer, Malformed> {
    if kind == ERROR {
        if is_miss(content.clone())? {
            return Ok(Answer::Failed(Failure::NotFound));
        }
        let error = v1::Error::decode(content).map_err(|_| Malformed)?;
        return Ok(Answer::Failed(failure_of_error(&error)));
    }
    let mut value = Bytes::new();
    let mut numbers = [0; 4];
    while content.has_remaining() {
        match field(&mut content)? {
            (1, Content::Nested(bytes)) => value = bytes,
            (tag @ 1..=3, Content::Number(number)) => numbers[tag as usize] = number,
            _ => {}
        }
    }
    let [_, first, second, third] = numbers;
    Ok(match kind {
        GET => {
            let value = if value.len() * SHARED_PART >= whole { value } else { Bytes::copy_from_slice(&value) };
            Answer::Get(Entry { value, version: second, remaining_ttl: duration(third) })
        }
        STORE => Answer::Store(first),
        DELETE => Answer::Delete(first != 0),
        TOUCH => Answer::Touch(Touched { remaining_ttl: duration(first), version: second, changed: third != 0 }),
        INCREMENT => Answer::Increment(Counted { value: first.cast_signed(), version: second }),
        _ => Answer::Failed(Failure::Malformed("an answer of no kind that this client knows".to_owned())),
    })
}

/// Whether an error is a cache's most common answer, which is worth no texts.
fn is_miss(mut error: Bytes) -> Result<bool, Malformed> {
    while error.has_remaining() {
        if let (USER_ERROR_CODE, Content::Number(number)) = field(&mut error)? {
            return Ok(number.cast_signed() == Failure::NotFound.user_error_code());
        }
    }
    Ok(false)
}

impl Answer {
    /// The answer of the unary call that asked for the same kind of thing.
    pub(in crate::client) fn of_unary(asked: &super::super::operation::Operation<'_>, message: Bytes) -> Self {
        use super::super::operation::Operation as Asked;
        let kind = match asked {
            Asked::Get { .. } => GET,
            Asked::Store { .. } => STORE,
            Asked::Delete { .. } => DELETE,
            Asked::Touch { .. } => TOUCH,
            Asked::Increment { .. } => INCREMENT,
        };
        let whole = message.len();
        let malformed = |_| Self::Failed(Failure::Malformed("the answer cannot be read".to_owned()));
        read_answer(kind, message, whole).unwrap_or_else(malformed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rpc::proto::v1::pipeline_result::Result as Theirs;
    use crate::rpc::status::to_error;

    fn entry(value: &'static [u8]) -> Answer {
        Answer::Get(Entry {
            value: Bytes::from_static(value),
            version: 7,
            remaining_ttl: Some(Duration::from_millis(9)),
        })
    }

    #[test]
    fn answers_are_read_as_prost_writes_them() {
        let got = v1::GetResponse { val: Bytes::from_static(b"v"), version: 7, remaining_ttl_ms: 9 };
        let touched = v1::TouchResponse { remaining_ttl_ms: 0, version: 8, changed: true };
        let missing = Failure::NotFound;
        let table = [
            (Theirs::Get(got), entry(b"v")),
            (Theirs::Store(v1::StoreResponse { version: 1 << 60 }), Answer::Store(1 << 60)),
            (Theirs::Delete(v1::DeleteResponse { existed: false }), Answer::Delete(false)),
            (Theirs::Touch(touched), Answer::Touch(Touched { remaining_ttl: None, version: 8, changed: true })),
            (
                Theirs::Increment(v1::IncrementResponse { value: -3, version: 4 }),
                Answer::Increment(Counted { value: -3, version: 4 }),
            ),
            (Theirs::Error(to_error(&missing)), Answer::Failed(missing)),
        ];
        let (results, expected): (Vec<_>, Vec<_>) = (5_u64..)
            .zip(table)
            .map(|(id, (theirs, ours))| (v1::PipelineResult { id, result: Some(theirs) }, (id, ours)))
            .unzip();
        let message = v1::PipelineResponse { results, drain: Some(v1::Drain {}), topology: 77 };
        let mut came = Vec::new();
        let said = read(message.encode_to_vec().into(), |id, answer| came.push((id, answer)));
        assert!(matches!(said, Ok(Said { drains: true, topology: 77 })));
        assert_eq!(came, expected);
    }

    #[test]
    fn what_is_cut_off_anywhere_is_no_answer_and_no_panic() {
        let result = Some(Theirs::Store(v1::StoreResponse { version: 300 }));
        let whole = v1::PipelineResponse { results: vec![v1::PipelineResult { id: 1, result }], ..Default::default() };
        let bytes = Bytes::from(whole.encode_to_vec());
        for end in 1..bytes.len() {
            assert!(read(bytes.slice(..end), |_, _| {}).is_err(), "{end}");
        }
    }

    #[test]
    fn a_small_value_does_not_keep_a_large_message() {
        let result = |id, length| {
            let got = v1::GetResponse { val: vec![1; length].into(), ..Default::default() };
            v1::PipelineResult { id, result: Some(Theirs::Get(got)) }
        };
        let message = v1::PipelineResponse { results: vec![result(1, 10), result(2, 5000)], ..Default::default() };
        let bytes = Bytes::from(message.encode_to_vec());
        let range = bytes.as_ptr_range();
        let mut shared = Vec::new();
        let read = read(bytes.clone(), |_, answer| {
            let Answer::Get(entry) = answer else { return };
            shared.push(range.contains(&entry.value.as_ptr()));
        });
        assert!(read.is_ok());
        assert_eq!(shared, [false, true]);
    }
}
