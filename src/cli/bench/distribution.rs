//! Which key a call is for.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use rand_distr::{Distribution as _, Zipf};

/// The exponent of Zipf's law unless told otherwise: YCSB's.
const DEFAULT_THETA: f64 = 0.99;

/// The largest exponent: almost every call is for the first key then.
const MAX_THETA: f64 = 10.0;

/// How the calls are spread over the keys, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Key k (from 1) in proportion to 1/k^theta.
    Zipf {
        theta: f64,
    },
    Uniform,
    /// One after the other, and from the beginning again.
    Sequential,
}

/// Why a text is no spread.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpreadError {
    #[error("there is no distribution `{0}`; there are uniform, sequential, zipf and zipf:THETA, like zipf:0.99")]
    Name(String),
    #[error("the exponent `{0}` of zipf is no number from 0 to {MAX_THETA}")]
    Theta(String),
}

/// Picks keys. Shared: `sequential` goes on from whoever picked last.
#[derive(Debug)]
pub struct Picker {
    keys: u64,
    zipf: Option<Zipf<f64>>,
    next: Option<AtomicU64>,
}

impl Spread {
    /// A picker of one of `keys` keys, at least one.
    pub fn over(self, keys: u64) -> Picker {
        let keys = keys.max(1);
        let zipf = match self {
            Self::Zipf { theta } => Zipf::new(keys as f64, theta).ok(),
            Self::Uniform | Self::Sequential => None,
        };
        Picker { keys, zipf, next: (self == Self::Sequential).then(AtomicU64::default) }
    }
}

impl Picker {
    /// The index of a key, from 0.
    pub fn pick(&self, random: &mut impl rand::Rng) -> u64 {
        if let Some(zipf) = &self.zipf {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rank is a whole number from 1"
            )]
            let rank = zipf.sample(random) as u64;
            return rank.clamp(1, self.keys) - 1;
        }
        match &self.next {
            Some(next) => next.fetch_add(1, Ordering::Relaxed) % self.keys,
            None => rand::RngExt::random_range(random, 0..self.keys),
        }
    }
}

impl FromStr for Spread {
    type Err = SpreadError;

    fn from_str(text: &str) -> Result<Self, SpreadError> {
        let (name, theta) = match text.split_once([':', '(']) {
            Some((name, theta)) => (name, Some(theta.trim_end_matches(')'))),
            None => (text, None),
        };
        match (name, theta) {
            ("uniform", None) => Ok(Self::Uniform),
            ("sequential", None) => Ok(Self::Sequential),
            ("zipf", None) => Ok(Self::Zipf { theta: DEFAULT_THETA }),
            ("zipf", Some(text)) => {
                let theta = text.trim().parse().ok().filter(|theta| (0.0..=MAX_THETA).contains(theta));
                Ok(Self::Zipf { theta: theta.ok_or_else(|| SpreadError::Theta(text.to_owned()))? })
            }
            _ => Err(SpreadError::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zipf { theta } => write!(f, "zipf:{theta}"),
            Self::Uniform => f.write_str("uniform"),
            Self::Sequential => f.write_str("sequential"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const SAMPLES: u32 = 200_000;

    fn picked(text: &str, keys: usize) -> Vec<u32> {
        let picker = text.parse::<Spread>().unwrap().over(keys as u64);
        let mut random = StdRng::seed_from_u64(1);
        let mut picked = vec![0; keys];
        for _ in 0..SAMPLES {
            picked[usize::try_from(picker.pick(&mut random)).unwrap()] += 1;
        }
        picked
    }

    #[test]
    fn zipf_has_the_shape_of_the_law() {
        for theta in [0.5, 0.99, 1.2] {
            let picked = picked(&format!("zipf:{theta}"), 1000);
            let weight = |key: usize| (key as f64 + 1.0).powf(-theta);
            let all: f64 = (0..1000).map(weight).sum();
            for keys in [0..1, 1..2, 9..10, 50..100, 500..1000] {
                let expected: f64 = keys.clone().map(weight).sum::<f64>() / all * f64::from(SAMPLES);
                let got: f64 = picked[keys.clone()].iter().copied().map(f64::from).sum();
                // Five standard deviations of a Poisson count.
                assert!(
                    (got - expected).abs() < 5.0 * expected.sqrt(),
                    "theta {theta}, {keys:?}: {got}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn uniform_and_sequential_leave_no_key_out() {
        assert!(picked("uniform", 100).iter().all(|count| count.abs_diff(2000) < 300));
        assert!(picked("sequential", 100).iter().all(|count| *count == 2000));
        assert_eq!(picked("zipf", 1), vec![SAMPLES]);
    }

    #[test]
    fn a_text_that_is_no_distribution_is_told_what_is_wrong() {
        for (text, wanted) in [
            ("normal", "no distribution `normal`; there are uniform"),
            ("uniform:1", "no distribution `uniform:1`"),
            ("zipf:much", "exponent `much`"),
            ("zipf:-1", "exponent `-1`"),
            ("zipf:nan", "exponent `nan`"),
            ("zipf:11", "from 0 to 10"),
        ] {
            let said = text.parse::<Spread>().unwrap_err().to_string();
            assert!(said.contains(wanted), "{text}: {said}");
        }
        assert_eq!("zipf(0.8)".parse(), Ok(Spread::Zipf { theta: 0.8 }));
        assert_eq!(Spread::Zipf { theta: 0.8 }.to_string(), "zipf:0.8");
    }
}
