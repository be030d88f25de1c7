//! How what is said to another replica fails. The one question is whether it may have been heard.

/// Why a message of the hand-off has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there, or another process does (rule 18): this one has heard nothing and never will.
    #[error("the connection was refused; no replica listens there, or another one")]
    Refused,
    /// Anything else. It may have been heard.
    #[error("no answer came")]
    Lost,
}

/// Why a forward has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// It was surely not applied.
    #[error("the owner was not reached, so nothing was done")]
    Refused,
    /// As much is under way from this worker to that owner as may be: it is slow. It was surely not applied.
    #[error("the owner takes no more at the moment, so nothing was done")]
    Full,
    /// It may have been applied, or be applied until its deadline.
    #[error("the answer was lost on its way, so whether it was applied is unknown")]
    Unknown,
}
