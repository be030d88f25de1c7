//! Values that have a text form of their own, in JSON: ids and hashes.

use std::borrow::Cow;
use std::fmt::Display;

use serde::{Deserialize, Deserializer, Serializer, de};

use super::super::hash::{Digest, DigestError};
use crate::cache::key::{AccountId, AccountIdError};

/// What reads itself from its text.
pub trait FromText: Sized {
    type Error: Display;

    fn from_text(text: &str) -> Result<Self, Self::Error>;
}

pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub fn deserialize<'de, T: FromText, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::from_text(&Cow::<str>::deserialize(deserializer)?).map_err(de::Error::custom)
}

impl FromText for AccountId {
    type Error = AccountIdError;

    fn from_text(text: &str) -> Result<Self, AccountIdError> {
        Self::new(text)
    }
}

impl FromText for Digest {
    type Error = DigestError;

    fn from_text(text: &str) -> Result<Self, DigestError> {
        text.parse()
    }
}
