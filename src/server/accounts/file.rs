//! The accounts file: JSON, in Kubernetes a mounted Secret. Strict: an unknown field is an error, because a misspelt limit
//! would otherwise be no limit. What is wrong is said with line and column, and without echoing what may be a token.
//!
//! The names of the limits are those of `larder.v1.Account`, and as there 0 means none. `docs/accounts.md` describes the file
//! to those who write it.

mod explain;
mod text;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::hash::Digest;
use super::{Account, Book, Limits};
use crate::cache::key::{AccountId, TUTORIAL_ACCOUNT};
use crate::cache::limits::MAX_TTL_MS;

/// The file as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with `accounts`")]
pub struct File {
    pub accounts: Vec<FileAccount>,
}

/// One account of the file. In every limit 0, or leaving it out, means: none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an account: an object with `id` and `tokens`")]
pub struct FileAccount {
    #[serde(with = "text")]
    pub id: AccountId,
    pub tokens: Vec<FileToken>,
    /// Keys, over the whole cluster.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_cache_keys: u64,
    /// Bytes of keys and values, over the whole cluster.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_bytes: u64,
    /// Calls per second and replica.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests_per_second: u64,
    /// Calls at once on top of that; 0: a tenth of it, at least 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub burst: u64,
    /// Bytes of memory per replica that no other account's stores take away.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub guaranteed_bytes: u64,
    /// Milliseconds, for stores that say none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub default_ttl_ms: u64,
    /// Milliseconds; 0: the server's own maximum.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_ttl_ms: u64,
}

/// One token of an account, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with `hash`, which `larder account hash` makes of a token")]
pub struct FileToken {
    #[serde(with = "text")]
    pub hash: Digest,
    #[serde(default)]
    pub access: Access,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    #[default]
    ReadWrite,
    ReadOnly,
}

/// Why a text is no accounts file. The message has no name of the file: the caller knows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("it has {0} bytes; at most {MAX_FILE_BYTES} are allowed: use a remote Accounts service")]
    TooLarge(usize),
    #[error("line {line}, column {column}: {problem}")]
    Json { line: usize, column: usize, problem: String },
    #[error("it has {0} accounts; at most {MAX_ACCOUNTS} are allowed: use a remote Accounts service")]
    TooManyAccounts(usize),
    #[error("account `{id}` {problem}")]
    Account { id: AccountId, problem: AccountProblem },
    #[error("accounts `{first}` and `{second}` have a token in common (hash {hash}..); give each its own")]
    SharedToken { first: AccountId, second: AccountId, hash: String },
}

/// What is wrong with one account of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountProblem {
    #[error("is reserved for the tutorial's API; choose another id")]
    Reserved,
    #[error("is there twice; put all its tokens into one entry")]
    Twice,
    #[error("has {0} tokens; at most {MAX_TOKENS_PER_ACCOUNT} are allowed: revoke old ones")]
    TooManyTokens(usize),
    #[error("has a token twice; remove one of the two")]
    TokenTwice,
    #[error("has `requests_per_second` or `burst` over {max}; use at most that, or 0 for no limit", max = u32::MAX)]
    RateTooHigh,
    #[error("has `burst` without `requests_per_second`; set both, or neither")]
    BurstAlone,
    #[error("has `max_ttl_ms` {0}; at most {MAX_TTL_MS} ms (400 days) are allowed")]
    MaxTtl(u64),
    #[error("has `default_ttl_ms` {default} over its `max_ttl_ms` {max}; lower the first or raise the second")]
    DefaultTtl { default: u64, max: u64 },
}

/// Bytes of an accounts file. A Kubernetes Secret holds 1 MiB; elsewhere there is room for [`MAX_ACCOUNTS`].
pub const MAX_FILE_BYTES: usize = 8 * 1024 * 1024;

/// Accounts of one file. Each takes a slot in the store's books.
pub const MAX_ACCOUNTS: usize = 10_000;

/// Tokens of one account: a rotation at each of several users.
pub const MAX_TOKENS_PER_ACCOUNT: usize = 16;

/// Reads and checks an accounts file.
///
/// # Errors
/// When it is none, says a thing twice, or breaks a limit.
pub fn parse(bytes: &[u8]) -> Result<Book, FileError> {
    File::parse(bytes)?.book()
}

impl File {
    /// Reads a file without checking what its accounts say.
    ///
    /// # Errors
    /// When it is too large, is no JSON, or has unknown or missing fields.
    pub fn parse(bytes: &[u8]) -> Result<Self, FileError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(FileError::TooLarge(bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(|error| explain::explain(&error))
    }

    /// Checks all accounts and makes them ready for look-ups.
    ///
    /// # Errors
    /// When an account is wrong, or two collide.
    pub fn book(&self) -> Result<Book, FileError> {
        if self.accounts.len() > MAX_ACCOUNTS {
            return Err(FileError::TooManyAccounts(self.accounts.len()));
        }
        let mut owners: HashMap<Digest, &AccountId> = HashMap::new();
        let mut book = Book::default();
        for account in &self.accounts {
            let wrong = |problem| FileError::Account { id: account.id.clone(), problem };
            let limits = account.check().map_err(wrong)?;
            if book.contains(&account.id) {
                return Err(wrong(AccountProblem::Twice));
            }
            for token in &account.tokens {
                match owners.insert(token.hash, &account.id) {
                    None => {}
                    Some(first) if *first == account.id => return Err(wrong(AccountProblem::TokenTwice)),
                    Some(first) => {
                        let (first, second) = (first.clone(), account.id.clone());
                        return Err(FileError::SharedToken { first, second, hash: token.hash.short(8) });
                    }
                }
            }
            let tokens = account.tokens.iter().map(|token| (token.hash, token.access == Access::ReadOnly));
            book.insert(Account { id: account.id.clone(), limits }, tokens);
        }
        Ok(book)
    }
}

impl FileAccount {
    /// An account with no tokens and no limits.
    #[must_use]
    pub fn new(id: AccountId) -> Self {
        Self {
            id,
            tokens: Vec::new(),
            max_cache_keys: 0,
            max_bytes: 0,
            requests_per_second: 0,
            burst: 0,
            guaranteed_bytes: 0,
            default_ttl_ms: 0,
            max_ttl_ms: 0,
        }
    }

    fn check(&self) -> Result<Limits, AccountProblem> {
        if self.id.as_str() == TUTORIAL_ACCOUNT {
            return Err(AccountProblem::Reserved);
        }
        if self.tokens.len() > MAX_TOKENS_PER_ACCOUNT {
            return Err(AccountProblem::TooManyTokens(self.tokens.len()));
        }
        if self.burst > 0 && self.requests_per_second == 0 {
            return Err(AccountProblem::BurstAlone);
        }
        if self.max_ttl_ms > MAX_TTL_MS {
            return Err(AccountProblem::MaxTtl(self.max_ttl_ms));
        }
        let max_ttl_ms = some(self.max_ttl_ms).unwrap_or(MAX_TTL_MS);
        if self.default_ttl_ms > max_ttl_ms {
            return Err(AccountProblem::DefaultTtl { default: self.default_ttl_ms, max: max_ttl_ms });
        }
        let rate = |number: u64| u32::try_from(number).map_err(|_| AccountProblem::RateTooHigh);
        let (requests_per_second, burst) = (rate(self.requests_per_second)?, rate(self.burst)?);
        Ok(Limits {
            max_keys: some(self.max_cache_keys),
            max_bytes: some(self.max_bytes),
            guaranteed_bytes: self.guaranteed_bytes,
            default_ttl_ms: some(self.default_ttl_ms),
            max_ttl_ms,
            ..Limits::default().with_rate(requests_per_second, burst)
        })
    }
}

fn some(limit: u64) -> Option<u64> {
    (limit > 0).then_some(limit)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(limit: &u64) -> bool {
    *limit == 0
}

#[cfg(test)]
mod tests;
