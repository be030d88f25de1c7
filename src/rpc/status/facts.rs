//! The facts of a failure: what travels as `metadata` of `larder.v1.Error` and `google.rpc.ErrorInfo`, and back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use crate::cache::key::KeyError;
use crate::cache::limits::{MAX_BATCH_ITEMS, MAX_ENTRY_BYTES, MAX_KEY_BYTES, MAX_PIPELINE_CALLS, MAX_REQUEST_ID_BYTES};
use crate::cache::version::Version;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// Bytes of a fact that the caller chose (the name of a method or an encoding); longer ones are cut.
const MAX_FACT_BYTES: usize = 256;

/// The facts of a failure.
pub fn of(failure: &Failure) -> HashMap<String, String> {
    use Failure as F;
    let limit = |limit: usize| ("limit", limit.to_string());
    let facts = match failure {
        F::Key(KeyError::TooLong(bytes)) => vec![("bytes", bytes.to_string()), limit(MAX_KEY_BYTES)],
        F::EntryTooLarge(bytes) => vec![("bytes", bytes.to_string()), limit(MAX_ENTRY_BYTES)],
        F::RequestIdTooLong(bytes) => vec![("bytes", bytes.to_string()), limit(MAX_REQUEST_ID_BYTES)],
        F::TtlTooLong { asked_ms, max_ms } => vec![("asked_ms", asked_ms.to_string()), ("limit", max_ms.to_string())],
        F::Field { field, problem } => vec![("field", field.to_string()), ("problem", problem.to_string())],
        F::BatchSize(items) => vec![("items", items.to_string()), limit(MAX_BATCH_ITEMS)],
        F::PipelineSize(calls) => vec![("calls", calls.to_string()), limit(MAX_PIPELINE_CALLS)],
        F::Malformed(problem) => vec![("problem", problem.clone())],
        F::MessageTooLarge { limit: bytes } | F::MetadataTooLarge { limit: bytes } => vec![limit(*bytes)],
        F::UnknownMethod(method) => vec![("method", method.clone())],
        F::Encoding(encoding) => vec![("encoding", encoding.clone())],
        F::Metadata { name, problem } => vec![("name", name.to_string()), ("problem", problem.to_string())],
        F::VersionMismatch { current } => vec![("current_version", current.as_u64().to_string())],
        F::QuotaKeys { account, limit } | F::QuotaBytes { account, limit } => {
            vec![("account", account.clone()), ("limit", limit.to_string())]
        }
        F::QuotaUnknown { account } => vec![("account", account.clone())],
        F::AccountRate { account, limit, .. } => vec![("account", account.clone()), ("limit", limit.to_string())],
        F::ServerRate { limit, .. } => vec![("limit", limit.to_string())],
        F::AppliedUnknown { .. } => vec![("applied", "unknown".to_owned())],
        _ => Vec::new(),
    };
    facts.into_iter().map(|(name, fact)| (name.to_owned(), cut(fact, MAX_FACT_BYTES))).collect()
}

/// The field of the request that a failure blames, for `google.rpc.BadRequest`.
pub fn field(failure: &Failure) -> Option<&str> {
    match failure {
        Failure::Key(_) => Some("key"),
        Failure::EntryTooLarge(_) => Some("val"),
        Failure::TtlTooLong { .. } => Some("ttl_ms"),
        Failure::Field { field, .. } => Some(field),
        Failure::RequestIdTooLong(_) => Some("request_id"),
        Failure::Cursor => Some("cursor"),
        Failure::BatchSize(_) => Some("items"),
        Failure::PipelineSize(_) => Some("calls"),
        Failure::Metadata { name, .. } => Some(name),
        _ => None,
    }
}

/// The failure that an error's reason and facts say; `None` when they say none that is known.
pub fn failure(error: &v1::Error) -> Option<Failure> {
    use Failure as F;
    let text = |name: &str| error.metadata.get(name).cloned();
    let number = |name: &str| error.metadata.get(name)?.parse::<u64>().ok();
    let size = |name: &str| usize::try_from(number(name)?).ok();
    let small = |name: &str| u32::try_from(number(name)?).ok();
    let retry_after = Duration::from_millis(u64::try_from(error.retry_after_ms).unwrap_or(0));
    Some(match error.reason.as_str() {
        "KEY_INVALID" => F::Key(size("bytes").map_or(KeyError::Empty, KeyError::TooLong)),
        "ENTRY_TOO_LARGE" => F::EntryTooLarge(size("bytes")?),
        "TTL_TOO_LONG" => F::TtlTooLong { asked_ms: number("asked_ms")?, max_ms: number("limit")? },
        "FIELD_INVALID" => F::Field { field: Cow::Owned(text("field")?), problem: Cow::Owned(text("problem")?) },
        "REQUEST_ID_TOO_LONG" => F::RequestIdTooLong(size("bytes")?),
        "CURSOR_INVALID" => F::Cursor,
        "BATCH_SIZE" => F::BatchSize(size("items")?),
        "PIPELINE_SIZE" => F::PipelineSize(size("calls")?),
        "MESSAGE_MALFORMED" => F::Malformed(text("problem")?),
        "MESSAGE_TOO_LARGE" => F::MessageTooLarge { limit: size("limit")? },
        "METADATA_TOO_LARGE" => F::MetadataTooLarge { limit: size("limit")? },
        "METHOD_UNKNOWN" => F::UnknownMethod(text("method")?),
        "ENCODING_UNSUPPORTED" => F::Encoding(text("encoding")?),
        "METADATA_INVALID" => F::Metadata { name: Cow::Owned(text("name")?), problem: Cow::Owned(text("problem")?) },
        "TOKEN_MISSING" => F::TokenMissing,
        "TOKEN_UNKNOWN" => F::TokenUnknown,
        "TOKEN_READ_ONLY" => F::TokenReadOnly,
        "ACCOUNTS_UNAVAILABLE" => F::AccountsUnavailable,
        "NOT_FOUND" => F::NotFound,
        "ALREADY_EXISTS" => F::AlreadyExists,
        "VERSION_MISMATCH" => F::VersionMismatch { current: Version::from_u64(number("current_version")?) },
        "NOT_A_COUNTER" => F::NotACounter,
        "COUNTER_OVERFLOW" => F::CounterOverflow,
        "QUOTA_KEYS" => F::QuotaKeys { account: text("account")?, limit: number("limit")? },
        "QUOTA_BYTES" => F::QuotaBytes { account: text("account")?, limit: number("limit")? },
        "MEMORY_GUARANTEED" => F::MemoryGuaranteed,
        "ACCOUNT_RATE" => F::AccountRate { account: text("account")?, limit: small("limit")?, retry_after },
        "SERVER_RATE" => F::ServerRate { limit: small("limit")?, retry_after },
        "OVERLOADED" => F::Overloaded { retry_after },
        "STARTING" => F::Starting,
        "DRAINING" => F::Draining,
        "DEADLINE_EXCEEDED" => F::DeadlineExceeded,
        "CANCELLED" => F::Cancelled,
        "APPLIED_UNKNOWN" => F::AppliedUnknown { idempotent: error.retry_after_ms >= 0 },
        "NO_OWNER" => F::NoOwner,
        "QUOTA_UNKNOWN" => F::QuotaUnknown { account: text("account")? },
        "INTERNAL" => F::Internal,
        _ => return None,
    })
}

/// Cuts a text to at most `limit` bytes, between characters.
pub fn cut(mut text: String, limit: usize) -> String {
    text.truncate(text.floor_char_boundary(limit));
    text
}
