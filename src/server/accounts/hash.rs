//! Tokens at rest: how they are made, hashed and compared.
//!
//! A token is hashed by plain SHA-256. That is right only because a token is random: `larder account add` makes tokens of
//! 160 random bits, and `larder account hash` refuses what a person would make up. Nobody can search 2^128 tokens, so a
//! salt (against tables made beforehand) and a slow hash (against guessing) would add nothing but a cost to every call.
//! Passwords are another matter and are no tokens.
//!
//! Look-up: the presented token is hashed, and the digest is looked up in a map whose comparison is constant-time
//! ([`subtle`]). A token that is unknown is compared with a decoy, so it takes the same path. What a caller could learn from
//! the timing of the map itself is about the digest of his own token, from which no stored token follows.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::cache::limits::MAX_TOKEN_BYTES;

/// The SHA-256 of a token. Equality is constant-time. Written `sha256:` and 64 hex digits.
#[derive(Clone, Copy)]
pub struct Digest([u8; DIGEST_BYTES]);

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token's hash is `sha256:` and 64 hex digits; `larder account hash` prints it")]
pub struct DigestError;

/// Why a text should not be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakToken {
    #[error("the token is empty; pipe it in, e.g. `printf %s \"$TOKEN\" | larder account hash`")]
    Empty,
    #[error("the token has {0} bytes; at most {MAX_TOKEN_BYTES} are allowed")]
    TooLong(usize),
    #[error("the token has white space, control or non-ASCII characters, which `authorization` metadata cannot carry")]
    Characters,
    #[error(
        "the token has {0} characters, which may be guessed; use at least {MIN_OWN_TOKEN_BYTES} random ones, or let \
         `larder account add` make a token"
    )]
    Short(usize),
    #[error(
        "the token repeats a few characters, so it may be guessed; use random ones, or let `larder account add` make a token"
    )]
    Repetitive,
}

/// Bytes of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// What a digest's text begins with; leaves room for another hash.
const SCHEME: &str = "sha256:";

/// What tokens made here begin with, so that scanners for leaked secrets can find them.
pub const TOKEN_PREFIX: &str = "larder_";

/// Random bytes of a token made here: 160 bits, 32 characters, and with the prefix still one block of SHA-256.
const TOKEN_RANDOM_BYTES: usize = 20;

/// Digits of base 32 (Crockford's, in lower case): no i, l, o, u, and a double click selects the whole token.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters that a token from elsewhere must have: 32 hex digits are 128 bits.
const MIN_OWN_TOKEN_BYTES: usize = 32;

/// Different characters among them. 32 random hex digits have fewer than 9 once in about 10^5; a repeated word often.
const MIN_DIFFERENT_CHARACTERS: usize = 8;

/// A new random token: [`TOKEN_PREFIX`] and 32 characters.
#[must_use]
pub fn new_token() -> Zeroizing<String> {
    let random: [u8; TOKEN_RANDOM_BYTES] = rand::random();
    let mut token = Zeroizing::new(String::with_capacity(TOKEN_PREFIX.len() + TOKEN_RANDOM_BYTES * 8 / 5));
    token.push_str(TOKEN_PREFIX);
    for five in random.chunks_exact(5) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for digit in (0..8).rev() {
            token.push(char::from(BASE32[(bits >> (5 * digit) & 31) as usize]));
        }
    }
    token
}

/// Whether a token from elsewhere may be used.
///
/// # Errors
/// When it could be guessed or cannot be sent.
pub fn check_strength(token: &str) -> Result<(), WeakToken> {
    if token.is_empty() {
        return Err(WeakToken::Empty);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(WeakToken::TooLong(token.len()));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(WeakToken::Characters);
    }
    if token.len() < MIN_OWN_TOKEN_BYTES {
        return Err(WeakToken::Short(token.len()));
    }
    let mut seen = [false; 128];
    token.bytes().for_each(|byte| seen[usize::from(byte)] = true);
    if seen.iter().filter(|seen| **seen).count() < MIN_DIFFERENT_CHARACTERS {
        return Err(WeakToken::Repetitive);
    }
    Ok(())
}

impl Digest {
    /// Equal to no token's digest that anybody can find; what unknown tokens are compared with.
    pub const DECOY: Self = Self([0; DIGEST_BYTES]);

    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// The first `digits` of its hex digits: enough to tell tokens apart in a list.
    #[must_use]
    pub fn short(&self, digits: usize) -> String {
        let mut hex = self.hex();
        hex.truncate(digits);
        hex
    }

    fn hex(&self) -> String {
        self.0
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
            .collect()
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({}..)", self.short(8))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix(SCHEME).ok_or(DigestError)?.as_bytes();
        if hex.len() != 2 * DIGEST_BYTES {
            return Err(DigestError);
        }
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(DigestError);
        let mut bytes = [0; DIGEST_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_sha_256_of_fips_180() {
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of("abc").to_string(), text);
        assert_eq!(text.parse(), Ok(Digest::of("abc")));
        assert_eq!(Digest::of("abc").short(16), "ba7816bf8f01cfea");
    }

    #[test]
    fn a_digest_has_its_scheme_and_64_hex_digits() {
        let hex = "b".repeat(64);
        for bad in
            ["", "sha256:", &hex, &format!("md5:{hex}"), &format!("sha256:{hex}b"), &format!("sha256:{}g", &hex[1..])]
        {
            assert_eq!(bad.parse::<Digest>(), Err(DigestError), "{bad}");
        }
        assert!(format!("sha256:{}", hex.to_uppercase()).parse::<Digest>().is_ok());
    }

    #[test]
    fn a_new_token_is_strong_fits_one_block_and_is_never_the_same() {
        let (one, other) = (new_token(), new_token());
        assert_ne!(*one, *other);
        assert_eq!(one.len(), 39);
        assert!(one.starts_with(TOKEN_PREFIX));
        assert_eq!(check_strength(&one), Ok(()));
    }

    #[test]
    fn every_digit_of_a_new_token_can_be_any_of_the_32() {
        let mut seen = vec![std::collections::BTreeSet::new(); 32];
        for _ in 0..2_000 {
            new_token()[TOKEN_PREFIX.len()..].chars().enumerate().for_each(|(at, digit)| _ = seen[at].insert(digit));
        }
        assert!(seen.iter().all(|digits| digits.len() == 32), "{seen:?}");
    }

    #[test]
    fn a_token_that_a_person_made_up_is_refused() {
        for (token, problem) in [
            ("", WeakToken::Empty),
            ("hunter2", WeakToken::Short(7)),
            (&"x".repeat(513), WeakToken::TooLong(513)),
            (&"abc".repeat(20), WeakToken::Repetitive),
            ("correct horse battery staple is a password", WeakToken::Characters),
            ("0123456789abcdef0123456789abcdef\n", WeakToken::Characters),
        ] {
            assert_eq!(check_strength(token), Err(problem), "{token}");
        }
        assert_eq!(check_strength("9f86d081884c7d659a2feaa0c55ad015"), Ok(()));
    }
}
