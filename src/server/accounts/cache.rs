//! What an Accounts service answered, by the digest of the token. Pure: `now` is passed in.
//!
//! Two maps of bounded size, one for known tokens and one for the rest, so that a flood of wrong tokens pushes out no right
//! one. Each forgets roughly the least recently used: it keeps a young and an old generation, a hit moves an entry to the
//! young one, and a young generation that is full becomes the old one. No list, no clock hand, no scan.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::hash::Digest;
use super::{Account, Grant};

/// How long answers are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// An account is used that long without asking again.
    pub ttl: Duration,
    /// A token stays unknown that long.
    pub negative_ttl: Duration,
    /// An account is used that much longer while the service cannot be asked.
    pub max_stale: Duration,
    /// Tokens of each kind (known, other) that are remembered.
    pub max_tokens: usize,
}

/// What the service said of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Known { account: Arc<Account>, read_only: bool },
    Unknown,
}

/// What is known of a token now.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// It is good; `ahead`: but will soon not be, so that it is time to ask in the background.
    Fresh { grant: Grant, ahead: bool },
    /// It belongs to no account.
    Unknown,
    /// It was good, and counts for as long as the service cannot be asked; `may_ask`: it may be tried again.
    Stale { grant: Grant, may_ask: bool },
    /// The service could not be asked a moment ago.
    Failing,
    /// Nothing: ask.
    Nothing,
}

#[derive(Debug)]
pub(super) struct AnswerCache {
    policy: Policy,
    known: Generations<Entry<(Arc<Account>, bool)>>,
    /// `Some(())`: the service does not know the token; `None`: it could not be asked.
    other: Generations<Entry<Option<()>>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    answer: T,
    learned: Instant,
    failures: u32,
    retry_at: Instant,
}

/// A map that forgets.
#[derive(Debug)]
struct Generations<V> {
    young: HashMap<Digest, V, foldhash::fast::RandomState>,
    old: HashMap<Digest, V, foldhash::fast::RandomState>,
    half: usize,
}

/// A stale grant that a connection keeps is looked up again after this long: by then the service may answer.
const STALE_GRANT_KEPT: Duration = Duration::from_secs(1);

/// The wait after a failure; doubles with each further one, up to one of the next two.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// The longest wait while an old answer serves.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The longest wait while callers are turned away.
const MAX_COLD_BACKOFF: Duration = Duration::from_millis(500);

impl Policy {
    /// The grant of an account that was learned then: to be kept until it is time to ask ahead, or else until it expires.
    pub(super) fn grant(&self, account: Arc<Account>, read_only: bool, learned: Instant, now: Instant) -> Grant {
        let ahead = learned + self.ahead();
        let valid_until = Some(if now < ahead { ahead } else { learned + self.ttl });
        Grant { account, read_only, valid_until }
    }

    /// Four fifths of the TTL: in a steady stream of calls none waits for an answer.
    fn ahead(&self) -> Duration {
        self.ttl / 5 * 4
    }
}

impl AnswerCache {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, known: Generations::new(policy.max_tokens), other: Generations::new(policy.max_tokens) }
    }

    pub(super) fn look(&mut self, token: &Digest, now: Instant) -> Found {
        if let Some(entry) = self.known.get_mut(token) {
            return entry.found(&self.policy, now);
        }
        match self.other.get_mut(token) {
            Some(Entry { answer: Some(()), learned, .. }) if now < *learned + self.policy.negative_ttl => {
                Found::Unknown
            }
            Some(Entry { answer: None, retry_at, .. }) if now < *retry_at => Found::Failing,
            _ => Found::Nothing,
        }
    }

    /// Keeps an answer; says whether it contradicts one that may still be in use.
    pub(super) fn learn(&mut self, token: Digest, verdict: &Verdict, now: Instant) -> bool {
        match verdict {
            Verdict::Known { account, read_only } => {
                self.other.remove(&token);
                let entry = Entry::new((Arc::clone(account), *read_only), now);
                let before = self.known.insert(token, entry);
                before.is_some_and(|before| before.answer != (Arc::clone(account), *read_only))
            }
            Verdict::Unknown => {
                self.other.insert(token, Entry::new(Some(()), now));
                self.known.remove(&token).is_some()
            }
        }
    }

    /// The account as the value that is in use, if it has not changed: who compares pointers sees what changed.
    pub(super) fn unchanged(&mut self, token: &Digest, account: Account) -> Arc<Account> {
        match self.known.get_mut(token) {
            Some(entry) if *entry.answer.0 == account => Arc::clone(&entry.answer.0),
            _ => Arc::new(account),
        }
    }

    /// Notes that the service could not be asked. `jitter` in 0.0..1.0 spreads the next attempts.
    pub(super) fn fail(&mut self, token: Digest, now: Instant, jitter: f64) {
        if let Some(entry) = self.known.get_mut(&token) {
            entry.fail(MAX_BACKOFF, now, jitter);
            return;
        }
        let failures = match self.other.get_mut(&token) {
            Some(Entry { answer: None, failures, .. }) => *failures,
            _ => 0,
        };
        let mut entry = Entry { failures, ..Entry::new(None, now) };
        entry.fail(MAX_COLD_BACKOFF, now, jitter);
        self.other.insert(token, entry);
    }

    /// Tokens that are remembered, of both kinds.
    pub(super) fn len(&self) -> usize {
        self.known.len() + self.other.len()
    }
}

impl<T> Entry<T> {
    fn new(answer: T, now: Instant) -> Self {
        Self { answer, learned: now, failures: 0, retry_at: now }
    }

    fn fail(&mut self, longest: Duration, now: Instant, jitter: f64) {
        let wait = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(self.failures)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + wait.mul_f64(0.5 + jitter / 2.0);
    }
}

impl Entry<(Arc<Account>, bool)> {
    fn found(&self, policy: &Policy, now: Instant) -> Found {
        let expires = self.learned + policy.ttl;
        let (account, read_only) = (Arc::clone(&self.answer.0), self.answer.1);
        if now < expires {
            let ahead = now >= self.learned + policy.ahead() && now >= self.retry_at;
            return Found::Fresh { grant: policy.grant(account, read_only, self.learned, now), ahead };
        }
        if now < expires + policy.max_stale {
            let valid_until = Some(now + STALE_GRANT_KEPT);
            return Found::Stale { grant: Grant { account, read_only, valid_until }, may_ask: now >= self.retry_at };
        }
        if now < self.retry_at { Found::Failing } else { Found::Nothing }
    }
}

impl<V> Generations<V> {
    fn new(entries: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), half: (entries / 2).max(1) }
    }

    fn get_mut(&mut self, token: &Digest) -> Option<&mut V> {
        if let Some(value) = self.old.remove(token) {
            self.insert(*token, value);
        }
        self.young.get_mut(token)
    }

    /// Answers what was there before.
    fn insert(&mut self, token: Digest, value: V) -> Option<V> {
        let aged = self.old.remove(&token);
        if self.young.len() >= self.half && !self.young.contains_key(&token) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(token, value).or(aged)
    }

    fn remove(&mut self, token: &Digest) -> Option<V> {
        self.young.remove(token).or_else(|| self.old.remove(token))
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests;
