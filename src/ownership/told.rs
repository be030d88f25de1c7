//! What others have been told, so that nobody is sent what he has (rules 1 and 2 say what views do, this says how little of
//! them has to travel).
//!
//! A view only grows, so of whoever was heard under a view that was once mine I know that he lacks at most what came since.
//! That part is a view too, and merging it is merging the whole. In a cluster of n members a whole view is n endpoints, and
//! a change is told by n members to n: the part keeps the bytes of a change per member from growing with the square of n.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::member::{MemberId, Uid};
use super::snapshot::Snapshot;
use super::view::{Digest, View};

/// Views of mine that are remembered. Who is further behind is sent the whole.
const MAX_REMEMBERED: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Told {
    /// Views that were mine, the newest last.
    past: VecDeque<(Digest, Arc<View>)>,
    /// Under which of them a process was heard last, or under the present one. One per present member.
    bases: BTreeMap<MemberId, Digest>,
    /// Who does not have my view: the next message brings what he lacks.
    behind: BTreeMap<Uid, Arc<View>>,
    /// What came since a view of the past, computed once.
    parts: BTreeMap<Digest, Arc<View>>,
}

impl Told {
    /// My view is another from now on.
    pub(super) fn changed(&mut self, old: &Snapshot, new: &Snapshot) {
        self.past.push_back((old.digest(), Arc::clone(old.view())));
        if self.past.len() > MAX_REMEMBERED {
            self.past.pop_front();
        }
        self.bases.retain(|id, _| new.is_present(id));
        self.behind.clear();
        self.parts.clear();
    }

    /// A member was heard under this view. Returns whether it is behind: I had that view before, and all that is in it.
    pub(super) fn heard(&mut self, from: &MemberId, digest: Digest, mine: &Snapshot) -> bool {
        let is_past = self.past.iter().any(|(past, _)| *past == digest);
        if is_past || digest == mine.digest() {
            match self.bases.get_mut(from) {
                Some(base) => *base = digest,
                None => _ = self.bases.insert(from.clone(), digest),
            }
        }
        if digest == mine.digest() {
            self.behind.remove(&from.uid);
        }
        is_past
    }

    /// The next message to this member brings what it lacks.
    pub(super) fn is_behind(&mut self, id: &MemberId, mine: &Snapshot) {
        if let Some(part) = self.lacks(id, mine) {
            self.behind.insert(id.uid.clone(), part);
        }
    }

    /// What was thought to be all that it lacks was not: the next message brings the whole.
    pub(super) fn was_not_enough(&mut self, id: &MemberId, mine: &Snapshot) {
        self.bases.remove(id);
        self.behind.insert(id.uid.clone(), Arc::clone(mine.view()));
    }

    pub(super) fn behind(&self) -> &BTreeMap<Uid, Arc<View>> {
        &self.behind
    }

    /// What the next message to this member brings.
    pub(super) fn brings(&self, uid: &Uid) -> Option<Arc<View>> {
        self.behind.get(uid).cloned()
    }

    /// All that this member may lack; none, if it had my view.
    pub(super) fn lacks(&mut self, id: &MemberId, mine: &Snapshot) -> Option<Arc<View>> {
        let base = self.bases.get(id);
        if base == Some(&mine.digest()) {
            return None;
        }
        let base = base.and_then(|base| self.past.iter().find(|(past, _)| past == base));
        let Some((digest, past)) = base else { return Some(Arc::clone(mine.view())) };
        let part = self
            .parts
            .entry(*digest)
            .or_insert_with(|| mine.view().since(past).map_or_else(|| Arc::clone(mine.view()), Arc::new));
        Some(Arc::clone(part))
    }
}
