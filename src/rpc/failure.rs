//! Everything that can go wrong with a call, as one small type. How each is said on the wire is the table in `status`.

use std::borrow::Cow;
use std::time::Duration;

use crate::cache::key::KeyError;
use crate::cache::limits::{MAX_BATCH_ITEMS, MAX_ENTRY_BYTES, MAX_PIPELINE_CALLS, MAX_REQUEST_ID_BYTES};
use crate::cache::version::Version;

/// Why a call failed. `Display` is the sentence that the caller reads: what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    // The request is wrong.
    #[error("{0}")]
    Key(KeyError),
    #[error("key and value have {0} bytes together; at most {MAX_ENTRY_BYTES} are allowed")]
    EntryTooLarge(usize),
    #[error("the TTL of {asked_ms} ms is over the account's maximum of {max_ms} ms")]
    TtlTooLong { asked_ms: u64, max_ms: u64 },
    #[error("field `{field}`: {problem}")]
    Field { field: Cow<'static, str>, problem: Cow<'static, str> },
    #[error("the request id has {0} bytes; at most {MAX_REQUEST_ID_BYTES} are allowed")]
    RequestIdTooLong(usize),
    #[error("the cursor is not one of Larder's; use the `cursor` of an item as it came")]
    Cursor,
    #[error("the batch has {0} items; 1 to {MAX_BATCH_ITEMS} are allowed")]
    BatchSize(usize),
    #[error("the pipeline message has {0} calls; at most {MAX_PIPELINE_CALLS} are allowed")]
    PipelineSize(usize),
    #[error("the request message cannot be decoded: {0}")]
    Malformed(String),
    #[error("the request message is over the limit of {limit} bytes")]
    MessageTooLarge { limit: usize },
    #[error("the request's metadata is over the limit of {limit} bytes")]
    MetadataTooLarge { limit: usize },
    #[error("there is no method {0}")]
    UnknownMethod(String),
    #[error("the message encoding `{0}` is not supported; use identity, gzip or zstd")]
    Encoding(String),
    #[error("metadata `{name}` is malformed: {problem}")]
    Metadata { name: Cow<'static, str>, problem: Cow<'static, str> },

    // Who asks.
    #[error("no token was given; send metadata `authorization: Bearer <token>`")]
    TokenMissing,
    #[error("the token belongs to no account")]
    TokenUnknown,
    #[error("the token may only read; use a read-write token of the account")]
    TokenReadOnly,
    #[error("the Accounts service cannot be asked; try again")]
    AccountsUnavailable,

    // The state of the cache.
    #[error("the key has no value")]
    NotFound,
    #[error("the key has a value already")]
    AlreadyExists,
    #[error("the version is {current}, not the expected one", current = .current.as_u64())]
    VersionMismatch { current: Version },
    #[error("the value is no decimal number of 64 bits, so it cannot be incremented")]
    NotACounter,
    #[error("the sum does not fit 64 bits")]
    CounterOverflow,
    #[error("account `{account}` has {limit} keys, its maximum; delete some or raise `max_cache_keys`")]
    QuotaKeys { account: String, limit: u64 },
    #[error("account `{account}` would exceed its maximum of {limit} bytes; delete some or raise `max_bytes`")]
    QuotaBytes { account: String, limit: u64 },
    #[error("all memory that is left is guaranteed to other accounts")]
    MemoryGuaranteed,

    // Now is not the time.
    #[error("account `{account}` is over its {limit} requests per second")]
    AccountRate { account: String, limit: u32, retry_after: Duration },
    #[error("this replica is over its {limit} requests per second")]
    ServerRate { limit: u32, retry_after: Duration },
    #[error("this replica has as much in progress as it takes")]
    Overloaded { retry_after: Duration },
    #[error("this replica is not serving yet")]
    Starting,
    #[error("this replica is shutting down; go on at another")]
    Draining,
    #[error("the deadline passed")]
    DeadlineExceeded,
    #[error("the caller cancelled the call")]
    Cancelled,
    #[error("no replica serves, so nobody owns the key; try again")]
    NoOwner,
    #[error("the room left to account `{account}` was not known in time, as its keys are counted anew; try again")]
    QuotaUnknown { account: String },
    #[error("the answer was lost on its way, so whether the call was applied is unknown")]
    AppliedUnknown { idempotent: bool },
    #[error("something broke inside Larder; its log says what")]
    Internal,
    /// Said by somebody else: a proxy, the transport, or a newer Larder whose reason this one does not know.
    #[error("{message}")]
    Other { code: i32, message: String },
}

impl Failure {
    /// A wrong field of a request.
    #[must_use]
    pub const fn field(field: &'static str, problem: &'static str) -> Self {
        Self::Field { field: Cow::Borrowed(field), problem: Cow::Borrowed(problem) }
    }

    /// A malformed piece of metadata.
    #[must_use]
    pub const fn metadata(name: &'static str, problem: &'static str) -> Self {
        Self::Metadata { name: Cow::Borrowed(name), problem: Cow::Borrowed(problem) }
    }
}
