//! All request validation: from messages to values that the store takes. Nothing behind it checks again, and nothing before it
//! decides.
//!
//! Not here: whether the caller may (`server::wall`), and whether the state of the cache allows it (the store).

use super::failure::Failure;
use super::proto::{tutorial, v1};
use crate::cache::cursor::{Cursor, CursorError};
use crate::cache::key::{Key, KeyError};
use crate::cache::limits::{
    MAX_BATCH_ITEMS, MAX_ENTRY_BYTES, MAX_KEY_BYTES, MAX_PIPELINE_CALLS, MAX_REQUEST_ID_BYTES, MAX_TTL_MS,
};
use crate::cache::store::{Condition, StoreError, TouchMode};
use crate::cache::version::Version;

mod decode;
mod pipeline;
#[cfg(test)]
mod tests;

pub use decode::{Kind, count_items, decode, decode_and_check};
pub use pipeline::{PipelineCall, PipelineCalls, PipelineKind};

/// What an account says about times to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlPolicy {
    /// For a TTL of 0, in milliseconds; `None`: the entry does not expire.
    pub default_ms: Option<u64>,
    /// The longest that may be asked for, in milliseconds.
    pub max_ms: u64,
}

/// A store that may be carried out.
#[derive(Clone, Copy, Debug)]
pub struct StoreCall<'a> {
    pub key: Key<'a>,
    pub value: &'a [u8],
    /// In milliseconds; `None`: the entry does not expire.
    pub ttl_ms: Option<u64>,
    pub condition: Condition,
}

/// A delete that may be carried out.
#[derive(Clone, Copy, Debug)]
pub struct DeleteCall<'a> {
    pub key: Key<'a>,
    /// Only this version; `None`: any.
    pub if_version: Option<Version>,
}

/// A touch that may be carried out.
#[derive(Clone, Copy, Debug)]
pub struct TouchCall<'a> {
    pub key: Key<'a>,
    /// In milliseconds from now; `None`: the entry will not expire.
    pub ttl_ms: Option<u64>,
    pub mode: TouchMode,
}

/// An increment that may be carried out.
#[derive(Clone, Copy, Debug)]
pub struct IncrementCall<'a> {
    pub key: Key<'a>,
    pub delta: i64,
    /// Empty: none.
    pub request_id: &'a str,
    /// For a counter that is created, in milliseconds; `None`: it does not expire.
    pub ttl_ms: Option<u64>,
}

/// A dump that may be carried out.
#[derive(Clone, Debug)]
pub struct DumpCall<'a> {
    /// Empty: all keys.
    pub prefix: &'a str,
    pub after: Option<Cursor>,
}

/// A store of the tutorial's API.
#[derive(Clone, Copy, Debug)]
pub struct TutorialStoreCall<'a> {
    pub key: Key<'a>,
    pub value: &'a [u8],
}

/// One operation of a pipeline that may be carried out.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    Get(Key<'a>),
    Store(StoreCall<'a>),
    Delete(DeleteCall<'a>),
    Touch(TouchCall<'a>),
    Increment(IncrementCall<'a>),
}

/// Checks a store. The token in the message is not looked at.
///
/// # Errors
/// When a field is wrong, or the TTL is over the account's maximum.
pub fn store_call(request: &v1::StoreRequest, ttl: TtlPolicy) -> Result<StoreCall<'_>, Failure> {
    let key = entry(&request.key, &request.val)?;
    let condition = condition(request.condition, request.expected_version)?;
    Ok(StoreCall { key, value: &request.val, ttl_ms: ttl.resolve(request.ttl_ms)?, condition })
}

/// Checks a get.
///
/// # Errors
/// When the key is none.
pub fn get_call(request: &v1::GetRequest) -> Result<Key<'_>, Failure> {
    Ok(Key::new(&request.key)?)
}

/// Checks a delete.
///
/// # Errors
/// When the key is none.
pub fn delete_call(request: &v1::DeleteRequest) -> Result<DeleteCall<'_>, Failure> {
    let if_version = (request.if_version != 0).then(|| Version::from_u64(request.if_version));
    Ok(DeleteCall { key: Key::new(&request.key)?, if_version })
}

/// Checks a touch.
///
/// # Errors
/// When a field is wrong, or the TTL is over the account's maximum.
pub fn touch_call(request: &v1::TouchRequest, ttl: TtlPolicy) -> Result<TouchCall<'_>, Failure> {
    let key = Key::new(&request.key)?;
    let mode = match v1::TouchMode::try_from(request.mode) {
        Ok(v1::TouchMode::Overwrite) => TouchMode::Overwrite,
        Ok(v1::TouchMode::ExtendOnly) => TouchMode::ExtendOnly,
        Ok(v1::TouchMode::ShortenOnly) => TouchMode::ShortenOnly,
        Err(_) => return Err(Failure::field("mode", UNKNOWN_NUMBER)),
    };
    Ok(TouchCall { key, ttl_ms: ttl.resolve(request.ttl_ms)?, mode })
}

/// Checks an increment.
///
/// # Errors
/// When a field is wrong, or the TTL is over the account's maximum.
pub fn increment_call(request: &v1::IncrementRequest, ttl: TtlPolicy) -> Result<IncrementCall<'_>, Failure> {
    let key = Key::new(&request.key)?;
    if request.request_id.len() > MAX_REQUEST_ID_BYTES {
        return Err(Failure::RequestIdTooLong(request.request_id.len()));
    }
    let ttl_ms = ttl.resolve(request.ttl_ms)?;
    Ok(IncrementCall { key, delta: request.delta, request_id: &request.request_id, ttl_ms })
}

/// Checks a dump.
///
/// # Errors
/// When the prefix is too long or the cursor is none.
pub fn dump_call(request: &v1::DumpRequest) -> Result<DumpCall<'_>, Failure> {
    let after = (!request.cursor.is_empty()).then(|| Cursor::from_bytes(&request.cursor)).transpose()?;
    Ok(DumpCall { prefix: prefix(&request.prefix)?, after })
}

/// Checks a delete by prefix.
///
/// # Errors
/// When the prefix is empty (a slip must not remove everything) or too long.
pub fn delete_prefix_call(request: &v1::DeletePrefixRequest) -> Result<&str, Failure> {
    if request.prefix.is_empty() {
        return Err(Failure::field("prefix", "it is empty; to remove everything, call Clear"));
    }
    prefix(&request.prefix)
}

/// Checks how many items a batch has.
///
/// # Errors
/// When it has none or too many.
pub fn batch_size(items: usize) -> Result<(), Failure> {
    if (1..=MAX_BATCH_ITEMS).contains(&items) { Ok(()) } else { Err(Failure::BatchSize(items)) }
}

/// Checks an item of a batch of gets.
///
/// # Errors
/// When it has no request, or a wrong one.
pub fn batch_get_item(item: &v1::BatchGetItem) -> Result<Key<'_>, Failure> {
    get_call(item.get.as_ref().ok_or(Failure::field("get", MISSING))?)
}

/// Checks an item of a batch of stores.
///
/// # Errors
/// When it has no request, a wrong one, or a token of its own.
pub fn batch_store_item(item: &v1::BatchStoreItem, ttl: TtlPolicy) -> Result<StoreCall<'_>, Failure> {
    inner_store(item.store.as_ref().ok_or(Failure::field("store", MISSING))?, ttl)
}

/// Checks an item of a batch of deletes.
///
/// # Errors
/// When it has no request, or a wrong one.
pub fn batch_delete_item(item: &v1::BatchDeleteItem) -> Result<DeleteCall<'_>, Failure> {
    delete_call(item.delete.as_ref().ok_or(Failure::field("delete", MISSING))?)
}

/// Checks how many calls a message of a pipeline has.
///
/// # Errors
/// When it has too many.
pub fn pipeline_size(calls: usize) -> Result<(), Failure> {
    if calls <= MAX_PIPELINE_CALLS { Ok(()) } else { Err(Failure::PipelineSize(calls)) }
}

/// Checks a store of the tutorial's API. The token is not looked at.
///
/// # Errors
/// When the key is none or the entry is too large.
pub fn tutorial_store_call(request: &tutorial::StoreReq) -> Result<TutorialStoreCall<'_>, Failure> {
    Ok(TutorialStoreCall { key: entry(&request.key, &request.val)?, value: &request.val })
}

/// Checks a get of the tutorial's API.
///
/// # Errors
/// When the key is none.
pub fn tutorial_get_call(request: &tutorial::GetReq) -> Result<Key<'_>, Failure> {
    Ok(Key::new(&request.key)?)
}

const UNKNOWN_NUMBER: &str = "it is none of the numbers that this server knows";
const MISSING: &str = "it is missing";

fn entry<'a>(key: &'a str, value: &[u8]) -> Result<Key<'a>, Failure> {
    let key = Key::new(key)?;
    let bytes = key.as_bytes().len() + value.len();
    if bytes > MAX_ENTRY_BYTES { Err(Failure::EntryTooLarge(bytes)) } else { Ok(key) }
}

fn condition(number: i32, expected_version: u64) -> Result<Condition, Failure> {
    let condition = match v1::StoreCondition::try_from(number) {
        Ok(v1::StoreCondition::Unspecified) => Condition::Always,
        Ok(v1::StoreCondition::IfAbsent) => Condition::IfAbsent,
        Ok(v1::StoreCondition::IfPresent) => Condition::IfPresent,
        Ok(v1::StoreCondition::IfVersion) => Condition::IfVersion(Version::from_u64(expected_version)),
        Err(_) => return Err(Failure::field("condition", UNKNOWN_NUMBER)),
    };
    match (condition, expected_version) {
        (Condition::IfVersion(_), 0) => Err(Failure::field(
            "expected_version",
            "it is 0, which no entry has; for a key without a value use IF_ABSENT",
        )),
        (Condition::IfVersion(_), _) | (_, 0) => Ok(condition),
        _ => Err(Failure::field("expected_version", "it goes with the condition IF_VERSION only; leave it 0")),
    }
}

fn inner_store(request: &v1::StoreRequest, ttl: TtlPolicy) -> Result<StoreCall<'_>, Failure> {
    if !request.account_token.is_empty() {
        return Err(Failure::field("account_token", "it must be empty here; the enclosing call's token counts"));
    }
    store_call(request, ttl)
}

fn prefix(prefix: &str) -> Result<&str, Failure> {
    if prefix.len() > MAX_KEY_BYTES {
        return Err(Failure::field("prefix", "it is longer than any key, 4096 bytes"));
    }
    Ok(prefix)
}

impl TtlPolicy {
    /// No default, and the server's own maximum.
    pub const NONE: Self = Self { default_ms: None, max_ms: MAX_TTL_MS };

    /// The same under a maximum of the server's own.
    #[must_use]
    pub fn at_most(self, max_ms: u64) -> Self {
        Self { default_ms: self.default_ms.map(|default| default.min(max_ms)), max_ms: self.max_ms.min(max_ms) }
    }

    /// What a TTL in a request means: 0 is the account's default.
    ///
    /// # Errors
    /// [`Failure::TtlTooLong`] when it is over the maximum.
    pub fn resolve(self, asked_ms: u64) -> Result<Option<u64>, Failure> {
        match asked_ms {
            0 => Ok(self.default_ms),
            _ if asked_ms > self.max_ms => Err(Failure::TtlTooLong { asked_ms, max_ms: self.max_ms }),
            _ => Ok(Some(asked_ms)),
        }
    }
}

impl StoreCall<'_> {
    /// Whether doing it twice is doing it once.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.condition == Condition::Always
    }
}

impl DeleteCall<'_> {
    /// Whether doing it twice is doing it once.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.if_version.is_none()
    }
}

impl TouchCall<'_> {
    /// Whether doing it twice is doing it once.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.mode == TouchMode::Overwrite
    }
}

impl IncrementCall<'_> {
    /// Whether doing it twice is doing it once.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        !self.request_id.is_empty()
    }
}

impl Operation<'_> {
    /// Whether doing it twice is doing it once.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        match self {
            Self::Get(_) => true,
            Self::Store(call) => call.is_idempotent(),
            Self::Delete(call) => call.is_idempotent(),
            Self::Touch(call) => call.is_idempotent(),
            Self::Increment(call) => call.is_idempotent(),
        }
    }

    /// Whether a read-only token may not do it.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Get(_))
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<CursorError> for Failure {
    fn from(_: CursorError) -> Self {
        Self::Cursor
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AlreadyExists => Self::AlreadyExists,
            StoreError::NotFound => Self::NotFound,
            StoreError::VersionMismatch { current } => Self::VersionMismatch { current },
            StoreError::NotACounter => Self::NotACounter,
            StoreError::CounterOverflow => Self::CounterOverflow,
            StoreError::QuotaKeys { limit, account } => Self::QuotaKeys { account: account.to_string(), limit },
            StoreError::QuotaBytes { limit, account } => Self::QuotaBytes { account: account.to_string(), limit },
            // Only if nobody asked: whoever carries out operations asks the account's home and tries again.
            StoreError::NeedsLease { .. } => Self::Starting,
            StoreError::NoRoom => Self::MemoryGuaranteed,
            StoreError::Elsewhere(_) => Self::Internal,
        }
    }
}
