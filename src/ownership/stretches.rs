//! Sets of hashes as sorted, not overlapping stretches.

use crate::ring::Stretch;

/// The hashes of `a` that are, or are not, in `b`.
fn filtered(a: &[Stretch], b: &[Stretch], inside: bool) -> Vec<Stretch> {
    let mut left = Vec::new();
    let mut push = |first: u64, last: u64| {
        if first <= last {
            left.push(Stretch { first, last });
        }
    };
    let mut at = 0;
    for stretch in a {
        at += b[at..].partition_point(|other| other.last < stretch.first);
        let mut from = Some(stretch.first);
        for other in b[at..].iter().take_while(|other| other.first <= stretch.last) {
            let Some(first) = from else { break };
            if inside {
                push(other.first.max(first), other.last.min(stretch.last));
            } else if let Some(before) = other.first.checked_sub(1) {
                push(first, before);
            }
            from = other.last.checked_add(1);
        }
        if let (false, Some(first)) = (inside, from) {
            push(first, stretch.last);
        }
    }
    left
}

/// The hashes that are in both.
#[must_use]
pub(crate) fn intersection(a: &[Stretch], b: &[Stretch]) -> Vec<Stretch> {
    filtered(a, b, true)
}

/// The hashes of `a` that are not in `b`.
#[must_use]
pub(crate) fn difference(a: &[Stretch], b: &[Stretch]) -> Vec<Stretch> {
    filtered(a, b, false)
}

/// The hashes that are in either.
#[must_use]
pub(crate) fn union(a: &[Stretch], b: &[Stretch]) -> Vec<Stretch> {
    let mut both = [a, b].concat();
    both.sort_unstable();
    let mut joined: Vec<Stretch> = Vec::with_capacity(both.len());
    for stretch in both {
        match joined.last_mut() {
            Some(before) if before.last.checked_add(1).is_none_or(|next| stretch.first <= next) => {
                before.last = before.last.max(stretch.last);
            }
            _ => joined.push(stretch),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A set of the 64 hashes 0..=31 and those at the end, as a bit mask.
    fn stretches(bits: u64) -> Vec<Stretch> {
        let hash = |bit: u64| if bit < 32 { bit } else { u64::MAX - 63 + bit };
        let single =
            (0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| Stretch { first: hash(bit), last: hash(bit) });
        single.fold(Vec::new(), |sum, one| union(&sum, &[one]))
    }

    proptest! {
        #[test]
        fn sets_of_hashes_are_sets(a in any::<u64>(), b in any::<u64>()) {
            let (of_a, of_b) = (stretches(a), stretches(b));
            prop_assert_eq!(intersection(&of_a, &of_b), stretches(a & b));
            prop_assert_eq!(difference(&of_a, &of_b), stretches(a & !b));
            prop_assert_eq!(union(&of_a, &of_b), stretches(a | b));
        }
    }

    #[test]
    fn all_hashes_without_some_are_the_rest() {
        let some = [Stretch { first: 5, last: 9 }, Stretch { first: u64::MAX, last: u64::MAX }];
        let rest = [Stretch { first: 0, last: 4 }, Stretch { first: 10, last: u64::MAX - 1 }];
        assert_eq!(difference(&[Stretch::ALL], &some), rest);
        assert_eq!(union(&rest, &some), [Stretch::ALL]);
        assert!(difference(&some, &[Stretch::ALL]).is_empty());
    }
}
