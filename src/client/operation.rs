//! One operation on one key, and how it is written: alone, or as a call in a pipeline. By hand, straight into the message
//! that goes out next, because this is every call's way; the same bytes as prost would write.

use bytes::{Bytes, BytesMut};

use super::values::{Condition, Counted, Entry, Touch, Touched};
use crate::rpc::failure::Failure;
use crate::rpc::fields::call_context::{DRY_RUN, TIMEOUT_MS, TRACEPARENT, TRACESTATE};
use crate::rpc::fields::pipeline_call::{CONTEXT, DELETE, GET, ID, INCREMENT, STORE, TOUCH};
use crate::rpc::fields::pipeline_request::CALLS;
use crate::rpc::proto::v1::StoreCondition;
use crate::rpc::wire::{bytes_len, nested_len, number_len, put_bytes, put_nested, put_number};

/// What a call does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation<'a> {
    Get { key: &'a str },
    Store { key: &'a str, value: &'a Bytes, ttl_ms: u64, condition: Condition },
    Delete { key: &'a str, if_version: u64 },
    Touch { key: &'a str, ttl_ms: u64, mode: Touch },
    Increment { key: &'a str, delta: i64, request_id: &'a str, ttl_ms: u64 },
}

/// What it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Get(Entry),
    Store(u64),
    Delete(bool),
    Touch(Touched),
    Increment(Counted),
    Failed(Failure),
}

/// What a call in a pipeline has of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context<'a> {
    pub(super) timeout_ms: u64,
    pub(super) dry_run: bool,
    pub(super) traceparent: &'a str,
    pub(super) tracestate: &'a str,
}

/// The number fields of a request, each with its tag; what is 0 is left out.
type Numbers = [(u32, u64); 3];

impl<'a> Operation<'a> {
    pub(super) fn key(&self) -> &'a str {
        match self {
            Self::Get { key }
            | Self::Store { key, .. }
            | Self::Delete { key, .. }
            | Self::Touch { key, .. }
            | Self::Increment { key, .. } => key,
        }
    }

    /// Its method's name, as traces and metrics have it.
    pub(super) fn method(&self) -> &'static str {
        self.path().trim_start_matches('/')
    }

    /// The path of the unary method that does it.
    pub(super) const fn path(&self) -> &'static str {
        match self {
            Self::Get { .. } => "/larder.v1.Cache/Get",
            Self::Store { .. } => "/larder.v1.Cache/Store",
            Self::Delete { .. } => "/larder.v1.Cache/Delete",
            Self::Touch { .. } => "/larder.v1.Cache/Touch",
            Self::Increment { .. } => "/larder.v1.Cache/Increment",
        }
    }

    /// Whether it may run twice. What it is when nothing is changed is the caller's affair.
    pub(super) fn is_idempotent(&self) -> bool {
        match self {
            Self::Get { .. } => true,
            Self::Store { condition, .. } => *condition == Condition::Always,
            Self::Delete { if_version, .. } => *if_version == 0,
            Self::Touch { mode, .. } => *mode == Touch::Overwrite,
            Self::Increment { request_id, .. } => !request_id.is_empty(),
        }
    }

    /// Whether it changes nothing.
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. })
    }

    /// Bytes of what is not small about it.
    pub(super) fn value_bytes(&self) -> usize {
        if let Self::Store { value, .. } = self { value.len() } else { 0 }
    }

    /// The field of `PipelineCall` that it is.
    fn tag(&self) -> u32 {
        match self {
            Self::Get { .. } => GET,
            Self::Store { .. } => STORE,
            Self::Delete { .. } => DELETE,
            Self::Touch { .. } => TOUCH,
            Self::Increment { .. } => INCREMENT,
        }
    }

    /// Field 2, the one that is text or bytes.
    fn second(&self) -> (u32, &'a [u8]) {
        match self {
            Self::Store { value, .. } => (2, value),
            Self::Increment { request_id, .. } => (3, request_id.as_bytes()),
            Self::Get { .. } | Self::Delete { .. } | Self::Touch { .. } => (2, &[]),
        }
    }

    fn numbers(&self) -> Numbers {
        const NONE: (u32, u64) = (1, 0);
        match self {
            Self::Get { .. } => [NONE; 3],
            Self::Store { ttl_ms, condition, .. } => {
                let (asked, version) = match condition {
                    Condition::Always => (StoreCondition::Unspecified, 0),
                    Condition::IfAbsent => (StoreCondition::IfAbsent, 0),
                    Condition::IfPresent => (StoreCondition::IfPresent, 0),
                    Condition::IfVersion(version) => (StoreCondition::IfVersion, *version),
                };
                [(4, *ttl_ms), (5, asked as u64), (6, version)]
            }
            Self::Delete { if_version, .. } => [(2, *if_version), NONE, NONE],
            Self::Touch { ttl_ms, mode, .. } => [(2, *ttl_ms), (3, mode.number().unsigned_abs().into()), NONE],
            // Two's complement, as protobuf has it.
            Self::Increment { delta, ttl_ms, .. } => [(2, delta.cast_unsigned()), (4, *ttl_ms), NONE],
        }
    }

    /// Bytes of the request message.
    pub(super) fn encoded_len(&self) -> usize {
        let (tag, bytes) = self.second();
        bytes_len(1, self.key().len())
            + bytes_len(tag, bytes.len())
            + self.numbers().iter().map(|(tag, number)| number_len(*tag, *number)).sum::<usize>()
    }

    /// Appends the request message.
    pub(super) fn encode(&self, buffer: &mut BytesMut) {
        put_bytes(1, self.key().as_bytes(), buffer);
        let (tag, bytes) = self.second();
        put_bytes(tag, bytes, buffer);
        for (tag, number) in self.numbers() {
            put_number(tag, number, buffer);
        }
    }

    /// Appends it as a call of a pipeline.
    pub(super) fn encode_call(&self, id: u64, context: &Context<'_>, buffer: &mut BytesMut) {
        let (message, context_len) = (self.encoded_len(), context.encoded_len());
        let length = number_len(ID, id) + bytes_len(CONTEXT, context_len) + nested_len(self.tag(), message);
        buffer.reserve(nested_len(CALLS, length));
        put_nested(CALLS, length, buffer);
        put_number(ID, id, buffer);
        if context_len > 0 {
            put_nested(CONTEXT, context_len, buffer);
            context.encode(buffer);
        }
        put_nested(self.tag(), message, buffer);
        self.encode(buffer);
    }
}

impl Context<'_> {
    fn encoded_len(&self) -> usize {
        number_len(TIMEOUT_MS, self.timeout_ms)
            + number_len(DRY_RUN, self.dry_run.into())
            + bytes_len(TRACEPARENT, self.traceparent.len())
            + bytes_len(TRACESTATE, self.tracestate.len())
    }

    fn encode(&self, buffer: &mut BytesMut) {
        put_number(TIMEOUT_MS, self.timeout_ms, buffer);
        put_number(DRY_RUN, self.dry_run.into(), buffer);
        put_bytes(TRACEPARENT, self.traceparent.as_bytes(), buffer);
        put_bytes(TRACESTATE, self.tracestate.as_bytes(), buffer);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::rpc::proto::v1;
    use crate::rpc::proto::v1::pipeline_call::Operation as Asked;

    #[test]
    fn a_call_is_written_as_prost_would() {
        let value = Bytes::from_static(b"value");
        let key = || "k".to_owned();
        let store = v1::StoreRequest { key: key(), val: value.clone(), ..Default::default() };
        let if_version = v1::StoreRequest {
            ttl_ms: 300,
            condition: StoreCondition::IfVersion.into(),
            expected_version: u64::MAX,
            ..store.clone()
        };
        let increment = v1::IncrementRequest { key: key(), delta: -7, request_id: "id".into(), ttl_ms: 5 };
        let touch = v1::TouchRequest { key: key(), ttl_ms: 9, mode: v1::TouchMode::ShortenOnly.into() };
        let on = |ttl_ms, condition| Operation::Store { key: "k", value: &value, ttl_ms, condition };
        let table = [
            (Operation::Get { key: "k" }, Asked::Get(v1::GetRequest { key: key() })),
            (on(0, Condition::Always), Asked::Store(store)),
            (on(300, Condition::IfVersion(u64::MAX)), Asked::Store(if_version)),
            (
                Operation::Delete { key: "k", if_version: 3 },
                Asked::Delete(v1::DeleteRequest { key: key(), if_version: 3 }),
            ),
            (Operation::Touch { key: "k", ttl_ms: 9, mode: Touch::ShortenOnly }, Asked::Touch(touch)),
            (Operation::Increment { key: "k", delta: -7, request_id: "id", ttl_ms: 5 }, Asked::Increment(increment)),
        ];
        let context =
            v1::CallContext { timeout_ms: 1000, dry_run: true, traceparent: "00-a".into(), ..Default::default() };
        let ours = Context { timeout_ms: 1000, dry_run: true, traceparent: "00-a", tracestate: "" };
        for (operation, asked) in table {
            let call = v1::PipelineCall { id: 300, context: Some(context.clone()), operation: Some(asked) };
            let expected = v1::PipelineRequest { calls: vec![call] };
            let mut buffer = BytesMut::new();
            operation.encode_call(300, &ours, &mut buffer);
            assert_eq!(v1::PipelineRequest::decode(buffer.clone()).unwrap(), expected);
            assert_eq!(buffer.len(), expected.encoded_len());
        }
    }
}
