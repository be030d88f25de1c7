//! How many bytes a value has.

use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;
use rand::RngExt as _;

use crate::cache::limits::MAX_ENTRY_BYTES;

/// Bytes that are left to the key of the largest value.
const KEY_ROOM: usize = 256;

/// The largest value that can be asked for.
pub const MAX_VALUE_BYTES: usize = MAX_ENTRY_BYTES - KEY_ROOM;

/// Sizes in a list at most.
const MAX_SIZES: usize = 1000;

/// The sizes of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// Each as often as it is listed; at least one.
    List(Vec<usize>),
    /// Any from the first to the last, both included.
    Range(usize, usize),
}

/// Why a text says no sizes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizesError {
    #[error("`{0}` is no size; write bytes or a unit, like 1024, 64KiB, a range 64..4KiB, or a list 64,1KiB,64KiB")]
    Size(String),
    #[error("the size {0} is over the largest of {MAX_VALUE_BYTES} bytes")]
    TooLarge(u64),
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
    #[error("the list has more than {MAX_SIZES} sizes")]
    TooMany,
}

impl Sizes {
    pub fn pick(&self, random: &mut impl rand::Rng) -> usize {
        match self {
            Self::List(sizes) if sizes.len() == 1 => sizes[0],
            Self::List(sizes) => sizes[random.random_range(0..sizes.len())],
            Self::Range(first, last) => random.random_range(*first..=*last),
        }
    }

    pub fn smallest(&self) -> usize {
        match self {
            Self::List(sizes) => sizes.iter().copied().min().unwrap_or_default(),
            Self::Range(first, _) => *first,
        }
    }

    pub fn largest(&self) -> usize {
        match self {
            Self::List(sizes) => sizes.iter().copied().max().unwrap_or_default(),
            Self::Range(_, last) => *last,
        }
    }
}

impl FromStr for Sizes {
    type Err = SizesError;

    fn from_str(text: &str) -> Result<Self, SizesError> {
        if let Some((first, last)) = text.split_once("..") {
            let (first, last) = (size(first)?, size(last.trim_start_matches('='))?);
            return if first <= last {
                Ok(Self::Range(first, last))
            } else {
                Err(SizesError::Backwards(text.to_owned()))
            };
        }
        if text.split(',').count() > MAX_SIZES {
            return Err(SizesError::TooMany);
        }
        Ok(Self::List(text.split(',').map(size).collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(sizes) => f.write_str(&sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
            Self::Range(first, last) => write!(f, "{first}..{last}"),
        }
    }
}

fn size(text: &str) -> Result<usize, SizesError> {
    let ByteSize(bytes) = text.trim().parse().map_err(|_| SizesError::Size(text.to_owned()))?;
    let fits = usize::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_VALUE_BYTES);
    fits.ok_or(SizesError::TooLarge(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_fixed_listed_or_ranged() {
        let mut random = rand::rng();
        for (text, sizes) in [
            ("1024", Sizes::List(vec![1024])),
            ("0", Sizes::List(vec![0])),
            ("64,1KiB,64", Sizes::List(vec![64, 1024, 64])),
            ("64..1KiB", Sizes::Range(64, 1024)),
            ("7..7", Sizes::Range(7, 7)),
        ] {
            assert_eq!(text.parse(), Ok(sizes.clone()), "{text}");
            assert!(
                (0..1000).all(|_| (sizes.smallest()..=sizes.largest()).contains(&sizes.pick(&mut random))),
                "{text}"
            );
        }
        assert_eq!(Sizes::Range(64, 1024).to_string(), "64..1024");
    }

    #[test]
    fn a_text_that_says_no_size_is_told_what_is_wrong() {
        for (text, wanted) in [
            ("", "`` is no size"),
            ("big", "`big` is no size; write bytes"),
            ("-1", "`-1` is no size"),
            ("1,", "`` is no size"),
            ("1GiB", "over the largest"),
            ("10..5", "`10..5` ends before it begins"),
        ] {
            let said = text.parse::<Sizes>().unwrap_err().to_string();
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }
}
