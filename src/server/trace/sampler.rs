//! Which calls are recorded: OpenTelemetry's samplers, drawn from the trace id, so that all services that sample by the same
//! ratio record the same traces.

use std::str::FromStr;

use crate::rpc::trace::Trace;

/// Draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Whether the caller's word counts, where it has one.
    by_parent: bool,
    /// Of 2^63 trace ids, how many are recorded.
    kept: u64,
}

/// Why there is no such sampler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    #[error(
        "`{0}` is no sampler; there are always_on, always_off, traceidratio, parentbased_always_on, \
         parentbased_always_off and parentbased_traceidratio"
    )]
    Name(String),
    #[error("`{0}` is no ratio; give a number from 0 to 1, like 0.01 for one call in a hundred")]
    Ratio(String),
}

/// All trace ids: a ratio of 1.
const ALL: u64 = 1 << 63;

impl Sampler {
    /// The sampler of a name; `ratio` is for those by ratio, 1 where there is none.
    ///
    /// # Errors
    /// When there is none of that name, or the ratio is none.
    pub fn new(name: &str, ratio: Option<&str>) -> Result<Self, SamplerError> {
        let (by_parent, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let kept = match root {
            "always_on" => ALL,
            "always_off" => 0,
            "traceidratio" => ratio.map_or(Ok(ALL), threshold)?,
            _ => return Err(SamplerError::Name(name.to_owned())),
        };
        Ok(Self { by_parent, kept })
    }

    /// The trace id under which a call is recorded, if it is.
    pub(super) fn draw(&self, parent: Option<&Trace>) -> Option<[u8; 16]> {
        if let Some(parent) = parent {
            let kept = if self.by_parent { parent.is_sampled() } else { self.keeps(low(parent)) };
            return kept.then_some(parent.trace_id);
        }
        if self.kept == 0 {
            return None;
        }
        let low: u64 = rand::random();
        if !self.keeps(low) {
            return None;
        }
        // Not all zero, whatever was drawn.
        let high = rand::random::<u64>().max(1);
        Some((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// As OpenTelemetry's own libraries draw.
    fn keeps(&self, low: u64) -> bool {
        low >> 1 < self.kept
    }
}

fn low(trace: &Trace) -> u64 {
    let mut low = [0; 8];
    low.copy_from_slice(&trace.trace_id[8..]);
    u64::from_be_bytes(low)
}

fn threshold(ratio: &str) -> Result<u64, SamplerError> {
    let wrong = || SamplerError::Ratio(ratio.to_owned());
    let number = f64::from_str(ratio).ok().filter(|number| (0.0..=1.0).contains(number)).ok_or_else(wrong)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^63")]
    let kept = (number * ALL as f64) as u64;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(low: u64, flags: u8) -> Trace {
        Trace::new((u128::from(low) | 1 << 64).to_be_bytes(), [1; 8], flags)
    }

    #[test]
    fn a_parent_decides_only_where_the_sampler_is_based_on_it() {
        for (name, no_parent, unsampled, sampled) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("parentbased_always_on", true, false, true),
            ("parentbased_always_off", false, false, true),
            ("parentbased_traceidratio", true, false, true),
        ] {
            let sampler = Sampler::new(name, None).unwrap();
            let drawn =
                [None, Some(trace(7, 0)), Some(trace(7, 1))].map(|parent| sampler.draw(parent.as_ref()).is_some());
            assert_eq!(drawn, [no_parent, unsampled, sampled], "{name}");
        }
    }

    #[test]
    fn a_ratio_keeps_that_part_of_the_trace_ids() {
        let sampler = Sampler::new("traceidratio", Some("0.25")).unwrap();
        for (low, kept) in [(0, true), (u64::MAX / 4 - 1, true), (u64::MAX / 4 + 2, false), (u64::MAX, false)] {
            assert_eq!(sampler.draw(Some(&trace(low, 1))).is_some(), kept, "{low:x}");
        }
        let drawn = (0..10_000).filter(|_| sampler.draw(None).is_some()).count();
        assert!((2000..3000).contains(&drawn), "{drawn} of 10,000, 40 standard deviations off at least");
        let none = Sampler::new("traceidratio", Some("0")).unwrap();
        assert!((0..1000).all(|_| none.draw(None).is_none()));
    }

    #[test]
    fn what_is_no_sampler_or_no_ratio_is_refused() {
        for name in ["", "jaeger_remote", "parentbased_", "ALWAYS_ON"] {
            assert!(matches!(Sampler::new(name, None), Err(SamplerError::Name(_))), "{name}");
        }
        for ratio in ["", "1.1", "-0.1", "NaN", "one"] {
            assert!(matches!(Sampler::new("traceidratio", Some(ratio)), Err(SamplerError::Ratio(_))), "{ratio}");
        }
    }
}
