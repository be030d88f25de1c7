//! From bytes to a checked request, in one step: for hand-framed calls and for the fuzzer.

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use super::{
    PipelineCalls, TtlPolicy, batch_delete_item, batch_get_item, batch_size, batch_store_item, delete_call,
    delete_prefix_call, dump_call, get_call, increment_call, store_call, touch_call, tutorial_get_call,
    tutorial_store_call,
};
use crate::rpc::failure::Failure;
use crate::rpc::proto::{tutorial, v1};

/// The request messages that carry something to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Store,
    Get,
    Delete,
    Touch,
    Increment,
    BatchGet,
    BatchStore,
    BatchDelete,
    DeletePrefix,
    Dump,
    Pipeline,
    TutorialStore,
    TutorialGet,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Store,
        Self::Get,
        Self::Delete,
        Self::Touch,
        Self::Increment,
        Self::BatchGet,
        Self::BatchStore,
        Self::BatchDelete,
        Self::DeletePrefix,
        Self::Dump,
        Self::Pipeline,
        Self::TutorialStore,
        Self::TutorialGet,
    ];
}

/// Decodes a request message.
///
/// # Errors
/// [`Failure::Malformed`] when the bytes are no such message.
pub fn decode<M: Message + Default>(bytes: impl Buf) -> Result<M, Failure> {
    M::decode(bytes).map_err(|error| Failure::Malformed(error.to_string()))
}

/// Decodes a request message and checks all that is in it, as the server would with an account without limits.
///
/// # Errors
/// The first failure that a caller would be told.
pub fn decode_and_check(kind: Kind, bytes: &[u8]) -> Result<(), Failure> {
    let ttl = TtlPolicy::NONE;
    match kind {
        Kind::Store => store_call(&decode(bytes)?, ttl).map(drop),
        Kind::Get => get_call(&decode(bytes)?).map(drop),
        Kind::Delete => delete_call(&decode(bytes)?).map(drop),
        Kind::Touch => touch_call(&decode(bytes)?, ttl).map(drop),
        Kind::Increment => increment_call(&decode(bytes)?, ttl).map(drop),
        Kind::BatchGet => {
            let batch: v1::BatchGetRequest = decode(bytes)?;
            batch_size(batch.items.len())?;
            batch.items.iter().try_for_each(|item| batch_get_item(item).map(drop))
        }
        Kind::BatchStore => {
            let batch: v1::BatchStoreRequest = decode(bytes)?;
            batch_size(batch.items.len())?;
            batch.items.iter().try_for_each(|item| batch_store_item(item, ttl).map(drop))
        }
        Kind::BatchDelete => {
            let batch: v1::BatchDeleteRequest = decode(bytes)?;
            batch_size(batch.items.len())?;
            batch.items.iter().try_for_each(|item| batch_delete_item(item).map(drop))
        }
        Kind::DeletePrefix => delete_prefix_call(&decode(bytes)?).map(drop),
        Kind::Dump => dump_call(&decode(bytes)?).map(drop),
        Kind::Pipeline => {
            let mut calls = PipelineCalls::default();
            calls.read(Bytes::copy_from_slice(bytes))?;
            while let Some(call) = calls.first() {
                call.operation(ttl)?;
                calls.advance();
            }
            Ok(())
        }
        Kind::TutorialStore => tutorial_store_call(&decode::<tutorial::StoreReq>(bytes)?).map(drop),
        Kind::TutorialGet => tutorial_get_call(&decode::<tutorial::GetReq>(bytes)?).map(drop),
    }
}

/// How many items a batch or a message of a pipeline has: its fields number 1. Counted before it is decoded, because an empty
/// item is two bytes on the wire and a hundred in memory. What cannot be read is left for the decoder to refuse.
#[must_use]
pub fn count_items(mut message: &[u8]) -> usize {
    let mut items = 0;
    while message.has_remaining() {
        let Ok((tag, wire_type)) = decode_key(&mut message) else { break };
        items += usize::from(tag == 1);
        if skip_field(wire_type, tag, &mut message, DecodeContext::default()).is_err() {
            break;
        }
    }
    items
}
