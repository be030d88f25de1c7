//! Accounts as the Accounts services say them, in both directions.

use super::hash::Digest;
use super::{Account, Grant, Limits};
use crate::cache::key::{AccountId, TUTORIAL_ACCOUNT};
use crate::cache::limits::MAX_TTL_MS;
use crate::rpc::proto::{tutorial, v1};

/// Why the answer of an Accounts service cannot be used. For the log of whoever runs Larder: the caller can do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("it has no account; an unknown token must be answered with UNAUTHENTICATED")]
    NoAccount,
    #[error("its `{0}` is negative; 0 means no limit")]
    Negative(&'static str),
    #[error("its `id` is none: an account id has 1 to 63 characters of a-z, 0-9 and '-'")]
    Id,
    #[error("its `id` is `tutorial`, which is reserved for the tutorial's API")]
    Reserved,
    #[error("its `default_ttl_ms` is over its `max_ttl_ms`")]
    DefaultTtl,
}

/// What a token grants by an answer of `larder.v1.Accounts`: the account, and whether the token may only read.
///
/// # Errors
/// When it has no account, or one that makes no sense.
pub fn of_v1(answer: Option<v1::Account>, token: &Digest) -> Result<(Account, bool), AnswerError> {
    let answer = answer.ok_or(AnswerError::NoAccount)?;
    let limits = limits_of(&answer)?;
    let id = if answer.id.is_empty() { id_of_token(token) } else { answer.id };
    if id == TUTORIAL_ACCOUNT {
        return Err(AnswerError::Reserved);
    }
    let id = AccountId::new(&id).map_err(|_| AnswerError::Id)?;
    Ok((Account { id, limits }, answer.read_only))
}

/// The limits of an account.
///
/// # Errors
/// When they make no sense.
pub fn limits_of(answer: &v1::Account) -> Result<Limits, AnswerError> {
    let max_ttl_ms = match limit("max_ttl_ms", answer.max_ttl_ms)? {
        // Over what Larder keeps at all, its own maximum holds: the service need not know it.
        Some(max) => max.min(MAX_TTL_MS),
        None => MAX_TTL_MS,
    };
    let default_ttl_ms = limit("default_ttl_ms", answer.default_ttl_ms)?;
    if default_ttl_ms.is_some_and(|default| default > max_ttl_ms) {
        return Err(AnswerError::DefaultTtl);
    }
    let rate = rate("requests_per_second", answer.requests_per_second)?;
    Ok(Limits {
        max_keys: limit("max_cache_keys", answer.max_cache_keys)?,
        max_bytes: limit("max_bytes", answer.max_bytes)?,
        guaranteed_bytes: limit("guaranteed_bytes", answer.guaranteed_bytes)?.unwrap_or(0),
        default_ttl_ms,
        max_ttl_ms,
        ..Limits::default().with_rate(rate, self::rate("burst", answer.burst)?)
    })
}

/// The same for the tutorial's `rpc.Accounts`, which knows one limit and no ids.
///
/// # Errors
/// As [`of_v1`].
pub fn of_tutorial(answer: Option<tutorial::Account>, token: &Digest) -> Result<(Account, bool), AnswerError> {
    let known = answer.map(|account| v1::Account { max_cache_keys: account.max_cache_keys, ..Default::default() });
    of_v1(known, token)
}

/// A grant as `larder.v1.Accounts` says it.
#[must_use]
pub fn to_v1(grant: &Grant) -> v1::Account {
    let Account { id, limits } = &*grant.account;
    v1::Account { read_only: grant.read_only, ..account_to_v1(id, limits) }
}

/// An account as `larder.v1.Account` says it, of a token that may write.
#[must_use]
pub fn account_to_v1(id: &AccountId, limits: &Limits) -> v1::Account {
    v1::Account {
        max_cache_keys: number(limits.max_keys.unwrap_or(0)),
        id: id.to_string(),
        max_bytes: number(limits.max_bytes.unwrap_or(0)),
        requests_per_second: limits.requests_per_second.unwrap_or(0).into(),
        guaranteed_bytes: number(limits.guaranteed_bytes),
        burst: limits.burst.into(),
        default_ttl_ms: number(limits.default_ttl_ms.unwrap_or(0)),
        max_ttl_ms: number(limits.max_ttl_ms),
        read_only: false,
    }
}

/// A grant as the tutorial says it.
#[must_use]
pub fn to_tutorial(grant: &Grant) -> tutorial::Account {
    tutorial::Account { max_cache_keys: number(grant.account.limits.max_keys.unwrap_or(0)) }
}

/// The id of an account whose service knows none. It follows the token: another token is another account.
fn id_of_token(token: &Digest) -> String {
    format!("t-{}", token.short(16))
}

fn limit(field: &'static str, value: i64) -> Result<Option<u64>, AnswerError> {
    let value = u64::try_from(value).map_err(|_| AnswerError::Negative(field))?;
    Ok((value > 0).then_some(value))
}

/// More than 2^32 calls per second is no limit that could be met.
fn rate(field: &'static str, value: i64) -> Result<u32, AnswerError> {
    Ok(limit(field, value)?.map_or(0, |rate| u32::try_from(rate).unwrap_or(u32::MAX)))
}

fn number(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn answer() -> v1::Account {
        v1::Account {
            max_cache_keys: 1,
            id: "a".into(),
            max_bytes: 2,
            requests_per_second: 3,
            guaranteed_bytes: 4,
            burst: 5,
            default_ttl_ms: 6,
            max_ttl_ms: 7,
            read_only: true,
        }
    }

    fn read(answer: v1::Account) -> Result<(Account, bool), AnswerError> {
        of_v1(Some(answer), &Digest::of("abc"))
    }

    #[test]
    fn what_larder_answers_it_reads_as_the_same() {
        let (account, read_only) = read(answer()).unwrap();
        let grant = Grant { account: Arc::new(account), read_only, valid_until: None };
        assert_eq!(to_v1(&grant), answer());
        assert_eq!(to_tutorial(&grant).max_cache_keys, 1);
    }

    #[test]
    fn zero_is_no_limit() {
        let (account, read_only) = read(v1::Account { id: "a".into(), ..Default::default() }).unwrap();
        assert_eq!((account.limits, read_only), (Limits::default(), false));
    }

    #[test]
    fn an_account_without_id_is_named_after_the_sha_256_of_its_token() {
        let id = "t-ba7816bf8f01cfea";
        assert_eq!(read(v1::Account { id: String::new(), ..answer() }).unwrap().0.id.as_str(), id);
        let (account, read_only) =
            of_tutorial(Some(tutorial::Account { max_cache_keys: 9 }), &Digest::of("abc")).unwrap();
        assert_eq!((account.id.as_str(), account.limits.max_keys, read_only), (id, Some(9), false));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_refused() {
        let negative = AnswerError::Negative;
        for (wrong, error) in [
            (v1::Account { max_cache_keys: -1, ..answer() }, negative("max_cache_keys")),
            (v1::Account { max_bytes: -1, ..answer() }, negative("max_bytes")),
            (v1::Account { requests_per_second: -1, ..answer() }, negative("requests_per_second")),
            (v1::Account { guaranteed_bytes: -1, ..answer() }, negative("guaranteed_bytes")),
            (v1::Account { burst: -1, ..answer() }, negative("burst")),
            (v1::Account { default_ttl_ms: -1, ..answer() }, negative("default_ttl_ms")),
            (v1::Account { max_ttl_ms: -1, ..answer() }, negative("max_ttl_ms")),
            (v1::Account { id: "Team A".into(), ..answer() }, AnswerError::Id),
            (v1::Account { id: "tutorial".into(), ..answer() }, AnswerError::Reserved),
            (v1::Account { default_ttl_ms: 8, ..answer() }, AnswerError::DefaultTtl),
        ] {
            assert_eq!(read(wrong), Err(error));
        }
        assert_eq!(of_v1(None, &Digest::of("abc")), Err(AnswerError::NoAccount));
    }

    #[test]
    fn limits_over_what_larder_can_count_are_its_own_maxima() {
        let huge = v1::Account { max_ttl_ms: i64::MAX, requests_per_second: i64::MAX, ..answer() };
        let limits = read(huge).unwrap().0.limits;
        assert_eq!((limits.max_ttl_ms, limits.requests_per_second), (MAX_TTL_MS, Some(u32::MAX)));
    }
}
