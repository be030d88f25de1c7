//! The stretches of the ring that a replica owns and has not settled yet (PROTOCOL §2: `open.arcs`).

use crate::ring::Stretch;

/// How far an unsettled arc is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not cleared by everybody: serves nothing.
    Gaining,
    /// Authority: serves what is resolved, and resolves the rest on touch.
    Held,
}

/// Sorted, not overlapping. What a replica owns and is not here is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arcs(Vec<(Stretch, Phase)>);

impl Arcs {
    /// How far the arc with this hash is; none when it is settled (or not owned).
    #[must_use]
    pub fn phase(&self, hash: u64) -> Option<Phase> {
        let at = self.0.partition_point(|(stretch, _)| stretch.last < hash);
        self.0.get(at).filter(|(stretch, _)| stretch.contains(hash)).map(|(_, phase)| *phase)
    }

    /// The last hash before the next arc: nothing from `hash`, which is in none, through it is in one.
    #[must_use]
    pub fn free_through(&self, hash: u64) -> u64 {
        let at = self.0.partition_point(|(stretch, _)| stretch.last < hash);
        self.0.get(at).map_or(u64::MAX, |(stretch, _)| stretch.first.saturating_sub(1).max(hash))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn has_gaining(&self) -> bool {
        self.0.iter().any(|(_, phase)| *phase == Phase::Gaining)
    }

    /// How many are so far.
    #[must_use]
    pub fn count(&self, phase: Phase) -> usize {
        self.0.iter().filter(|(_, its)| *its == phase).count()
    }

    /// Rule 3: what was mine and still is stays as it was; what I gain is GAINING. Both lists are sorted.
    #[must_use]
    pub fn after_change(&self, was_mine: &[Stretch], is_mine: &[Stretch]) -> Self {
        let ends = |stretches: &[Stretch]| {
            let both = |stretch: &Stretch| [stretch.first.checked_sub(1), Some(stretch.last)];
            stretches.iter().flat_map(both).flatten().collect::<Vec<u64>>()
        };
        let unsettled: Vec<Stretch> = self.0.iter().map(|arc| arc.0).collect();
        let mut ends = [ends(was_mine), ends(is_mine), ends(&unsettled), vec![u64::MAX]].concat();
        ends.sort_unstable();
        ends.dedup();
        let mut arcs = Self::default();
        let mut first = 0;
        // No list has an end inside a piece, so what holds for its last hash holds for all of it.
        for last in ends {
            let phase = match (contains(is_mine, last), contains(was_mine, last)) {
                (true, true) => self.phase(last),
                (true, false) => Some(Phase::Gaining),
                (false, _) => None,
            };
            if let Some(phase) = phase {
                arcs.push(Stretch { first, last }, phase);
            }
            first = last.wrapping_add(1);
        }
        arcs
    }

    /// Rule 5: all that was GAINING is HELD.
    #[must_use]
    pub fn held(&self) -> Self {
        let mut held = Self::default();
        for (stretch, _) in &self.0 {
            held.push(*stretch, Phase::Held);
        }
        held
    }

    /// Rule 9: what lies in `settled` is settled.
    #[must_use]
    pub fn without(&self, settled: Stretch) -> Self {
        let mut left = Self::default();
        for &(stretch, phase) in &self.0 {
            if let Some(before) = settled.first.checked_sub(1).filter(|before| stretch.first <= *before) {
                left.push(Stretch { first: stretch.first, last: stretch.last.min(before) }, phase);
            }
            if let Some(after) = settled.last.checked_add(1).filter(|after| stretch.last >= *after) {
                left.push(Stretch { first: stretch.first.max(after), last: stretch.last }, phase);
            }
        }
        left
    }

    fn push(&mut self, stretch: Stretch, phase: Phase) {
        match self.0.last_mut() {
            Some((before, same)) if before.last.checked_add(1) == Some(stretch.first) && *same == phase => {
                before.last = stretch.last;
            }
            _ => self.0.push((stretch, phase)),
        }
    }
}

fn contains(sorted: &[Stretch], hash: u64) -> bool {
    sorted.get(sorted.partition_point(|stretch| stretch.last < hash)).is_some_and(|stretch| stretch.contains(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(first: u64, last: u64) -> Stretch {
        Stretch { first, last }
    }

    #[test]
    fn what_is_gained_is_gaining_and_what_stays_stays_as_it_was() {
        let arcs = Arcs::default().after_change(&[], &[stretch(10, 19)]);
        assert_eq!(arcs.0, [(stretch(10, 19), Phase::Gaining)]);
        let arcs = arcs.held().after_change(&[stretch(10, 19)], &[stretch(0, 14), stretch(30, u64::MAX)]);
        let expected =
            [(stretch(0, 9), Phase::Gaining), (stretch(10, 14), Phase::Held), (stretch(30, u64::MAX), Phase::Gaining)];
        assert_eq!(arcs.0, expected);
        assert_eq!([9, 10, 15, 30].map(|hash| arcs.phase(hash).is_some()), [true, true, false, true]);
    }

    #[test]
    fn what_is_settled_is_cut_out_and_the_rest_keeps_its_phase() {
        let arcs = Arcs(vec![(stretch(0, 9), Phase::Held), (stretch(20, u64::MAX), Phase::Gaining)]);
        let left = |first, last| arcs.without(stretch(first, last)).0;
        assert_eq!(left(0, 4), [(stretch(5, 9), Phase::Held), (stretch(20, u64::MAX), Phase::Gaining)]);
        assert_eq!(left(0, 19), [(stretch(20, u64::MAX), Phase::Gaining)]);
        assert_eq!(left(10, 19), arcs.0);
        let around =
            [(stretch(0, 2), Phase::Held), (stretch(5, 9), Phase::Held), (stretch(20, u64::MAX), Phase::Gaining)];
        assert_eq!(left(3, 4), around);
        assert_eq!(left(9, 30), [(stretch(0, 8), Phase::Held), (stretch(31, u64::MAX), Phase::Gaining)]);
        assert!(arcs.without(Stretch::ALL).is_empty());
    }

    #[test]
    fn what_was_settled_stays_settled() {
        let mine = [stretch(0, u64::MAX)];
        assert!(Arcs::default().after_change(&mine, &mine).is_empty());
        assert!(Arcs::default().after_change(&mine, &[stretch(5, 6)]).is_empty());
    }
}
