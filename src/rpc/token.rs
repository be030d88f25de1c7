//! A token as its holder knows it. It never shows itself: not in a log, not in a debug print, not in freed memory.

use std::fmt;

use zeroize::Zeroizing;

use crate::cache::limits::MAX_TOKEN_BYTES;

/// A token; overwritten when dropped.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// Why a text is no token. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has 1 to {MAX_TOKEN_BYTES} printable ASCII characters without spaces")]
pub struct TokenError;

impl Token {
    /// Checks a text.
    ///
    /// # Errors
    /// When it is empty, too long, or could not travel as metadata.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let fits = (1..=MAX_TOKEN_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(TokenError) }
    }

    /// The text itself, to compare or to send it and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl std::str::FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_show_itself() {
        let token = Token::new("secret-1").unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(token.expose(), "secret-1");
    }

    #[test]
    fn a_token_can_travel_as_metadata() {
        for bad in ["", "two words", "line\n", "ä", &"x".repeat(513)] {
            assert!(Token::new(bad).is_err(), "{bad}");
        }
        assert!(Token::new(&"x".repeat(512)).is_ok());
    }
}
