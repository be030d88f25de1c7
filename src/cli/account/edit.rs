//! Changes to an accounts file, in memory.

use std::fmt::Write as _;
use std::time::Duration;

use super::Limits;
use crate::cache::key::AccountId;
use crate::server::accounts::file::{Access, File, FileAccount, FileToken};

/// Why a file cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EditError {
    #[error("there is no account `{0}` in the file; `larder account list` shows those that are")]
    NoAccount(AccountId),
    #[error("account `{0}` has no token with that hash; `larder account list` shows those that it has")]
    NoToken(AccountId),
    #[error("account `{0}` has several tokens whose hashes begin so; give more of the hash, as it is in the file")]
    Ambiguous(AccountId),
    #[error("give at least 4 digits of the token's hash; `larder account list` shows them")]
    TooShort,
    #[error("no limit is given; `larder account set --help` lists them")]
    NoLimit,
}

/// Hex digits of a hash that are shown: enough to tell tokens apart.
pub(super) const SHORT_HASH: usize = 8;

/// Hex digits that must be given.
const MIN_HASH: usize = 4;

/// Adds a token to an account, and the account if it is new; answers which of the two.
pub(super) fn add(file: &mut File, id: &AccountId, token: FileToken, limits: &Limits) -> &'static str {
    let (account, news) = match file.accounts.iter().position(|account| account.id == *id) {
        Some(at) => (&mut file.accounts[at], "has one more token"),
        None => (file.accounts.push_mut(FileAccount::new(id.clone())), "is new"),
    };
    limits.apply(account);
    account.tokens.push(token);
    news
}

/// Changes limits.
pub(super) fn set(file: &mut File, id: &AccountId, limits: &Limits) -> Result<(), EditError> {
    if *limits == Limits::default() {
        return Err(EditError::NoLimit);
    }
    limits.apply(find(file, id)?);
    Ok(())
}

/// Takes the token away whose hash begins so; answers how many are left.
pub(super) fn revoke(file: &mut File, id: &AccountId, hash: &str) -> Result<usize, EditError> {
    let account = find(file, id)?;
    let begin = hash.strip_prefix("sha256:").unwrap_or(hash).to_ascii_lowercase();
    if begin.len() < MIN_HASH {
        return Err(EditError::TooShort);
    }
    let matches = |token: &FileToken| token.hash.short(usize::MAX).starts_with(&begin);
    match account.tokens.iter().filter(|token| matches(token)).count() {
        0 => Err(EditError::NoToken(id.clone())),
        1 => {
            account.tokens.retain(|token| !matches(token));
            Ok(account.tokens.len())
        }
        _ => Err(EditError::Ambiguous(id.clone())),
    }
}

/// Takes an account away.
pub(super) fn remove(file: &mut File, id: &AccountId) -> Result<(), EditError> {
    find(file, id)?;
    file.accounts.retain(|account| account.id != *id);
    Ok(())
}

/// One account per paragraph: its id, its limits, its tokens.
pub(super) fn list(file: &File) -> String {
    let mut text = String::new();
    for account in &file.accounts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {}", account.id, limits(account));
        for token in &account.tokens {
            let _ = writeln!(text, "    {}  {}", token.hash.short(SHORT_HASH), describe(token.access));
        }
        if account.tokens.is_empty() {
            text.push_str("    no tokens\n");
        }
    }
    if text.is_empty() { "no accounts; add one with `larder account add`\n".to_owned() } else { text }
}

/// As the file writes it.
pub(super) fn describe(access: Access) -> &'static str {
    match access {
        Access::ReadWrite => "read-write",
        Access::ReadOnly => "read-only",
    }
}

impl Limits {
    fn apply(&self, account: &mut FileAccount) {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (field, given) in [
            (&mut account.max_cache_keys, self.max_cache_keys),
            (&mut account.max_bytes, self.max_bytes.map(|size| size.0)),
            (&mut account.requests_per_second, self.requests_per_second),
            (&mut account.burst, self.burst),
            (&mut account.guaranteed_bytes, self.guaranteed_bytes.map(|size| size.0)),
            (&mut account.default_ttl_ms, self.default_ttl.map(milliseconds)),
            (&mut account.max_ttl_ms, self.max_ttl.map(milliseconds)),
        ] {
            *field = given.unwrap_or(*field);
        }
    }
}

fn find<'a>(file: &'a mut File, id: &AccountId) -> Result<&'a mut FileAccount, EditError> {
    file.accounts.iter_mut().find(|account| account.id == *id).ok_or_else(|| EditError::NoAccount(id.clone()))
}

/// The limits that an account has, in the words of the file.
fn limits(account: &FileAccount) -> String {
    let given = [
        ("max_cache_keys", account.max_cache_keys),
        ("max_bytes", account.max_bytes),
        ("requests_per_second", account.requests_per_second),
        ("burst", account.burst),
        ("guaranteed_bytes", account.guaranteed_bytes),
        ("default_ttl_ms", account.default_ttl_ms),
        ("max_ttl_ms", account.max_ttl_ms),
    ];
    let given: Vec<_> =
        given.iter().filter(|(_, limit)| *limit > 0).map(|(name, limit)| format!("{name} {limit}")).collect();
    if given.is_empty() { "no limits".to_owned() } else { given.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::accounts::hash::Digest;

    fn id(text: &str) -> AccountId {
        AccountId::new(text).unwrap()
    }

    fn token(text: &str) -> FileToken {
        FileToken { hash: Digest::of(text), access: Access::ReadWrite }
    }

    /// Account `a` with tokens `abc` (ba7816bf..) and `foo` (2c26b46b..).
    fn file() -> File {
        let mut file = File::default();
        assert_eq!(add(&mut file, &id("a"), token("abc"), &Limits::default()), "is new");
        let limits = Limits { max_cache_keys: Some(5), max_ttl: Some(Duration::from_secs(2)), ..Limits::default() };
        assert_eq!(add(&mut file, &id("a"), token("foo"), &limits), "has one more token");
        file
    }

    #[test]
    fn a_token_is_added_beside_the_old_one_and_the_old_one_revoked() {
        let mut file = file();
        assert_eq!(revoke(&mut file, &id("a"), "sha256:BA78"), Ok(1));
        assert_eq!(file.accounts[0].tokens, [token("foo")]);
        assert_eq!(revoke(&mut file, &id("a"), "2c26b46b"), Ok(0));
    }

    #[test]
    fn a_hash_that_names_no_token_or_several_revokes_none() {
        let mut file = file();
        file.accounts[0].tokens.push(token("abc"));
        for (account, hash, error) in [
            ("a", "ba7", EditError::TooShort),
            ("a", "", EditError::TooShort),
            ("a", "ba7816bf", EditError::Ambiguous(id("a"))),
            ("a", "00000000", EditError::NoToken(id("a"))),
            ("b", "ba7816bf", EditError::NoAccount(id("b"))),
        ] {
            assert_eq!(revoke(&mut file, &id(account), hash), Err(error));
        }
        assert_eq!(file.accounts[0].tokens.len(), 3);
    }

    #[test]
    fn limits_that_are_not_given_stay() {
        let mut file = file();
        let limits =
            Limits { max_cache_keys: Some(0), max_bytes: Some(bytesize::ByteSize::kib(1)), ..Limits::default() };
        set(&mut file, &id("a"), &limits).unwrap();
        let account = &file.accounts[0];
        assert_eq!((account.max_cache_keys, account.max_bytes, account.max_ttl_ms), (0, 1024, 2000));
        assert_eq!(set(&mut file, &id("a"), &Limits::default()), Err(EditError::NoLimit));
        assert_eq!(set(&mut file, &id("b"), &limits), Err(EditError::NoAccount(id("b"))));
    }

    #[test]
    fn an_account_is_removed_whole() {
        let mut file = file();
        assert_eq!(remove(&mut file, &id("a")), Ok(()));
        assert_eq!((file.accounts.len(), remove(&mut file, &id("a"))), (0, Err(EditError::NoAccount(id("a")))));
    }

    #[test]
    fn a_list_names_limits_and_the_beginnings_of_hashes() {
        let mut file = file();
        file.accounts[0].tokens[1].access = Access::ReadOnly;
        file.accounts.push(FileAccount::new(id("b")));
        let lines = "a  max_cache_keys 5, max_ttl_ms 2000\n    ba7816bf  read-write\n    2c26b46b  read-only\n\
                     b  no limits\n    no tokens\n";
        assert_eq!(list(&file), lines);
        assert_eq!(list(&File::default()), "no accounts; add one with `larder account add`\n");
    }
}
