//! What an owner answered, as the caller of a forward hears it.

use crate::rpc::failure::Failure;
use crate::rpc::proto::peer::v1::forwarded_answer::Outcome as Said;
use crate::rpc::proto::peer::v1::{Brief, Refusal};
use crate::rpc::status::failure_of_error;
use crate::server::peer::Forwarded;
use crate::server::peer::error::ForwardError;
use crate::server::peer::outgoing::SHARED_FROM_BYTES;
use crate::server::peer::slots::Outcome;

/// `accepted`: whether the stamp of the message was. Without it "moved" says nothing, but that nothing was done.
pub(super) fn outcome_of(said: Option<Said>, accepted: bool) -> Outcome {
    match said {
        Some(Said::Message(message)) => Ok(Forwarded::Answer(Ok(message))),
        Some(Said::Error(error)) => Ok(Forwarded::Answer(Err(failure_of_error(&error)))),
        Some(Said::Brief(brief)) => match Brief::try_from(brief) {
            Ok(Brief::Moved) if accepted => Ok(Forwarded::Moved),
            Ok(Brief::Moved) => Err(ForwardError::Refused),
            Ok(Brief::NotFound) => Ok(Forwarded::Answer(Err(Failure::NotFound))),
            Ok(Brief::Unspecified) | Err(_) => Err(ForwardError::Unknown),
        },
        Some(Said::Refused(refusal)) if refusal == Refusal::Overloaded as i32 => Err(ForwardError::Full),
        Some(Said::Refused(_)) => Err(ForwardError::Refused),
        None => Err(ForwardError::Unknown),
    }
}

/// Bytes of an answer that is large enough to be counted; else 0.
pub(super) fn large_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Ok(Forwarded::Answer(Ok(message))) if message.len() >= SHARED_FROM_BYTES => message.len(),
        _ => 0,
    }
}
