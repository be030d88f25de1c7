//! The one table that says how each [`Failure`] travels, and the only place where a `tonic::Status` is made, in both
//! directions. `docs/errors.md` is generated from it.
//!
//! Every error status carries a `google.rpc.Status` in `grpc-status-details-bin` (see `proto/larder/v1/error.proto`). What is
//! not here: which failure a situation is; the validators and the store decide that.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use prost::Message as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::failure::Failure;
use super::metadata::{GRPC_MESSAGE, GRPC_RETRY_PUSHBACK_MS, GRPC_STATUS, GRPC_STATUS_DETAILS};
use super::proto::{tutorial, v1};

mod details;
mod facts;
#[cfg(test)]
mod tests;

/// The `domain` of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "larder.dev";

/// Bytes of an error's sentence; longer ones are cut. Half of the metadata that a stock client accepts is 4 KiB, and the
/// sentence travels three times.
const MAX_MESSAGE_BYTES: usize = 512;

/// Until an account service that is down may be asked again.
const ACCOUNTS_RETRY: Duration = Duration::from_secs(1);
/// Until a replica that starts may serve.
const STARTING_RETRY: Duration = Duration::from_millis(250);
/// Until a client of a draining replica has had the time to connect to another.
const DRAINING_RETRY: Duration = Duration::from_millis(100);
/// Until a replica may have begun to serve.
const NO_OWNER_RETRY: Duration = Duration::from_millis(250);
/// Until the keys of an account may have been counted.
const QUOTA_RETRY: Duration = Duration::from_millis(250);
/// Until a lost answer is worth asking for again.
const LOST_RETRY: Duration = Duration::from_millis(50);
/// Until entries of other accounts may have expired.
const MEMORY_RETRY: Duration = Duration::from_secs(1);

/// What a stock client's retry policy is told (gRFC A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Nothing: the client's own policy decides.
    Unsaid,
    /// Retry after this long.
    After(Duration),
    /// Do not retry by yourself.
    Never,
}

/// A row of the table.
struct Row {
    code: Code,
    reason: &'static str,
    /// The `user_error_code`: 1xx the request is wrong, 2xx who asks, 3xx the state of the cache, 4xx now is not the time.
    number: i64,
    temporary: bool,
    pushback: Pushback,
}

/// A failure that stays as long as the caller changes nothing.
const fn lasting(code: Code, reason: &'static str, number: i64) -> Row {
    Row { code, reason, number, temporary: false, pushback: Pushback::Unsaid }
}

/// The same under a code that stock policies retry, so they are told not to.
const fn never(code: Code, reason: &'static str, number: i64) -> Row {
    Row { code, reason, number, temporary: false, pushback: Pushback::Never }
}

/// A failure that a retry after a while may overcome.
const fn passing(code: Code, reason: &'static str, number: i64, after: Duration) -> Row {
    Row { code, reason, number, temporary: true, pushback: Pushback::After(after) }
}

/// The table. A number or a reason, once published, never changes its meaning.
fn row(failure: &Failure) -> Row {
    use Failure as F;
    match failure {
        F::Key(_) => lasting(Code::InvalidArgument, "KEY_INVALID", 101),
        F::EntryTooLarge(_) => lasting(Code::InvalidArgument, "ENTRY_TOO_LARGE", 102),
        F::TtlTooLong { .. } => lasting(Code::InvalidArgument, "TTL_TOO_LONG", 103),
        F::Field { .. } => lasting(Code::InvalidArgument, "FIELD_INVALID", 104),
        F::RequestIdTooLong(_) => lasting(Code::InvalidArgument, "REQUEST_ID_TOO_LONG", 105),
        F::Cursor => lasting(Code::InvalidArgument, "CURSOR_INVALID", 106),
        F::BatchSize(_) => lasting(Code::InvalidArgument, "BATCH_SIZE", 107),
        F::PipelineSize(_) => lasting(Code::InvalidArgument, "PIPELINE_SIZE", 108),
        F::Malformed(_) => lasting(Code::InvalidArgument, "MESSAGE_MALFORMED", 109),
        // gRPC's own code for both (doc/statuscodes.md), which policies made for rate limits would retry.
        F::MessageTooLarge { .. } => never(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", 110),
        F::MetadataTooLarge { .. } => never(Code::ResourceExhausted, "METADATA_TOO_LARGE", 111),
        F::UnknownMethod(_) => lasting(Code::Unimplemented, "METHOD_UNKNOWN", 112),
        F::Encoding(_) => lasting(Code::Unimplemented, "ENCODING_UNSUPPORTED", 113),
        F::Metadata { .. } => lasting(Code::InvalidArgument, "METADATA_INVALID", 114),

        F::TokenMissing => lasting(Code::Unauthenticated, "TOKEN_MISSING", 201),
        F::TokenUnknown => lasting(Code::Unauthenticated, "TOKEN_UNKNOWN", 202),
        F::TokenReadOnly => lasting(Code::PermissionDenied, "TOKEN_READ_ONLY", 203),
        F::AccountsUnavailable => passing(Code::Unavailable, "ACCOUNTS_UNAVAILABLE", 204, ACCOUNTS_RETRY),

        F::NotFound => lasting(Code::NotFound, "NOT_FOUND", 301),
        F::AlreadyExists => lasting(Code::AlreadyExists, "ALREADY_EXISTS", 302),
        F::VersionMismatch { .. } => lasting(Code::Aborted, "VERSION_MISMATCH", 303),
        F::NotACounter => lasting(Code::FailedPrecondition, "NOT_A_COUNTER", 304),
        F::CounterOverflow => lasting(Code::OutOfRange, "COUNTER_OVERFLOW", 305),
        F::QuotaKeys { .. } => lasting(Code::FailedPrecondition, "QUOTA_KEYS", 306),
        F::QuotaBytes { .. } => lasting(Code::FailedPrecondition, "QUOTA_BYTES", 307),
        F::MemoryGuaranteed => passing(Code::ResourceExhausted, "MEMORY_GUARANTEED", 308, MEMORY_RETRY),

        F::AccountRate { retry_after, .. } => passing(Code::ResourceExhausted, "ACCOUNT_RATE", 401, *retry_after),
        F::ServerRate { retry_after, .. } => passing(Code::ResourceExhausted, "SERVER_RATE", 402, *retry_after),
        F::Overloaded { retry_after } => passing(Code::ResourceExhausted, "OVERLOADED", 403, *retry_after),
        F::Starting => passing(Code::Unavailable, "STARTING", 404, STARTING_RETRY),
        F::Draining => passing(Code::Unavailable, "DRAINING", 405, DRAINING_RETRY),
        F::DeadlineExceeded => Row { temporary: true, ..lasting(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 406) },
        F::Cancelled => lasting(Code::Cancelled, "CANCELLED", 407),
        F::AppliedUnknown { idempotent: true } => passing(Code::Unavailable, "APPLIED_UNKNOWN", 408, LOST_RETRY),
        F::AppliedUnknown { idempotent: false } => never(Code::Unavailable, "APPLIED_UNKNOWN", 408),
        F::NoOwner => passing(Code::Unavailable, "NO_OWNER", 411, NO_OWNER_RETRY),
        F::QuotaUnknown { .. } => passing(Code::Unavailable, "QUOTA_UNKNOWN", 412, QUOTA_RETRY),
        F::Internal => lasting(Code::Internal, "INTERNAL", 409),
        F::Other { code, .. } => {
            let code = Code::from(*code);
            Row { temporary: code == Code::Unavailable, ..lasting(code, "OTHER", 410) }
        }
    }
}

impl Failure {
    /// The gRPC code.
    #[must_use]
    pub fn code(&self) -> Code {
        row(self).code
    }

    /// The stable name, in capitals and underscores.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        row(self).reason
    }

    /// The stable number.
    #[must_use]
    pub fn user_error_code(&self) -> i64 {
        row(self).number
    }

    /// Whether the same call may succeed later although the caller changes nothing.
    #[must_use]
    pub fn temporary(&self) -> bool {
        row(self).temporary
    }

    /// What stock retry policies are told.
    #[must_use]
    pub fn retry_after(&self) -> Pushback {
        row(self).pushback
    }

    /// The sentence for the caller, cut to a bounded length.
    #[must_use]
    pub fn sentence(&self) -> String {
        facts::cut(self.to_string(), MAX_MESSAGE_BYTES)
    }
}

impl Pushback {
    /// As `grpc-retry-pushback-ms` and `larder.v1.Error.retry_after_ms` say it: milliseconds, rounded up and at least 1, so
    /// that a client which obeys is never early; -1: never.
    #[must_use]
    pub fn as_millis(self) -> Option<i64> {
        match self {
            Self::Unsaid => None,
            Self::After(wait) => Some(i64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i64::MAX).max(1)),
            Self::Never => Some(-1),
        }
    }
}

/// The failure as a result inside a batch or a pipeline says it.
#[must_use]
pub fn to_error(failure: &Failure) -> v1::Error {
    let row = row(failure);
    v1::Error {
        code: i64::from(row.code as i32),
        message: failure.sentence(),
        temporary: row.temporary,
        user_error_code: row.number,
        reason: row.reason.to_owned(),
        retry_after_ms: row.pushback.as_millis().unwrap_or(0),
        metadata: facts::of(failure),
    }
}

/// The failure as a status with all its details.
#[must_use]
pub fn to_status(failure: &Failure) -> Status {
    let row = row(failure);
    let mut metadata = MetadataMap::new();
    if let Some(millis) = row.pushback.as_millis() {
        metadata.insert(GRPC_RETRY_PUSHBACK_MS, MetadataValue::from(millis));
    }
    let details = Bytes::from(details::encode(failure));
    Status::with_details_and_metadata(row.code, failure.sentence(), details, metadata)
}

/// The failure as the trailers (or the only headers) of an answer that is framed by hand.
#[must_use]
pub fn to_trailers(failure: &Failure) -> HeaderMap {
    /// A miss is a cache's most common answer, and always the same.
    static MISS: LazyLock<HeaderMap> = LazyLock::new(|| build_trailers(&Failure::NotFound));
    if matches!(failure, Failure::NotFound) { MISS.clone() } else { build_trailers(failure) }
}

fn build_trailers(failure: &Failure) -> HeaderMap {
    let row = row(failure);
    let mut trailers = HeaderMap::with_capacity(5);
    trailers.insert(GRPC_STATUS, HeaderValue::from(row.code as i32));
    trailers.insert(GRPC_MESSAGE, percent_encoded(&failure.sentence()));
    trailers.insert(GRPC_STATUS_DETAILS, ascii(STANDARD_NO_PAD.encode(details::encode(failure))));
    if let Some(millis) = row.pushback.as_millis() {
        trailers.insert(GRPC_RETRY_PUSHBACK_MS, HeaderValue::from(millis));
    }
    trailers
}

/// The failure in the tutorial's words.
#[must_use]
pub fn to_tutorial(failure: &Failure) -> tutorial::Error {
    let row = row(failure);
    tutorial::Error {
        code: i64::from(row.code as i32),
        messsage: failure.sentence(),
        temporary: row.temporary,
        user_error_code: row.number,
    }
}

/// The value of the tutorial's trailer `rpc-error`: the padded base64 of its `Error`.
#[must_use]
pub fn rpc_error_trailer(failure: &Failure) -> HeaderValue {
    ascii(STANDARD.encode(to_tutorial(failure).encode_to_vec()))
}

/// What a status says. One that is not Larder's becomes [`Failure::Other`], but for deadlines and cancellations.
#[must_use]
pub fn failure_of(status: &Status) -> Failure {
    if let Some(error) = details::decode(status.details()) {
        return failure_of_error(&error);
    }
    match status.code() {
        Code::DeadlineExceeded => Failure::DeadlineExceeded,
        // tonic's word for a deadline that its own timer saw pass.
        Code::Cancelled if status.message() == "Timeout expired" => Failure::DeadlineExceeded,
        Code::Cancelled => Failure::Cancelled,
        code => Failure::Other { code: code as i32, message: status.message().to_owned() },
    }
}

/// What an error inside a batch or a pipeline says. A reason that is not known, or lacks its facts, becomes
/// [`Failure::Other`].
#[must_use]
pub fn failure_of_error(error: &v1::Error) -> Failure {
    facts::failure(error).unwrap_or_else(|| Failure::Other {
        code: i32::try_from(error.code).unwrap_or(Code::Unknown as i32),
        message: error.message.clone(),
    })
}

/// What tonic's codec means when it refuses a request message: it says `OUT_OF_RANGE` for a message over the limit,
/// `RESOURCE_EXHAUSTED` for one that is so when decompressed, INTERNAL for one that cannot be decoded.
#[must_use]
pub fn failure_of_codec(status: &Status, limit: usize) -> Failure {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Failure::MessageTooLarge { limit },
        Code::Unimplemented => Failure::Encoding(status.message().to_owned()),
        Code::Cancelled => Failure::Cancelled,
        Code::DeadlineExceeded => Failure::DeadlineExceeded,
        _ => Failure::Malformed(status.message().to_owned()),
    }
}

/// Percent-encodes a `grpc-message` as the gRPC HTTP/2 protocol says: everything outside 0x20..0x7E, and '%'.
fn percent_encoded(text: &str) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    ascii(out)
}

/// A header value of text that is printable ASCII by construction.
fn ascii(text: String) -> HeaderValue {
    debug_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}
