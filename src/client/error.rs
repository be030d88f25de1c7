//! Why a call of the client failed.

use std::error::Error as _;
use std::time::Duration;

use tonic::{ConnectError, Status};

use crate::rpc::channels::{ChannelError, Target, causes};
use crate::rpc::failure::Failure;
use crate::rpc::status::{Pushback, failure_of};

/// Why a call failed, and through [`Self::temporary`] whether to try again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered so, or the deadline passed, or the answer was lost.
    #[error("{0}")]
    Answer(Failure),
    /// No connection could be made, so the call was surely not applied.
    #[error("cannot reach a Larder server at {target}: {problem}")]
    Unreachable { target: Target, problem: String },
    /// The client cannot be made.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

impl Error {
    pub(super) fn of(status: &Status, target: &Target, idempotent: bool) -> Self {
        if let Some(problem) = connect_problem(status) {
            return Self::Unreachable { target: target.clone(), problem };
        }
        match failure_of(status) {
            // A status with a source was made by the transport here: the connection broke after the call was sent.
            Failure::Other { .. } | Failure::Cancelled if status.source().is_some() => {
                Self::Answer(Failure::AppliedUnknown { idempotent })
            }
            failure => Self::Answer(failure),
        }
    }

    /// What the server said; `None` when there was none to say anything.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Answer(failure) => Some(failure),
            Self::Unreachable { .. } | Self::Channel(_) => None,
        }
    }

    /// Whether the same call may succeed later. Repeat it only if it is idempotent, or surely was not applied.
    #[must_use]
    pub fn temporary(&self) -> bool {
        match self {
            Self::Answer(failure) => failure.temporary(),
            Self::Unreachable { .. } => true,
            Self::Channel(_) => false,
        }
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

/// What went wrong while connecting, if that is what the status says.
fn connect_problem(status: &Status) -> Option<String> {
    let mut next = status.source();
    while let Some(error) = next {
        if error.is::<ConnectError>() {
            return Some(causes(error));
        }
        next = error.source();
    }
    None
}
