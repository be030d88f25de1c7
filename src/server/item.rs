//! Items of batches and pipelines: calls inside a call. Each passes the wall, has a deadline and a dry run of its own, and is
//! counted; what that costs is shared by the items of a message.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use prost::encoding::fixed64;
use tokio::time::Instant;
use tonic::Code;

use super::call::Call;
use super::codec::PREFIX_BYTES;
use super::codec::encode::{nested_len, number_len, put_nested, put_numbered};
use super::forward::Forward;
use super::held::Share;
use super::method::Method;
use super::metrics::Refusal;
use super::trace::{Span, Traced};
use super::wall::Wall;
use super::wall::registry::Principal;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;
use crate::rpc::status;
use crate::rpc::trace::Trace;

/// Bytes of one message of results. A single result that is larger goes alone.
pub const CHUNK_BYTES: usize = 512 * 1024;

/// Bytes that a message of results is given room for at once, because the one before had as many.
const MAX_EXPECTED_BYTES: usize = 128 * 1024;

/// A message of results that is being made: `repeated Result results = 1`, where a result has its number as field 1.
pub struct Results {
    buffer: BytesMut,
    /// Of the bytes that calls may hold: this message, and once it is taken, until it has been sent.
    share: Share,
    /// Bytes to make room for when the next message begins: as many as the last had.
    expected: usize,
}

/// Whether a result went into the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Written,
    /// The message is full: send it, and try again.
    Full,
}

/// Passes items through the wall.
#[derive(Default)]
pub struct Turnstile {
    /// Whether the current item has been let in already, and waits only for room in a message. The first item of a stream is
    /// paid for by the call that opened the stream, so that a batch of one costs one call.
    paid: bool,
    opened: bool,
}

/// Counts items, to be written down once for a message.
pub struct Tally {
    began: Instant,
    counts: Vec<(Method, Code, u64)>,
    items: u32,
}

/// Field number of the results in every message of results, and of a result's number in it.
const RESULTS: u32 = 1;
const NUMBER: u32 = 1;

impl Results {
    /// None yet.
    #[must_use]
    pub fn new(share: Share) -> Self {
        Self { buffer: BytesMut::new(), share, expected: 0 }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The message before has been sent, so nothing of it is held.
    pub fn sent(&mut self) {
        if self.is_empty() {
            self.share.clear();
        }
    }

    /// Bytes so far, prefix included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether it is time to send them.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= CHUNK_BYTES
    }

    /// Adds a result, `length` bytes of field `tag`, written by `encode`, if there is room in the message; alone it always has.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] when calls hold so much together that it may not even go alone.
    pub fn put_if_fits(
        &mut self,
        number: u64,
        tag: u32,
        length: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<Fit, Failure> {
        let (is_first, together) = (self.is_empty(), self.buffer.len() + length);
        if !is_first && together > CHUNK_BYTES {
            return Ok(Fit::Full);
        }
        match self.share.resize(together) {
            Ok(()) => {
                self.put(number, tag, length, encode);
                Ok(Fit::Written)
            }
            Err(full) if is_first => Err(full),
            Err(_) => Ok(Fit::Full),
        }
    }

    fn put(&mut self, number: u64, tag: u32, length: usize, encode: impl FnOnce(&mut BytesMut)) {
        let result = number_len(NUMBER, number) + nested_len(tag, length);
        let whole = nested_len(RESULTS, result);
        if self.buffer.is_empty() {
            self.start(whole);
        }
        self.buffer.reserve(whole);
        put_numbered(RESULTS, result, (NUMBER, number), (tag, length), &mut self.buffer);
        encode(&mut self.buffer);
    }

    /// Adds a small message as a result. What it tells of has happened, so it is never turned away.
    pub fn put_message(&mut self, number: u64, tag: u32, message: &impl Message) -> Fit {
        self.put(number, tag, message.encoded_len(), |buffer| {
            // A growing buffer has room for every message.
            let _ = message.encode(buffer);
        });
        Fit::Written
    }

    /// Adds a message that is encoded already: another replica's answer. What tells of a change is never turned away.
    ///
    /// # Errors
    /// As [`Self::put_if_fits`].
    pub fn put_encoded(&mut self, number: u64, tag: u32, message: &[u8], changed: bool) -> Result<Fit, Failure> {
        let encode = |buffer: &mut BytesMut| buffer.put_slice(message);
        if changed {
            self.put(number, tag, message.len(), encode);
            return Ok(Fit::Written);
        }
        self.put_if_fits(number, tag, message.len(), encode)
    }

    /// Adds a failure as a result.
    pub fn put_failure(&mut self, number: u64, tag: u32, failure: &Failure) -> Fit {
        self.put_message(number, tag, &status::to_error(failure))
    }

    /// Adds an empty message as a field of the message of results itself.
    pub fn put_mark(&mut self, tag: u32) {
        if self.buffer.is_empty() {
            self.start(0);
        }
        put_nested(tag, 0, &mut self.buffer);
    }

    /// Adds a number of fixed length as a field of the message of results itself.
    pub fn put_fixed(&mut self, tag: u32, number: u64) {
        if self.buffer.is_empty() {
            self.start(0);
        }
        fixed64::encode(tag, &number, &mut self.buffer);
    }

    /// The message so far, as a frame; begins the next.
    pub fn take(&mut self) -> Bytes {
        self.expected = self.buffer.len().min(MAX_EXPECTED_BYTES);
        let length = u32::try_from(self.buffer.len().saturating_sub(PREFIX_BYTES)).unwrap_or(u32::MAX);
        if let Some(prefix) = self.buffer.get_mut(1..PREFIX_BYTES) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
        self.buffer.split().freeze()
    }

    fn start(&mut self, bytes: usize) {
        self.buffer.reserve(self.expected.max(PREFIX_BYTES + bytes));
        self.buffer.put_bytes(0, PREFIX_BYTES);
    }
}

impl Turnstile {
    /// Lets the current item in, once.
    ///
    /// # Errors
    /// When a rate is used up; then the item is over.
    pub fn pass(&mut self, wall: &Wall, principal: &Principal, now_us: u64) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.opened, true) || self.paid {
            self.paid = true;
            return Ok(());
        }
        wall.take_item(principal, now_us)?;
        self.paid = true;
        Ok(())
    }

    /// The current item is over.
    pub fn next(&mut self) {
        self.paid = false;
    }
}

impl Tally {
    /// Begins to count.
    #[must_use]
    pub fn begin(now: Instant) -> Self {
        Self { began: now, counts: Vec::with_capacity(4), items: 0 }
    }

    /// An item is over.
    pub fn add(
        &mut self,
        call: &Call,
        method: Method,
        outcome: Result<(), &Failure>,
        context: Option<&v1::CallContext>,
    ) {
        let code = match outcome {
            Ok(()) => Code::Ok,
            Err(failure) => {
                if let Some(refusal) = Refusal::of(failure) {
                    call.connection().worker.refuse(refusal);
                }
                failure.code()
            }
        };
        self.items += 1;
        match self.counts.iter_mut().find(|(m, c, _)| *m == method && *c == code) {
            Some((_, _, count)) => *count += 1,
            None => self.counts.push((method, code, 1)),
        }
        if tracing::enabled!(target: "larder::access", tracing::Level::DEBUG) {
            log(call, method, code, context);
        }
    }

    /// Writes the counts down.
    pub fn write(self, call: &Call) {
        if self.items == 0 {
            return;
        }
        let each = self.began.elapsed() / self.items;
        for (method, code, count) in &self.counts {
            call.connection().worker.count(*method, *code, *count, each, 0, 0);
        }
        if let Some(principal) = &call.principal {
            principal.state.count(u64::from(self.items), 0, 0);
        }
    }
}

/// Whether an item that was read at `read_at` is still in time.
///
/// # Errors
/// [`Failure::DeadlineExceeded`].
pub fn in_time(context: Option<&v1::CallContext>, read_at: Instant, now: Instant) -> Result<(), Failure> {
    match context {
        Some(context)
            if context.timeout_ms != 0
                && now.saturating_duration_since(read_at) >= Duration::from_millis(context.timeout_ms) =>
        {
            Err(Failure::DeadlineExceeded)
        }
        _ => Ok(()),
    }
}

/// The span of an item, if it has one: with a trace of its own, it is recorded as any call; without, it is part of the call that
/// it came in, and only where that has no trace, in a pipeline, which may go on for days, it is drawn for itself.
#[must_use]
pub fn begin_span(call: &Call, method: Method, context: Option<&v1::CallContext>) -> Option<Span> {
    let tracer = call.connection().wall.tracer.as_ref()?;
    let own = own_trace(context);
    if own.is_none() && !(call.method == Method::Pipeline && matches!(call.traced, Traced::No)) {
        return None;
    }
    let traced = tracer.server(method.traits().name, own);
    let span = traced.span()?;
    call.describe(span, method);
    Some(span.clone())
}

/// Ends it.
pub fn end_span(wall: &Wall, span: Option<&Span>, method: Method, outcome: Result<(), &Failure>) {
    if let Some(span) = span {
        wall.end_span(span, method, outcome.err().map_or(Code::Ok, Failure::code));
    }
}

/// An item as it travels to another replica; `message` is the unary request. It ends with its own deadline or that of the
/// enclosing call, and where there is none as a unary call would.
#[must_use]
pub fn forward(
    call: &Call,
    principal: &Principal,
    (method, message): (Method, Bytes),
    (context, span): (Option<&v1::CallContext>, Option<&Span>),
    read_at: Instant,
) -> Forward {
    let longest = call.connection().wall.config.max_unary_time;
    let own = context.map(|context| Duration::from_millis(context.timeout_ms)).filter(|timeout| !timeout.is_zero());
    // A client that is slow to take its results may begin an item long after it was read.
    let due = Instant::now() + longest;
    let due = own.map_or(due, |own| due.min(read_at + own));
    let id = principal.state.tenant.id();
    Forward {
        method,
        message,
        space: id.clone(),
        payer: Some((id.clone(), *principal.limits())),
        deadline: Some(call.deadline.map_or(due, |deadline| deadline.min(due))),
        dry_run: is_dry_run(call, context),
        trace: match span {
            Some(span) => Traced::Recorded(span.clone()),
            None => own_trace(context).map_or_else(|| call.traced.clone(), Traced::Passed),
        },
    }
}

/// Whether an item is only asked about.
#[must_use]
pub fn is_dry_run(call: &Call, context: Option<&v1::CallContext>) -> bool {
    call.dry_run || context.is_some_and(|context| context.dry_run)
}

/// The trace context that an item has of its own.
fn own_trace(context: Option<&v1::CallContext>) -> Option<Trace> {
    let context = context.filter(|context| !context.traceparent.is_empty())?;
    Trace::of_texts(&context.traceparent, &context.tracestate)
}

#[cold]
fn log(call: &Call, method: Method, code: Code, context: Option<&v1::CallContext>) {
    let traced = own_trace(context).map_or_else(|| call.traced.clone(), Traced::Passed);
    tracing::debug!(
        target: "larder::access",
        method = method.traits().name,
        code = ?code,
        account = call.principal.as_ref().map(|principal| principal.state.tenant.id().as_str()),
        peer = %call.connection().peer,
        trace_id = traced.trace_id(),
        span_id = traced.span_id(),
        dry_run = is_dry_run(call, context).then_some(true),
        "item"
    );
}
