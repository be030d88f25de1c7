//! Members that were declared gone before their boot was heard of.
//!
//! Such a mark names no boot, so no greater boot can say that it is over, and no other mark may stand for it. It names who
//! put it there instead, and lasts until a process of that uid answers it ([`Unheard::answers`]): one that nobody has cleared
//! yet, and that so has nothing which others may have taken. A process that was cleared before it hears of the mark may be an
//! authority at this moment, and fences itself. (The model: `marks.rs`. An older mark that hides one of these leaves two
//! authorities, neither of which is lost.)

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::greater;
use crate::ownership::member::{Boot, MemberId, Uid};

/// Declarers of one uid that are remembered, the greatest first. There is one for each member that declared it before it heard
/// of another's mark: few, as a member that hears of a mark has nothing to declare.
pub const MAX_DECLARERS: usize = 64;

/// Per uid and declarer, the boot that answered; 0: none has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unheard(BTreeMap<Uid, BTreeMap<MemberId, Boot>>);

impl Unheard {
    /// Only these marks.
    pub(super) fn of(uids: impl Iterator<Item = Uid>, by: &MemberId) -> Self {
        Self(uids.map(|uid| (uid, [(by.clone(), 0)].into())).collect())
    }

    pub(super) fn merge(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (uid, marks) in &other.0 {
            match all.0.entry(uid.clone()) {
                Entry::Vacant(entry) => _ = entry.insert(marks.clone()),
                Entry::Occupied(mut entry) => {
                    let merged = greater(entry.get(), marks);
                    entry.insert(merged);
                }
            }
        }
        all
    }

    pub(super) fn includes(&self, other: &Self) -> bool {
        other.iter().all(|(uid, by, boot)| self.answered(uid, by).is_some_and(|known| known >= boot))
    }

    /// What `past` lacks.
    pub(super) fn since(&self, past: &Self) -> Self {
        let mut part = Self::default();
        for (uid, by, boot) in self.iter().filter(|(uid, by, boot)| past.answered(uid, by) != Some(*boot)) {
            part.insert(uid.clone(), by.clone(), boot);
        }
        part
    }

    /// Was it declared gone, and has not answered?
    pub(super) fn has(&self, uid: &Uid) -> bool {
        self.0.get(uid).is_some_and(|marks| marks.values().any(|answered| *answered == 0))
    }

    /// Answers for a process to all marks on its uid; none, if there is nothing to answer.
    pub(super) fn answers(&self, id: &MemberId) -> Option<Self> {
        let marks = self.0.get(&id.uid).filter(|_| self.has(&id.uid))?;
        let open = marks.iter().filter(|(_, answered)| **answered == 0);
        Some(Self([(id.uid.clone(), open.map(|(by, _)| (by.clone(), id.boot)).collect())].into()))
    }

    /// Drops what belongs to no endpoint, and the least declarers of a uid that has too many.
    pub(super) fn normalise(&mut self, is_endpoint: impl Fn(&Uid) -> bool) {
        self.0.retain(|uid, marks| {
            while marks.len() > MAX_DECLARERS {
                marks.pop_first();
            }
            is_endpoint(uid)
        });
    }

    pub(super) fn insert(&mut self, uid: Uid, by: MemberId, answered: Boot) {
        self.0.entry(uid).or_default().insert(by, answered);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Uid, &MemberId, Boot)> {
        self.0.iter().flat_map(|(uid, marks)| marks.iter().map(move |(by, answered)| (uid, by, *answered)))
    }

    #[cfg(feature = "simulation")]
    pub(super) fn forget(&mut self, uid: &Uid) {
        self.0.remove(uid);
    }

    fn answered(&self, uid: &Uid, by: &MemberId) -> Option<Boot> {
        self.0.get(uid)?.get(by).copied()
    }
}
