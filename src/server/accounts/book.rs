//! All accounts of a file, ready for look-ups. Immutable once made; replaced whole when the file changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::hash::Digest;
use super::{Account, Grant};
use crate::cache::key::AccountId;
use crate::cache::limits::MAX_TOKEN_BYTES;
use crate::rpc::failure::Failure;

/// Accounts by id, and grants by the digest of the token.
#[derive(Clone, Debug, Default)]
pub struct Book {
    accounts: HashMap<AccountId, Arc<Account>>,
    grants: HashMap<Digest, Grant, foldhash::fast::RandomState>,
}

impl Book {
    /// What a token grants.
    ///
    /// # Errors
    /// When it is empty or belongs to no account.
    pub fn find(&self, token: &str) -> Result<Grant, Failure> {
        check_size(token)?;
        let digest = Digest::of(token);
        let (stored, grant) = match self.grants.get_key_value(&digest) {
            Some((stored, grant)) => (*stored, Some(grant)),
            None => (Digest::DECOY, None),
        };
        if stored == digest { grant.cloned().ok_or(Failure::TokenUnknown) } else { Err(Failure::TokenUnknown) }
    }

    /// Every account, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }

    /// How many accounts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// How many tokens they have together.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.grants.len()
    }

    /// The same, with the accounts that did not change as the values that `old` has: who compares pointers sees what changed.
    #[must_use]
    pub(super) fn keeping_unchanged(mut self, old: &Self) -> Self {
        for (id, account) in &mut self.accounts {
            if let Some(unchanged) = old.accounts.get(id).filter(|before| *before == account) {
                *account = Arc::clone(unchanged);
            }
        }
        for grant in self.grants.values_mut() {
            if let Some(account) = self.accounts.get(&grant.account.id) {
                grant.account = Arc::clone(account);
            }
        }
        self
    }

    #[must_use]
    pub fn contains(&self, id: &AccountId) -> bool {
        self.accounts.contains_key(id)
    }

    /// Adds an account with its tokens (digest, whether it may only read). The caller has checked that all are new.
    pub(super) fn insert(&mut self, account: Account, tokens: impl Iterator<Item = (Digest, bool)>) {
        let account = Arc::new(account);
        self.accounts.insert(account.id.clone(), Arc::clone(&account));
        let grant = |read_only| Grant { account: Arc::clone(&account), read_only, valid_until: None };
        self.grants.extend(tokens.map(|(digest, read_only)| (digest, grant(read_only))));
    }
}

/// What every look-up refuses before it hashes.
pub(super) fn check_size(token: &str) -> Result<(), Failure> {
    match token.len() {
        0 => Err(Failure::TokenMissing),
        1..=MAX_TOKEN_BYTES => Ok(()),
        _ => Err(Failure::TokenUnknown),
    }
}
