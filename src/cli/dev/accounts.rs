//! The ready-made accounts of `larder dev`. Documented in the README, so these do not change. The tokens are no secrets.

use crate::cache::key::{AccountId, AccountIdError};
use crate::server::accounts::file::{Access, File, FileAccount, FileToken};
use crate::server::accounts::hash::Digest;

/// A ready-made account.
pub struct Ready {
    pub id: &'static str,
    pub token: &'static str,
    access: Access,
    max_cache_keys: u64,
    pub what_for: &'static str,
}

pub const READY: [Ready; 3] = [
    Ready {
        id: "demo",
        token: "larder_dev_demo_read_and_write",
        access: Access::ReadWrite,
        max_cache_keys: 0,
        what_for: "reads and writes, no limits",
    },
    Ready {
        id: "demo",
        token: "larder_dev_demo_read_only",
        access: Access::ReadOnly,
        max_cache_keys: 0,
        what_for: "reads what the one above wrote",
    },
    Ready {
        id: "small",
        token: "larder_dev_small",
        access: Access::ReadWrite,
        max_cache_keys: 10,
        what_for: "has room for 10 keys, to see a quota",
    },
];

/// The accounts file, as text.
pub fn file() -> Result<String, AccountIdError> {
    let mut file = File::default();
    for ready in &READY {
        let id = AccountId::new(ready.id)?;
        let token = FileToken { hash: Digest::of(ready.token), access: ready.access };
        match file.accounts.iter_mut().find(|account| account.id == id) {
            Some(account) => account.tokens.push(token),
            None => file.accounts.push(FileAccount {
                tokens: vec![token],
                max_cache_keys: ready.max_cache_keys,
                ..FileAccount::new(id)
            }),
        }
    }
    // Only maps with keys that are no text fail, and there are none.
    Ok(serde_json::to_string_pretty(&file).unwrap_or_default())
}
