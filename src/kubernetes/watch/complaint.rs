//! What went wrong with the API server: whether the watch may go on, and what to say, how often.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Error;
use kube::core::Status;
use tokio::time::Instant;

use super::super::slices::{Oddity, SliceError};
use crate::cluster::MAX_ENDPOINTS;

/// How often the same complaint is logged at most.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Oddities that are remembered as said; with more, all are said again.
const MAX_SAID: usize = 256;

/// Why a list or a watch came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("the API server did not answer within {0:?}")]
    Silent(Duration),
    #[error("the API server cannot be reached: {0}")]
    Connection(String),
    #[error("the API server ended a watch as soon as it began")]
    EndedAtOnce,
    #[error(
        "the API server forbids it: {message}; this pod's ServiceAccount needs a Role in the namespace {namespace:?} with the \
         verbs `list` and `watch` on `endpointslices` of the API group `discovery.k8s.io`, and a RoleBinding to it"
    )]
    Forbidden { message: String, namespace: String },
    #[error("the API server refuses this pod's service account: {0}; check that its token is mounted and not expired")]
    Unauthenticated(String),
    #[error("the API server says {code}: {message}")]
    Status { code: u16, message: String },
    #[error("the API server's answer cannot be read: {0}")]
    Malformed(String),
    #[error(transparent)]
    Slice(#[from] SliceError),
    #[error("the Service has {0} endpoints; at most {MAX_ENDPOINTS} are allowed")]
    TooMany(usize),
    #[error(
        "the list's resourceVersion went back from {known} to {found}; if the API server was restored from a backup, restart \
         all replicas together"
    )]
    Older { known: u64, found: u64 },
}

/// What has been logged, so that an outage does not fill the log.
#[derive(Debug, Default)]
pub struct Said {
    last: Option<(String, Instant)>,
    oddities: BTreeSet<String>,
}

impl Trouble {
    pub fn of(error: Error, namespace: &str) -> Self {
        match error {
            Error::Api(status) => Self::of_status(&status, namespace),
            Error::SerdeError(error) => Self::Malformed(error.to_string()),
            Error::FromUtf8(error) => Self::Malformed(error.to_string()),
            error => Self::Connection(with_causes(&error)),
        }
    }

    pub fn of_status(status: &Status, namespace: &str) -> Self {
        let message = if status.message.is_empty() { &status.reason } else { &status.message }.clone();
        match status.code {
            401 => Self::Unauthenticated(message),
            403 => Self::Forbidden { message, namespace: namespace.to_owned() },
            code => Self::Status { code, message },
        }
    }

    /// May the watch go on from the version that it saw last? Otherwise only a list helps.
    pub fn may_resume(&self) -> bool {
        match self {
            Self::Silent(_) | Self::Connection(_) | Self::EndedAtOnce => true,
            // 504 is "too large resource version": this API server is behind, or its past is another.
            Self::Status { code, .. } => matches!(code, 429 | 500 | 502 | 503),
            _ => false,
        }
    }
}

impl Said {
    /// Says it if it is news, or a minute has gone by. Returns whether it did.
    pub fn trouble(&mut self, trouble: &Trouble, age: Duration, wait: Duration) -> bool {
        let (text, now) = (trouble.to_string(), Instant::now());
        if self.last.as_ref().is_some_and(|(last, at)| *last == text && now - *at < SAY_AGAIN) {
            return false;
        }
        tracing::error!(error = %text, ?age, ?wait, "the list of members cannot be followed; the view of before stays");
        self.last = Some((text, now));
        true
    }

    /// It works again.
    pub fn recovered(&mut self) {
        if self.last.take().is_some() {
            tracing::info!("the list of members is followed again");
        }
    }

    pub fn oddity(&mut self, oddity: &Oddity) {
        if self.oddities.len() >= MAX_SAID {
            self.oddities.clear();
        }
        let text = oddity.to_string();
        if !self.oddities.contains(&text) {
            tracing::warn!(oddity = %text, "not every endpoint of the Service is a member");
            self.oddities.insert(text);
        }
    }
}

/// What an operator needs is often the last of them: a name that does not resolve, a certificate.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Trouble {
        let status = Status { code, message: "because".into(), ..Status::default() };
        Trouble::of(Error::Api(status.boxed()), "shop")
    }

    #[test]
    fn what_is_forbidden_says_which_role_is_missing_and_where() {
        let said = status(403).to_string();
        for part in [
            "because",
            "Role",
            "\"shop\"",
            "`list`",
            "`watch`",
            "`endpointslices`",
            "`discovery.k8s.io`",
            "RoleBinding",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(status(401).to_string().contains("token"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_complaint_is_said_once_a_minute() {
        let mut said = Said::default();
        let mut say = |code| said.trouble(&status(code), Duration::ZERO, Duration::ZERO);
        assert_eq!([say(500), say(500), say(503), say(503)], [true, false, true, false]);
        tokio::time::advance(SAY_AGAIN).await;
        assert_eq!([say(503), say(503)], [true, false]);
    }
}
