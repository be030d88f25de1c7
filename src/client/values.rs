//! What calls take and answer.

use std::time::Duration;

use bytes::Bytes;

use crate::rpc::proto::v1;

/// A value and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub value: Bytes,
    /// Which write it is from; opaque.
    pub version: u64,
    /// `None`: it does not expire.
    pub remaining_ttl: Option<Duration>,
}

/// When a store takes place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    Always,
    /// Only if the key has no value.
    IfAbsent,
    /// Only if the key has a value.
    IfPresent,
    /// Only if this is the current version.
    IfVersion(u64),
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// Time to live, in whole milliseconds rounded up; `None`: the account's default, else for ever.
    pub ttl: Option<Duration>,
    pub condition: Condition,
}

/// How a counter is incremented.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncrementOptions {
    /// Makes the call safe to repeat, up to 64 bytes; empty: none.
    pub request_id: String,
    /// Time to live if this call creates the counter; `None`: the account's default, else for ever.
    pub ttl: Option<Duration>,
}

/// How a touch compares the new time to live with the remaining one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Touch {
    /// Take the new one.
    #[default]
    Overwrite,
    /// Take the longer one.
    ExtendOnly,
    /// Take the shorter one.
    ShortenOnly,
}

/// What a touch did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// `None`: the entry does not expire.
    pub remaining_ttl: Option<Duration>,
    pub version: u64,
    /// Whether the expiry changed.
    pub changed: bool,
}

/// What an increment answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub value: i64,
    pub version: u64,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Serving,
    /// It starts or ends.
    NotServing,
    Unknown,
}

impl Touch {
    pub(super) fn number(self) -> i32 {
        let mode = match self {
            Self::Overwrite => v1::TouchMode::Overwrite,
            Self::ExtendOnly => v1::TouchMode::ExtendOnly,
            Self::ShortenOnly => v1::TouchMode::ShortenOnly,
        };
        mode.into()
    }
}

/// Milliseconds for the wire, rounded up so that a short time does not become 0, which means another thing.
pub(super) fn millis(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1))
}

pub(super) fn duration(millis: u64) -> Option<Duration> {
    (millis != 0).then(|| Duration::from_millis(millis))
}
