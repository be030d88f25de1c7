//! Why a call of the client failed.

use std::fmt;
use std::time::Duration;

use super::lane::{Lost, MAX_CALLS};
use super::stream::Ended;
use crate::rpc::channels::{ChannelError, Target};
use crate::rpc::failure::Failure;
use crate::rpc::status::Pushback;

/// Why a call failed: what happened, to which key, whether it was sent, whether it may be tried again, and after how many
/// attempts. One pointer large.
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    key: Option<Box<str>>,
    sent: Sent,
    idempotent: bool,
    attempts: u32,
}

/// What happened.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// A replica answered so, or the deadline passed, or the answer was lost.
    #[error("{0}")]
    Answer(Failure),
    /// No connection could be made.
    #[error("cannot reach a Larder server at {target}: {problem}")]
    Unreachable { target: Target, problem: String },
    /// As many calls wait for this replica as may.
    #[error("{limit} calls wait for {target} already; send less, or raise `in_flight` or `connections`")]
    Full { target: Target, limit: usize },
    /// The client was given no seeds.
    #[error("there are no seeds; give at least one target")]
    NoSeeds,
    /// The client cannot be made.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The token file cannot be used.
    #[error("the token file {path}: {problem}", path = .path.display())]
    TokenFile { path: std::path::PathBuf, problem: String },
}

/// How far a call came that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was not sent, or surely not carried out: a replica that ends said so.
    No,
    /// It was sent, and there is no answer: it may have been carried out, or be yet until its deadline.
    Maybe,
    /// The replica answered with an error.
    Answered,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, sent: Sent) -> Self {
        Self(Box::new(Inner { kind, key: None, sent, idempotent: true, attempts: 1 }))
    }

    /// What became of an attempt at this target.
    pub(super) fn of(ended: Ended, target: &Target, idempotent: bool) -> Self {
        let error = match ended {
            Ended::Failed(failure) => failure.into(),
            Ended::Lost(Lost::Unreachable(problem)) => {
                ErrorKind::Unreachable { target: target.clone(), problem: problem.to_string() }.into()
            }
            Ended::Lost(Lost::NotRun) => Self::new(ErrorKind::Answer(Failure::Draining), Sent::No),
            Ended::Lost(Lost::Unknown) => Failure::AppliedUnknown { idempotent }.into(),
            Ended::Lost(Lost::Late) => Failure::DeadlineExceeded.into(),
            Ended::Lost(Lost::Full) => ErrorKind::Full { target: target.clone(), limit: MAX_CALLS }.into(),
        };
        error.idempotent(idempotent)
    }

    pub(super) fn idempotent(mut self, idempotent: bool) -> Self {
        self.0.idempotent = idempotent;
        self
    }

    pub(super) fn on(mut self, key: &str) -> Self {
        self.0.key = Some(key.into());
        self
    }

    pub(super) fn after(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// Whether an earlier attempt may have been carried out.
    pub(super) fn or_earlier(mut self, maybe: bool) -> Self {
        if maybe {
            self.0.sent = Sent::Maybe;
        }
        self
    }

    /// Whether a connection left before the call was begun.
    pub(super) fn was_not_run(&self) -> bool {
        self.0.sent == Sent::No && self.failure() == Some(&Failure::Draining)
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What the server said; `None` when there was none to say anything.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.0.kind {
            ErrorKind::Answer(failure) => Some(failure),
            _ => None,
        }
    }

    /// The gRPC code that it comes to; UNAVAILABLE where no server was reached, INTERNAL where the client is made wrong.
    #[must_use]
    pub fn code(&self) -> tonic::Code {
        match &self.0.kind {
            ErrorKind::Answer(failure) => failure.code(),
            ErrorKind::Unreachable { .. } => tonic::Code::Unavailable,
            ErrorKind::Full { .. } => tonic::Code::ResourceExhausted,
            ErrorKind::NoSeeds | ErrorKind::Channel(_) | ErrorKind::TokenFile { .. } => tonic::Code::Internal,
        }
    }

    /// The key that the call was on, if it was on one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// How far it came: [`Sent::Maybe`] if any attempt was sent and has no answer, else what the last one came to.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.0.sent
    }

    /// How often it was tried.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Whether the same call may succeed later although nothing is changed.
    #[must_use]
    pub fn temporary(&self) -> bool {
        match &self.0.kind {
            ErrorKind::Answer(failure) => failure.temporary(),
            ErrorKind::Unreachable { .. } | ErrorKind::Full { .. } => true,
            ErrorKind::NoSeeds | ErrorKind::Channel(_) | ErrorKind::TokenFile { .. } => false,
        }
    }

    /// Whether the call may be made again as it is: the error is temporary, and the call is idempotent or was surely not
    /// carried out.
    #[must_use]
    pub fn may_be_retried(&self) -> bool {
        self.temporary() && (self.0.idempotent || self.0.sent == Sent::No)
    }

    /// How long the server asks to wait before a retry.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.failure()?.retry_after() {
            Pushback::After(wait) => Some(wait),
            Pushback::Unsaid | Pushback::Never => None,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let sent = match &failure {
            Failure::DeadlineExceeded | Failure::AppliedUnknown { .. } | Failure::Cancelled => Sent::Maybe,
            _ => Sent::Answered,
        };
        Self::new(ErrorKind::Answer(failure), sent)
    }
}

impl From<ErrorKind> for Error {
    /// Of a call that was not sent.
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Answer(failure) => failure.into(),
            kind => Self::new(kind, Sent::No),
        }
    }
}

impl From<ChannelError> for Error {
    fn from(error: ChannelError) -> Self {
        Self::new(ErrorKind::Channel(error), Sent::No)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.kind, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {}
