//! The calls of a message of a pipeline, read where they lie: nothing is allocated or copied per call.
//!
//! Only what clients send every day is read here. A message with anything else in it (a field that is there twice or has an
//! unknown number, bytes that are no message) is left to prost, whole, so that it means, or is refused as, what it would be
//! everywhere else.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, decode_varint};

use super::{
    MISSING, Operation, StoreCall, TtlPolicy, condition, count_items, decode, delete_call, entry, get_call,
    increment_call, inner_store, pipeline_size, touch_call,
};
use crate::cache::key::Key;
use crate::cache::limits::MAX_PIPELINE_CALLS;
use crate::rpc::failure::Failure;
use crate::rpc::fields::{call_context, pipeline_call, pipeline_request};
use crate::rpc::proto::v1;
use crate::rpc::proto::v1::pipeline_call::Operation as Asked;

/// Calls for which room is kept from one message to the next. A pipeline that has had a larger one gives it back.
const KEPT_CALLS: usize = 64;

/// The calls of one message that are not over yet.
#[derive(Debug, Default)]
pub struct PipelineCalls {
    message: Bytes,
    places: Vec<Place>,
    next: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct PipelineCall<'a> {
    message: &'a Bytes,
    place: &'a Place,
}

/// Which operation a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineKind {
    Get,
    Store,
    Delete,
    Touch,
    Increment,
}

/// Where the parts of a call are.
#[derive(Debug)]
struct Place {
    id: u64,
    context: Option<v1::CallContext>,
    /// The request as it was encoded, unless it has to be encoded anew.
    whole: Option<Span>,
    request: Request,
}

#[derive(Debug)]
enum Request {
    Missing,
    Get { key: Span },
    Store(Store),
    Decoded(Box<Asked>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Store {
    key: Span,
    val: Span,
    ttl_ms: u64,
    condition: i32,
    expected_version: u64,
}

/// A part of the message, in bytes. Messages are bounded far below 4 GiB.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

/// The fields of a part of the message, one after the other.
struct Fields<'a> {
    message: &'a [u8],
    rest: &'a [u8],
    /// Where the part ends.
    end: usize,
}

enum Field {
    Number(u64),
    Bytes(Span),
}

/// What is not read here.
struct Unusual;

impl PipelineCalls {
    /// Reads a message; what was left of the one before is forgotten.
    ///
    /// # Errors
    /// When it is no such message, has too many calls, or a call has no id or one that another has.
    pub fn read(&mut self, message: Bytes) -> Result<(), Failure> {
        self.clear();
        if self.read_in_place(&message).is_err() {
            self.places.clear();
            pipeline_size(count_items(&message))?;
            let request: v1::PipelineRequest = decode(message.clone())?;
            self.places.extend(request.calls.into_iter().map(Place::from));
        }
        self.message = message;
        let checked = self.check_ids();
        if checked.is_err() || self.is_empty() {
            self.clear();
        }
        checked
    }

    /// Forgets what is left.
    pub fn clear(&mut self) {
        self.next = 0;
        self.message = Bytes::new();
        self.places.clear();
        self.places.shrink_to(KEPT_CALLS);
    }

    /// How many are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.next
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the message holds, and what is known of its calls.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.message.len() + size_of_val(self.places.as_slice())
    }

    /// The next one.
    #[must_use]
    pub fn first(&self) -> Option<PipelineCall<'_>> {
        let place = self.places.get(self.next)?;
        Some(PipelineCall { message: &self.message, place })
    }

    /// The next one is over, or on its way.
    pub fn advance(&mut self) {
        self.next = self.places.len().min(self.next + 1);
        if self.is_empty() {
            self.clear();
        }
    }

    fn read_in_place(&mut self, message: &[u8]) -> Result<(), Unusual> {
        let mut fields = Fields { message, rest: message, end: message.len() };
        while let Some(field) = fields.next()? {
            let (pipeline_request::CALLS, Field::Bytes(call)) = field else { return Err(Unusual) };
            if self.places.len() == MAX_PIPELINE_CALLS {
                return Err(Unusual);
            }
            // Written where it stays.
            self.places.push(Place::EMPTY);
            if let Some(place) = self.places.last_mut() {
                place.read(message, call)?;
            }
        }
        Ok(())
    }

    fn check_ids(&self) -> Result<(), Failure> {
        let (mut last, mut ascending) = (0, true);
        for place in &self.places {
            if place.id == 0 {
                return Err(Failure::field("id", "it is 0; choose another for each call"));
            }
            ascending &= place.id > last;
            last = place.id;
        }
        // Ids are mostly counted up; only if they are not does it take a set to know.
        if !ascending {
            let mut seen = HashSet::with_capacity(self.places.len());
            if !self.places.iter().all(|place| seen.insert(place.id)) {
                return Err(Failure::field("id", "two unanswered calls have the same; choose another for each call"));
            }
        }
        Ok(())
    }
}

impl<'a> PipelineCall<'a> {
    /// What its client calls it.
    #[must_use]
    pub fn id(self) -> u64 {
        self.place.id
    }

    #[must_use]
    pub fn context(self) -> Option<&'a v1::CallContext> {
        self.place.context.as_ref()
    }

    /// `None`: the message does not say.
    #[must_use]
    pub fn kind(self) -> Option<PipelineKind> {
        Some(match &self.place.request {
            Request::Missing => return None,
            Request::Get { .. } => PipelineKind::Get,
            Request::Store(_) => PipelineKind::Store,
            Request::Decoded(asked) => match **asked {
                Asked::Get(_) => PipelineKind::Get,
                Asked::Store(_) => PipelineKind::Store,
                Asked::Delete(_) => PipelineKind::Delete,
                Asked::Touch(_) => PipelineKind::Touch,
                Asked::Increment(_) => PipelineKind::Increment,
            },
        })
    }

    /// The key as it was sent, which may be none.
    #[must_use]
    pub fn key(self) -> &'a str {
        match &self.place.request {
            Request::Missing => "",
            Request::Get { key } | Request::Store(Store { key, .. }) => self.text(*key),
            Request::Decoded(asked) => match &**asked {
                Asked::Get(request) => &request.key,
                Asked::Store(request) => &request.key,
                Asked::Delete(request) => &request.key,
                Asked::Touch(request) => &request.key,
                Asked::Increment(request) => &request.key,
            },
        }
    }

    /// Checks the operation.
    ///
    /// # Errors
    /// When there is none, a wrong one, or a store with a token of its own.
    pub fn operation(self, ttl: TtlPolicy) -> Result<Operation<'a>, Failure> {
        Ok(match &self.place.request {
            Request::Missing => return Err(Failure::field("operation", MISSING)),
            Request::Get { key } => Operation::Get(Key::new(self.text(*key))?),
            Request::Store(store) => Operation::Store(StoreCall {
                value: store.val.of(self.message),
                key: entry(self.text(store.key), store.val.of(self.message))?,
                condition: condition(store.condition, store.expected_version)?,
                ttl_ms: ttl.resolve(store.ttl_ms)?,
            }),
            Request::Decoded(asked) => match &**asked {
                Asked::Get(request) => Operation::Get(get_call(request)?),
                Asked::Store(request) => Operation::Store(inner_store(request, ttl)?),
                Asked::Delete(request) => Operation::Delete(delete_call(request)?),
                Asked::Touch(request) => Operation::Touch(touch_call(request, ttl)?),
                Asked::Increment(request) => Operation::Increment(increment_call(request, ttl)?),
            },
        })
    }

    /// The unary request that asks for the same, encoded. A part of the message where it can be, so that no value is copied.
    #[must_use]
    pub fn unary(self) -> Bytes {
        match (self.place.whole, &self.place.request) {
            (Some(whole), _) => self.message.slice(whole.start as usize..whole.end as usize),
            (None, Request::Decoded(asked)) => encode(asked),
            (None, _) => Bytes::new(),
        }
    }

    fn text(self, span: Span) -> &'a str {
        // It was looked at when the message was read.
        str::from_utf8(span.of(self.message)).unwrap_or_default()
    }
}

impl Place {
    const EMPTY: Self = Self { id: 0, context: None, whole: None, request: Request::Missing };

    fn read(&mut self, message: &[u8], call: Span) -> Result<(), Unusual> {
        let mut fields = Fields::of(message, call);
        while let Some(field) = fields.next()? {
            match field {
                (pipeline_call::ID, Field::Number(id)) => self.id = id,
                (pipeline_call::CONTEXT, Field::Bytes(span)) if self.context.is_none() => {
                    self.context = Some(read_context(Fields::of(message, span))?);
                }
                (number, Field::Bytes(span)) if self.whole.is_none() => {
                    self.request = Request::read(number, message, span)?;
                    self.whole = Some(span);
                }
                _ => return Err(Unusual),
            }
        }
        Ok(())
    }
}

impl From<v1::PipelineCall> for Place {
    fn from(call: v1::PipelineCall) -> Self {
        let request = call.operation.map_or(Request::Missing, |asked| Request::Decoded(Box::new(asked)));
        Self { id: call.id, context: call.context, whole: None, request }
    }
}

impl Request {
    /// `number` is that of the operation in a `PipelineCall`.
    fn read(number: u32, message: &[u8], span: Span) -> Result<Self, Unusual> {
        let bytes = span.of(message);
        let decoded = match number {
            pipeline_call::GET => return Self::read_get(Fields::of(message, span)),
            pipeline_call::STORE => return Self::read_store(Fields::of(message, span)),
            pipeline_call::DELETE => v1::DeleteRequest::decode(bytes).map(Asked::Delete),
            pipeline_call::TOUCH => v1::TouchRequest::decode(bytes).map(Asked::Touch),
            pipeline_call::INCREMENT => v1::IncrementRequest::decode(bytes).map(Asked::Increment),
            _ => return Err(Unusual),
        };
        decoded.map(|asked| Self::Decoded(Box::new(asked))).map_err(|_| Unusual)
    }

    fn read_get(mut fields: Fields<'_>) -> Result<Self, Unusual> {
        let mut key = Span::default();
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(span)) => key = span.text(fields.message)?,
                _ => return Err(Unusual),
            }
        }
        Ok(Self::Get { key })
    }

    fn read_store(mut fields: Fields<'_>) -> Result<Self, Unusual> {
        let mut store = Store::default();
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(span)) => store.key = span.text(fields.message)?,
                (2, Field::Bytes(span)) => store.val = span,
                (4, Field::Number(number)) => store.ttl_ms = number,
                (5, Field::Number(number)) => store.condition = i32::try_from(number).map_err(|_| Unusual)?,
                (6, Field::Number(number)) => store.expected_version = number,
                _ => return Err(Unusual),
            }
        }
        Ok(Self::Store(store))
    }
}

impl<'a> Fields<'a> {
    fn of(message: &'a [u8], span: Span) -> Self {
        Self { message, rest: span.of(message), end: span.end as usize }
    }

    #[inline]
    fn next(&mut self) -> Result<Option<(u32, Field)>, Unusual> {
        let Some((&key, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        // Every field that is read here has a number below 16, and so a key of one byte.
        let (number, wire_type) = (u32::from(key >> 3), key & 7);
        if key >= 0x80 || number == 0 {
            return Err(Unusual);
        }
        let value = self.varint()?;
        if wire_type == WireType::Varint as u8 {
            return Ok(Some((number, Field::Number(value))));
        }
        let length = usize::try_from(value).map_err(|_| Unusual)?;
        if wire_type != WireType::LengthDelimited as u8 || length > self.rest.len() {
            return Err(Unusual);
        }
        let span = Span::at(self.end - self.rest.len(), length)?;
        self.rest = &self.rest[length..];
        Ok(Some((number, Field::Bytes(span))))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Unusual> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => decode_varint(&mut self.rest).map_err(|_| Unusual),
        }
    }
}

impl Span {
    fn at(start: usize, length: usize) -> Result<Self, Unusual> {
        let number = |number: usize| u32::try_from(number).map_err(|_| Unusual);
        Ok(Self { start: number(start)?, end: number(start + length)? })
    }

    fn of(self, message: &[u8]) -> &[u8] {
        &message[self.start as usize..self.end as usize]
    }

    /// The same, if it is text.
    fn text(self, message: &[u8]) -> Result<Self, Unusual> {
        let bytes = self.of(message);
        // Most keys are ASCII, which is seen many bytes at a time.
        if bytes.is_ascii() || str::from_utf8(bytes).is_ok() { Ok(self) } else { Err(Unusual) }
    }

    fn to_text(self, message: &[u8]) -> Result<String, Unusual> {
        str::from_utf8(self.of(message)).map(str::to_owned).map_err(|_| Unusual)
    }
}

fn read_context(mut fields: Fields<'_>) -> Result<v1::CallContext, Unusual> {
    let mut context = v1::CallContext::default();
    while let Some(field) = fields.next()? {
        match field {
            (call_context::TIMEOUT_MS, Field::Number(number)) => context.timeout_ms = number,
            (call_context::DRY_RUN, Field::Number(number)) => context.dry_run = number != 0,
            (call_context::TRACEPARENT, Field::Bytes(span)) => context.traceparent = span.to_text(fields.message)?,
            (call_context::TRACESTATE, Field::Bytes(span)) => context.tracestate = span.to_text(fields.message)?,
            _ => return Err(Unusual),
        }
    }
    Ok(context)
}

fn encode(asked: &Asked) -> Bytes {
    let encoded = match asked {
        Asked::Get(request) => request.encode_to_vec(),
        Asked::Store(request) => request.encode_to_vec(),
        Asked::Delete(request) => request.encode_to_vec(),
        Asked::Touch(request) => request.encode_to_vec(),
        Asked::Increment(request) => request.encode_to_vec(),
    };
    encoded.into()
}

#[cfg(test)]
mod tests;
