//! How answers are written: by hand, as `ForwardedAnswer`s, straight into the message that goes out.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;

use crate::rpc::failure::Failure;
use crate::rpc::proto::peer::v1::{Brief, ForwardResponse, Refusal};
use crate::rpc::status::to_error;
use crate::server::codec::encode::{nested_len, number_len, put_nested, put_number};
use crate::server::peer::Forwarded;
use crate::server::peer::outgoing::Outgoing;

/// `ForwardResponse.answers`.
const ANSWERS: u32 = 3;
/// The fields of `ForwardedAnswer`.
const ID: u32 = 1;
const MESSAGE: u32 = 2;
const ERROR: u32 = 3;
const BRIEF: u32 = 4;
const REFUSED: u32 = 5;

/// What became of a call.
pub(super) enum Outcome {
    Done(Forwarded),
    /// Its message was not taken.
    Refused(Refusal),
}

/// Answers that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Answers(Outgoing);

impl Answers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn put(&mut self, id: u32, outcome: &Outcome) {
        match outcome {
            Outcome::Done(Forwarded::Answer(Ok(message))) => self.put_message(id, message),
            Outcome::Done(Forwarded::Answer(Err(Failure::NotFound))) => {
                self.put_word(id, BRIEF, Brief::NotFound as u64);
            }
            Outcome::Done(Forwarded::Moved) => self.put_word(id, BRIEF, Brief::Moved as u64),
            Outcome::Done(Forwarded::Answer(Err(failure))) => self.put_error(id, failure),
            Outcome::Refused(refusal) => self.put_word(id, REFUSED, *refusal as u64),
        }
    }

    /// The answers and the rest of the message.
    pub(super) fn finish(&mut self, rest: &ForwardResponse) -> VecDeque<Bytes> {
        // A growing buffer has room for every message.
        let _ = rest.encode(self.0.buffer());
        self.0.finish()
    }

    fn put_message(&mut self, id: u32, message: &Bytes) {
        let buffer = self.0.buffer();
        put_nested(ANSWERS, number_len(ID, id.into()) + nested_len(MESSAGE, message.len()), buffer);
        put_number(ID, id.into(), buffer);
        self.0.put_shared(MESSAGE, message);
    }

    fn put_error(&mut self, id: u32, failure: &Failure) {
        let error = to_error(failure);
        let length = error.encoded_len();
        let buffer = self.0.buffer();
        put_nested(ANSWERS, number_len(ID, id.into()) + nested_len(ERROR, length), buffer);
        put_number(ID, id.into(), buffer);
        put_nested(ERROR, length, buffer);
        let _ = error.encode(buffer);
    }

    /// The numbers of words are above 0.
    fn put_word(&mut self, id: u32, tag: u32, word: u64) {
        let buffer = self.0.buffer();
        put_nested(ANSWERS, number_len(ID, id.into()) + number_len(tag, word), buffer);
        put_number(ID, id.into(), buffer);
        put_number(tag, word, buffer);
    }
}
