//! What calls are made, and in which proportion.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Get,
    Store,
    Delete,
    Touch,
    Incr,
}

/// Weights of the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    weights: [u32; Operation::ALL.len()],
    total: u32,
}

/// Why a text is no mix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MixError {
    #[error("`{0}` is no OPERATION=WEIGHT; write for example get=90,store=10")]
    Form(String),
    #[error("there is no operation `{0}`; there are get, store, delete, touch and incr")]
    Operation(String),
    #[error("the weight `{0}` is no whole number from 0 to {MAX_WEIGHT}")]
    Weight(String),
    #[error("`{0}` occurs twice")]
    Twice(&'static str),
    #[error("all weights are 0; give at least one operation more")]
    Empty,
}

/// The largest weight.
const MAX_WEIGHT: u32 = 1_000_000;

impl Operation {
    pub const ALL: [Self; 5] = [Self::Get, Self::Store, Self::Delete, Self::Touch, Self::Incr];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Store => "store",
            Self::Delete => "delete",
            Self::Touch => "touch",
            Self::Incr => "incr",
        }
    }

    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Mix {
    /// One of the kinds, each as often as its weight says.
    pub fn pick(&self, random: &mut impl rand::Rng) -> Operation {
        let mut left = random.random_range(0..self.total);
        for operation in Operation::ALL {
            let weight = self.weights[operation.index()];
            if left < weight {
                return operation;
            }
            left -= weight;
        }
        Operation::Get
    }

    pub fn has(&self, operation: Operation) -> bool {
        self.weights[operation.index()] > 0
    }
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let mut weights = [None; Operation::ALL.len()];
        for part in text.split(',').map(str::trim) {
            let (name, weight) = part.split_once('=').ok_or_else(|| MixError::Form(part.to_owned()))?;
            let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name.trim());
            let operation = operation.ok_or_else(|| MixError::Operation(name.trim().to_owned()))?;
            let number = weight.trim().parse().ok().filter(|weight| *weight <= MAX_WEIGHT);
            let number: u32 = number.ok_or_else(|| MixError::Weight(weight.trim().to_owned()))?;
            if weights[operation.index()].replace(number).is_some() {
                return Err(MixError::Twice(operation.name()));
            }
        }
        let weights = weights.map(Option::unwrap_or_default);
        match weights.iter().sum() {
            0 => Err(MixError::Empty),
            total => Ok(Self { weights, total }),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = Operation::ALL.into_iter().filter(|operation| self.has(*operation));
        for (at, operation) in used.enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}={}", operation.name(), self.weights[operation.index()])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn each_kind_is_picked_as_often_as_its_weight_says() {
        let mix: Mix = "get=90, store=9,incr=1,delete=0".parse().unwrap();
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut picked = [0_u32; 5];
        for _ in 0..100_000 {
            picked[mix.pick(&mut random).index()] += 1;
        }
        let near = |operation: Operation, expected: u32| picked[operation.index()].abs_diff(expected) < expected / 5;
        assert!(
            near(Operation::Get, 90_000) && near(Operation::Store, 9000) && near(Operation::Incr, 1000),
            "{picked:?}"
        );
        assert_eq!(picked[Operation::Delete.index()] + picked[Operation::Touch.index()], 0);
        assert_eq!(mix.to_string(), "get=90,store=9,incr=1");
    }

    #[test]
    fn a_text_that_is_no_mix_is_told_what_is_wrong() {
        for (text, wanted) in [
            ("get", "get=90,store=10"),
            ("", "get=90,store=10"),
            ("put=1", "there is no operation `put`"),
            ("get=-1", "`-1` is no whole number"),
            ("get=9999999", "`9999999` is no whole number"),
            ("get=1,get=2", "`get` occurs twice"),
            ("get=0,store=0", "all weights are 0"),
        ] {
            let said = text.parse::<Mix>().unwrap_err().to_string();
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }
}
