//! What the source says may come late, but a version that takes members away while they are alive deserves a second look:
//! rule 6 of the membership (a slice in transit between two slices, an API server with an empty list).
//!
//! Only what the source says is held back, never what a peer says: a replica that has merged it has had the look.
//! Pure: whoever asks says what time it is and who answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ownership::member::Uid;
use crate::ownership::snapshot::{Present, Snapshot};
use crate::ownership::view::View;

/// Milliseconds for which the source may list a member nowhere that answers: an endpoint moves between slices, and the
/// news of the one comes before that of the other.
pub const MAX_UNLISTED_MS: u64 = 5_000;

/// What is held back of a source, and why. One per source and start of a replica.
#[derive(Debug, Default)]
pub struct HoldBack {
    /// What was last released, or known already.
    released: Option<Arc<View>>,
    /// Members that the news lists nowhere, and since when. One per present member at most.
    unlisted: BTreeMap<Uid, u64>,
    /// Members that the news takes off the ring, together more than half of it, and that have not confirmed it.
    unconfirmed: BTreeSet<Uid>,
    held_since_ms: Option<u64>,
}

impl HoldBack {
    /// Asked with each value of the source and each tick: what may be merged now, each view once.
    ///
    /// `answers`: a member that was heard from within three seconds, and whose address does not refuse; this replica itself
    /// does. `now_ms`: milliseconds of the monotonic clock.
    ///
    /// Held back is a version that
    /// - lists a member nowhere that has not said `left` and still answers: [`MAX_UNLISTED_MS`] at most;
    /// - takes more than half of the ring's members: until each of them has said `leaving` or `left`, or does not answer.
    pub fn release(
        &mut self,
        news: &Arc<View>,
        known: &Snapshot,
        answers: &dyn Fn(&Uid) -> bool,
        now_ms: u64,
    ) -> Option<Arc<View>> {
        if self.released.as_ref().is_some_and(|released| Arc::ptr_eq(released, news)) {
            return None;
        }
        let merged = known.view().merge(news);
        let is_new = merged != **known.view();
        self.look(&merged, known, answers, now_ms);
        let moves = |(uid, since): (&Uid, &u64)| answers(uid) && now_ms < since + MAX_UNLISTED_MS;
        if is_new && (!self.unconfirmed.is_empty() || self.unlisted.iter().any(moves)) {
            self.held_since_ms.get_or_insert(now_ms);
            return None;
        }
        self.unlisted.clear();
        self.unconfirmed.clear();
        self.held_since_ms = None;
        self.released = Some(news.clone());
        is_new.then(|| news.clone())
    }

    /// Since when, in the milliseconds of [`Self::release`], something is held back.
    #[must_use]
    pub fn held_since_ms(&self) -> Option<u64> {
        self.held_since_ms
    }

    /// Whose word or silence is awaited.
    pub fn waits_for(&self) -> impl Iterator<Item = &Uid> {
        let unlisted = self.unlisted.keys().filter(|uid| !self.unconfirmed.contains(*uid));
        self.unconfirmed.iter().chain(unlisted)
    }

    /// Compares what would be with what is.
    fn look(&mut self, merged: &View, known: &Snapshot, answers: &dyn Fn(&Uid) -> bool, now_ms: u64) {
        let listed = merged.endpoints();
        // Who said `left`, or is gone, is not present.
        let unlisted = known.present().map(|member| &member.id.uid).filter(|uid| !listed.contains_key(uid));
        let since = |uid: &Uid| self.unlisted.get(uid).copied().unwrap_or(now_ms);
        self.unlisted = unlisted.map(|uid| (uid.clone(), since(uid))).collect();

        // Who said `leaving` is not on the ring any more.
        let on_ring = |member: &&Present| member.endpoint.serves && !known.view().is_leaving(&member.id);
        let is_taken = |uid: &&Uid| !listed.get(*uid).is_some_and(|endpoint| endpoint.serves);
        let ring: Vec<&Uid> = known.present().filter(on_ring).map(|member| &member.id.uid).collect();
        let taken: BTreeSet<&Uid> = ring.iter().copied().filter(is_taken).collect();
        // Once begun, it lasts until *each* has confirmed, though the ring shrinks by those that have.
        if taken.len() * 2 > ring.len() {
            self.unconfirmed.extend(taken.iter().map(|uid| (*uid).clone()));
        }
        self.unconfirmed.retain(|uid| taken.contains(uid) && answers(uid));
    }
}

#[cfg(test)]
mod tests;
