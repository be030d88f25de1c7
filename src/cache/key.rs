//! Keys, prefixes and account ids: text that has been checked once.

use std::fmt;
use std::sync::Arc;

use super::limits::{MAX_ACCOUNT_ID_BYTES, MAX_KEY_BYTES};

/// A key that has been checked: 1 to [`MAX_KEY_BYTES`] bytes of UTF-8. Borrows its text, so that a look-up copies nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a>(&'a str);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key is empty; give it 1 to {MAX_KEY_BYTES} bytes")]
    Empty,
    #[error("the key has {0} bytes; at most {MAX_KEY_BYTES} are allowed")]
    TooLong(usize),
}

/// The id of an account, `[a-z0-9-]{1,63}`; names its key space. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(Arc<str>);

/// Why a text is no account id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an account id has 1 to {MAX_ACCOUNT_ID_BYTES} characters of a-z, 0-9 and '-'")]
pub struct AccountIdError;

/// The account whose key space the tutorial's API uses. An accounts file must not name it.
pub const TUTORIAL_ACCOUNT: &str = "tutorial";

impl<'a> Key<'a> {
    /// Checks a text.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn new(text: &'a str) -> Result<Self, KeyError> {
        match text.len() {
            0 => Err(KeyError::Empty),
            1..=MAX_KEY_BYTES => Ok(Self(text)),
            long => Err(KeyError::TooLong(long)),
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

impl AccountId {
    /// Checks a text.
    ///
    /// # Errors
    /// When it has other characters, none, or too many.
    pub fn new(text: &str) -> Result<Self, AccountIdError> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if text.is_empty() || text.len() > MAX_ACCOUNT_ID_BYTES || !text.bytes().all(allowed) {
            return Err(AccountIdError);
        }
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_4096_bytes() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert!(Key::new(&"k".repeat(4096)).is_ok());
        assert_eq!(Key::new(&"k".repeat(4097)), Err(KeyError::TooLong(4097)));
    }

    #[test]
    fn an_account_id_is_a_dns_label_in_lower_case() {
        for good in ["a", "team-7", &"x".repeat(63)] {
            assert!(AccountId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "a/b", "ä", &"x".repeat(64)] {
            assert_eq!(AccountId::new(bad), Err(AccountIdError), "{bad}");
        }
    }
}
