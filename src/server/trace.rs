//! Traces. A call that is sampled has a [`Span`], and so has whatever it waits for: the way to the owner, the owner's part,
//! the hand-off, a question to the Accounts service. What is not sampled costs a look at the caller's flags, or a random
//! number, and no allocation; without a collector there is no [`Tracer`], and not even that (docs/adr/0010).
//!
//! A span ends exactly once, also when what it tells of is dropped on its way. Its attributes are in [`names`]: never a key, a
//! value or a token.
//!
//! Not here: how spans get to a collector (`export`), and who begins which span.

mod export;
pub mod names;
mod queue;
mod sampler;

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tonic::Code;

pub use self::export::{Exporter, TracesConfig, start};
pub use self::queue::Counts;
use self::queue::{Finished, Queue};
pub use self::sampler::{Sampler, SamplerError};
use super::method::Method;
use crate::cache::store::evicted_by_this_thread;
use crate::rpc::trace::{Hex, SAMPLED, Trace};

/// Begins spans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer {
    sampler: Sampler,
    queue: Arc<Queue>,
}

/// What an operation carries of its trace.
#[derive(Clone, Debug, Default)]
pub enum Traced {
    /// Its caller traces nothing, and neither does this replica.
    #[default]
    No,
    /// Not recorded here: the next hop hears what its caller said.
    Passed(Trace),
    Recorded(Span),
}

/// A span being recorded. All clones are the same one.
#[derive(Clone)]
pub struct Span(Arc<Recording>);

/// On which side of a hop a span is; the numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// What came of an operation; the last that is told counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Hit,
    Miss,
    Forwarded,
    Fetched,
    Evicted,
    Moved,
    Refused,
    Unknown,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Word(&'static str),
    Text(String),
    Number(i64),
    Is(bool),
}

struct Recording {
    /// Its own place: what its children and the next hop are told.
    place: Trace,
    /// Whose child it is, and whether that is in another process.
    parent: Option<([u8; 8], bool)>,
    kind: Kind,
    name: &'static str,
    began: (SystemTime, Instant),
    queue: Arc<Queue>,
    /// None: it has ended.
    notes: Mutex<Option<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    attributes: Vec<(&'static str, Value)>,
    outcome: Option<Outcome>,
}

impl Tracer {
    /// A call comes in, from a caller with or without a trace.
    #[must_use]
    pub fn server(&self, name: &'static str, parent: Option<Trace>) -> Traced {
        match (self.sampler.draw(parent.as_ref()), parent) {
            (Some(trace_id), parent) => {
                let from = parent.as_ref().map(|parent| (parent.span_id, true));
                let place = parent.map_or_else(
                    || Trace::new(trace_id, span_id(), SAMPLED),
                    |parent| parent.at(span_id(), parent.flags | SAMPLED),
                );
                Traced::Recorded(Span::begin(place, from, Kind::Server, name, &self.queue))
            }
            (None, Some(parent)) => Traced::Passed(parent),
            (None, None) => Traced::No,
        }
    }
}

impl Traced {
    /// What the next hop is told.
    #[must_use]
    pub fn context(&self) -> Option<&Trace> {
        match self {
            Self::No => None,
            Self::Passed(trace) => Some(trace),
            Self::Recorded(span) => Some(&span.0.place),
        }
    }

    #[must_use]
    pub fn span(&self) -> Option<&Span> {
        match self {
            Self::Recorded(span) => Some(span),
            Self::No | Self::Passed(_) => None,
        }
    }

    /// A part of it that takes time of its own.
    #[must_use]
    pub fn child(&self, kind: Kind, name: &'static str) -> Self {
        match self {
            Self::Recorded(span) => Self::Recorded(span.child(kind, name)),
            other => other.clone(),
        }
    }

    /// What came of it, so far.
    pub fn outcome(&self, outcome: Outcome) {
        if let Self::Recorded(span) = self {
            span.outcome(outcome);
        }
    }

    /// Runs a part of it that waits for nothing; if others' entries had to go for it, that is what came of it.
    pub fn watch<R>(&self, run: impl FnOnce() -> R) -> R {
        let Self::Recorded(span) = self else { return run() };
        let before = evicted_by_this_thread();
        let ran = run();
        if evicted_by_this_thread() != before {
            span.outcome_unless_known(Outcome::Evicted);
        }
        ran
    }

    /// The trace id for a line of the log.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        self.context().map(|trace| trace.id().to_string())
    }

    /// The id of the span that is recorded here, for a line of the log.
    #[must_use]
    pub fn span_id(&self) -> Option<String> {
        self.span().map(|span| Hex(&span.0.place.span_id).to_string())
    }
}

impl From<Option<Trace>> for Traced {
    fn from(trace: Option<Trace>) -> Self {
        trace.map_or(Self::No, Self::Passed)
    }
}

impl Span {
    fn begin(
        place: Trace,
        parent: Option<([u8; 8], bool)>,
        kind: Kind,
        name: &'static str,
        queue: &Arc<Queue>,
    ) -> Self {
        Self(Arc::new(Recording {
            place,
            parent,
            kind,
            name,
            began: (SystemTime::now(), Instant::now()),
            queue: Arc::clone(queue),
            notes: Mutex::new(Some(Notes::default())),
        }))
    }

    /// A part of it that takes time of its own.
    #[must_use]
    pub fn child(&self, kind: Kind, name: &'static str) -> Self {
        let its = &self.0;
        let place = its.place.at(span_id(), its.place.flags);
        Self::begin(place, Some((its.place.span_id, false)), kind, name, &its.queue)
    }

    /// Adds an attribute.
    pub fn note(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(notes) = &mut *self.0.notes.lock() {
            notes.attributes.push((name, value.into()));
        }
    }

    /// What came of it, so far.
    pub fn outcome(&self, outcome: Outcome) {
        if let Some(notes) = &mut *self.0.notes.lock() {
            notes.outcome = Some(outcome);
        }
    }

    /// The same, if nobody has said it yet.
    pub fn outcome_unless_known(&self, outcome: Outcome) {
        if let Some(notes) = &mut *self.0.notes.lock() {
            notes.outcome.get_or_insert(outcome);
        }
    }

    /// It was carried out by another replica.
    pub fn forwarded(&self, owner: String) {
        self.note(names::OWNER, owner);
        self.outcome(Outcome::Forwarded);
    }

    /// Whether it was.
    #[must_use]
    pub fn was_forwarded(&self) -> bool {
        self.0.notes.lock().as_ref().is_some_and(|notes| notes.outcome == Some(Outcome::Forwarded))
    }

    /// It has ended with a gRPC code.
    pub fn end(&self, code: Code) {
        self.0.end(Some(code));
    }

    /// It has ended, and is no call.
    pub fn end_without_code(&self) {
        self.0.end(None);
    }

    /// It never was: what it should have told of begins again.
    pub fn discard(&self) {
        *self.0.notes.lock() = None;
    }
}

impl Recording {
    fn end(&self, code: Option<Code>) {
        let Some(Notes { mut attributes, outcome }) = self.notes.lock().take() else { return };
        if let Some(outcome) = outcome {
            attributes.push((names::RESULT, Value::Word(outcome.name())));
        }
        let failed = code.is_some_and(names::is_fault);
        if let Some(code) = code {
            attributes.push((names::STATUS_CODE, Value::Word(names::code(code))));
            if failed {
                attributes.push((names::ERROR_TYPE, Value::Word(names::code(code))));
            }
        }
        let (began, since) = self.began;
        self.queue.put(Finished {
            place: self.place.clone(),
            parent: self.parent,
            kind: self.kind,
            name: self.name,
            began,
            // By the clock that does not jump.
            took: since.elapsed(),
            attributes,
            failed,
        });
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // What it told of was dropped: its caller went away, or did not wait any longer.
        self.end(Some(Code::Cancelled));
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("name", &self.0.name).field("place", &self.0.place).finish_non_exhaustive()
    }
}

impl Outcome {
    /// What a read found; none: it was no read, or something else came of it.
    #[must_use]
    pub fn of_read(method: Method, code: Code) -> Option<Self> {
        match (method, code) {
            (Method::Get | Method::TutorialGet | Method::PipelineGet | Method::BatchGetItem, Code::Ok) => {
                Some(Self::Hit)
            }
            (Method::Get | Method::TutorialGet | Method::PipelineGet | Method::BatchGetItem, Code::NotFound) => {
                Some(Self::Miss)
            }
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Forwarded => "forwarded",
            Self::Fetched => "fetched",
            Self::Evicted => "evicted",
            Self::Moved => "moved",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Is(is)
    }
}

/// A new one, never all zero.
fn span_id() -> [u8; 8] {
    rand::random::<u64>().max(1).to_be_bytes()
}

#[cfg(test)]
mod tests;
