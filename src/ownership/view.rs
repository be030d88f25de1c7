//! What a replica knows of the members, as a value that merges (rule 1): replicas that heard the same things hold the same
//! view, whatever the order.
//!
//! A view is what the source says, slice by slice, and what the replicas say of themselves and each other: boots, and the
//! marks *leaving*, *left* and *gone*. Nothing here decides who owns what; see [`super::snapshot`].
//!
//! **The source.** Each slice has a version, the greater wins. `floor` is the version of the newest consistent list that
//! went in: a slice that the view does not name, and that is no newer, does not exist any more. So the memory of deleted
//! slices ends with the next list, and still nobody can bring one back. The floor is part of the view's identity:
//! without it a slice that came and went would leave the very view from before, and a late message of that time would count.
//!
//! **Marks** belong to one boot of a uid. Greater boots win, as of one uid only the greatest boot known counts. (But *gone*,
//! said before a boot was heard of: see [`unheard`].) Marks of
//! uids that are no endpoint are dropped: uids do not return. (Should a uid move between slices, and the news of its removal
//! overtake that of its coming, its marks may be lost: a leaver and a restarted process put their own back, and the
//! failure detector finds again who is gone. The source's adapter holds such a removal back.)

mod encoding;
mod patch;
mod unheard;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use encoding::{Digest, ViewError};
pub use unheard::MAX_DECLARERS;

use super::member::{Boot, Endpoint, MemberId, Uid};
use patch::Patch;
use unheard::Unheard;

/// Deleted slices that are remembered, the oldest forgotten first. They go with the next consistent list.
pub const MAX_DELETED_SLICES: usize = 1024;

/// What a replica knows of the members. Equal if and only if the digests are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    floor: u64,
    slices: BTreeMap<Arc<str>, Slice>,
    /// Only in a part of a view: what changed in slices that its receiver has.
    patches: BTreeMap<Arc<str>, Patch>,
    /// The greatest boot heard of.
    boots: Marks,
    /// Announced by the leaver.
    leaving: Marks,
    /// Ended in good order, said by itself.
    left: Marks,
    /// Crashed or lost, said by others.
    gone: Marks,
    /// As `gone`, said by those who had not heard of a boot.
    unheard: Unheard,
}

/// Per uid, the greatest boot that the mark was put on.
type Marks = BTreeMap<Uid, Boot>;

/// One slice at one version. `endpoints` are sorted, a uid once; none: it was deleted at this version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    version: u64,
    endpoints: Option<Arc<[Endpoint]>>,
}

impl Slice {
    fn new(version: u64, mut endpoints: Vec<Endpoint>) -> Self {
        endpoints.sort_unstable();
        endpoints.dedup_by(|later, kept| later.uid == kept.uid);
        Self { version, endpoints: Some(endpoints.into()) }
    }

    /// The greater version; of one version, the deletion. Two contents of one version are an error of the source: any
    /// choice will do that is everybody's.
    fn newer<'a>(&'a self, other: &'a Self) -> &'a Self {
        let rank = |slice: &'a Self| (slice.version, slice.endpoints.is_none(), &slice.endpoints);
        if rank(self) >= rank(other) { self } else { other }
    }
}

impl View {
    /// What a consistent list says: `version` is the list's, each slice has its own.
    #[must_use]
    pub fn of_list(version: u64, slices: impl IntoIterator<Item = (Arc<str>, u64, Vec<Endpoint>)>) -> Self {
        let slices = slices.into_iter().map(|(name, at, endpoints)| (name, Slice::new(at, endpoints)));
        Self { floor: version, slices: slices.collect(), ..Self::default() }
    }

    /// What a watch says of one slice.
    #[must_use]
    pub fn of_slice(name: &str, version: u64, endpoints: Vec<Endpoint>) -> Self {
        Self { slices: [(name.into(), Slice::new(version, endpoints))].into(), ..Self::default() }
    }

    /// What a watch says of a slice that was deleted at `version`.
    #[must_use]
    pub fn of_deleted_slice(name: &str, version: u64) -> Self {
        Self { slices: [(name.into(), Slice { version, endpoints: None })].into(), ..Self::default() }
    }

    /// Rule 1. Commutative, associative and idempotent; `other` may also be a part of a view ([`Self::since`]).
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        if !other.patches.is_empty() {
            return self.merge(&other.patched_on(self));
        }
        let mut slices = BTreeMap::new();
        for (name, slice) in &self.slices {
            match other.slices.get(name) {
                Some(theirs) => _ = slices.insert(name.clone(), slice.newer(theirs).clone()),
                None if slice.version > other.floor => _ = slices.insert(name.clone(), slice.clone()),
                None => {}
            }
        }
        for (name, slice) in &other.slices {
            if !self.slices.contains_key(name) && slice.version > self.floor {
                slices.insert(name.clone(), slice.clone());
            }
        }
        let mut merged = Self {
            floor: self.floor.max(other.floor),
            slices,
            patches: BTreeMap::new(),
            boots: greater(&self.boots, &other.boots),
            leaving: greater(&self.leaving, &other.leaving),
            left: greater(&self.left, &other.left),
            gone: greater(&self.gone, &other.gone),
            unheard: self.unheard.merge(&other.unheard),
        };
        merged.normalise();
        merged
    }

    /// Would merging `other` leave this view as it is? Says so for certain, and costs no copy; may say no where it would.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        let has_slice = |(name, theirs): (&Arc<str>, &Slice)| {
            self.slices.get(name).map_or(theirs.version <= self.floor, |mine| std::ptr::eq(mine.newer(theirs), mine))
        };
        let has_marks = |mine: &Marks, theirs: &Marks| {
            theirs.iter().all(|(uid, boot)| mine.get(uid).is_some_and(|known| known >= boot))
        };
        let keeps = |(name, mine): (&Arc<str>, &Slice)| mine.version > other.floor || other.slices.contains_key(name);
        let has_patched = |(name, patch): (&Arc<str>, &Patch)| {
            self.slices.get(name).map_or(patch.to <= self.floor, |mine| mine.version >= patch.to)
        };
        other.floor <= self.floor
            && other.patches.iter().all(has_patched)
            && other.slices.iter().all(has_slice)
            && (other.floor == 0 || self.slices.iter().all(keeps))
            && has_marks(&self.boots, &other.boots)
            && has_marks(&self.leaving, &other.leaving)
            && has_marks(&self.left, &other.left)
            && has_marks(&self.gone, &other.gone)
            && self.unheard.includes(&other.unheard)
    }

    /// The part of this view that whoever had `past`, a view from which this one grew, may lack: merged into any view that
    /// grew from `past`, it does what the whole does. None: only the whole will do.
    #[must_use]
    pub fn since(&self, past: &Self) -> Option<Self> {
        let new_marks = |mine: &Marks, theirs: &Marks| {
            let is_new = |(uid, boot): &(&Uid, &Boot)| theirs.get(*uid) != Some(*boot);
            mine.iter().filter(is_new).map(|(uid, boot)| (uid.clone(), *boot)).collect()
        };
        let (slices, patches) = self.slices_since(past);
        // Under a greater floor a slice that is not named does not exist.
        (self.floor == past.floor).then(|| Self {
            floor: 0,
            slices,
            patches,
            boots: new_marks(&self.boots, &past.boots),
            leaving: new_marks(&self.leaving, &past.leaving),
            left: new_marks(&self.left, &past.left),
            gone: new_marks(&self.gone, &past.gone),
            unheard: self.unheard.since(&past.unheard),
        })
    }

    /// A deliberate mistake: the source is believed as heard of last.
    #[cfg(feature = "simulation")]
    pub(super) fn merge_with_source_of(&self, heard: &Self) -> Self {
        let mut merged = self.merge(heard);
        merged.floor = heard.floor;
        merged.slices.clone_from(&heard.slices);
        merged.normalise();
        merged
    }

    /// A deliberate mistake: an older mark stands for one that was put before the boot was heard of.
    #[cfg(feature = "simulation")]
    pub(super) fn with_older_marks_only(mut self) -> Self {
        for uid in self.gone.keys() {
            self.unheard.forget(uid);
        }
        self
    }

    /// Only that a process of a pod was heard from. This and the next three are parts of views, to be merged.
    #[must_use]
    pub fn of_boot(id: &MemberId) -> Self {
        Self { boots: mark(id), ..Self::default() }
    }

    /// Only that a member announces that it leaves.
    #[must_use]
    pub fn of_leaving(id: &MemberId) -> Self {
        Self { leaving: mark(id), ..Self::default() }
    }

    /// Only that a member ended in good order.
    #[must_use]
    pub fn of_left(id: &MemberId) -> Self {
        Self { left: mark(id), ..Self::default() }
    }

    /// Only that members are lost, as `by` declares.
    #[must_use]
    pub fn of_gone(ids: &[MemberId], by: &MemberId) -> Self {
        let heard = ids.iter().filter(|id| id.boot != 0);
        let unheard = ids.iter().filter(|id| id.boot == 0).map(|id| id.uid.clone());
        Self {
            gone: heard.map(|id| (id.uid.clone(), id.boot)).collect(),
            unheard: Unheard::of(unheard, by),
            ..Self::default()
        }
    }

    /// Only what a process that nobody has cleared yet answers to those who declared its pod gone before they had heard of a
    /// boot: what they meant was before it. None, if it is said already.
    #[must_use]
    pub fn answers(&self, id: &MemberId) -> Option<Self> {
        self.unheard.answers(id).map(|unheard| Self { unheard, ..Self::default() })
    }

    /// This view, and that a process of a pod was heard from.
    #[must_use]
    pub fn with_boot(&self, id: &MemberId) -> Self {
        self.merge(&Self::of_boot(id))
    }

    /// This view, and that a member announces that it leaves.
    #[must_use]
    pub fn with_leaving(&self, id: &MemberId) -> Self {
        self.merge(&Self::of_leaving(id))
    }

    /// This view, and that a member ended in good order.
    #[must_use]
    pub fn with_left(&self, id: &MemberId) -> Self {
        self.merge(&Self::of_left(id))
    }

    /// This view, and that a member is lost, as `by` declares.
    #[must_use]
    pub fn with_gone(&self, id: &MemberId, by: &MemberId) -> Self {
        self.merge(&Self::of_gone(std::slice::from_ref(id), by))
    }

    /// All endpoints, in any condition, each uid once: as the slice with the greatest version has it.
    #[must_use]
    pub fn endpoints(&self) -> BTreeMap<&Uid, &Endpoint> {
        let mut found: BTreeMap<&Uid, (u64, &Endpoint)> = BTreeMap::new();
        for slice in self.slices.values() {
            for endpoint in slice.endpoints.iter().flat_map(|endpoints| endpoints.iter()) {
                let newer = (slice.version, endpoint);
                found.entry(&endpoint.uid).and_modify(|known| *known = newer.max(*known)).or_insert(newer);
            }
        }
        found.into_iter().map(|(uid, (_, endpoint))| (uid, endpoint)).collect()
    }

    /// The greatest boot of a uid heard of; 0 when there is none.
    #[must_use]
    pub fn boot(&self, uid: &Uid) -> Boot {
        self.boots.get(uid).copied().unwrap_or_default()
    }

    /// Has this process said that it leaves?
    #[must_use]
    pub fn is_leaving(&self, id: &MemberId) -> bool {
        self.leaving.get(&id.uid).is_some_and(|boot| *boot >= id.boot)
    }

    /// Has exactly this process ended in good order?
    #[must_use]
    pub fn has_left(&self, id: &MemberId) -> bool {
        self.left.get(&id.uid) == Some(&id.boot)
    }

    /// Has this process been declared lost, or did a later process of its pod start, without its having left?
    ///
    /// A member that was declared gone before the declarer knew its boot is gone whatever its boot turns out to be: it may
    /// have been an authority all the while, and the declarer has given its keys to others. It learns of it, fences
    /// itself, and starts again as a process that answers ([`Self::answers`]).
    #[must_use]
    pub fn is_gone(&self, id: &MemberId) -> bool {
        let declared = self.gone.get(&id.uid).is_some_and(|boot| *boot >= id.boot) || self.unheard.has(&id.uid);
        (declared || self.boot(&id.uid) > id.boot) && !self.has_left(id)
    }

    /// For traces: what members said of themselves and others.
    #[must_use]
    pub fn marks(&self) -> String {
        let Self { floor, boots, leaving, left, gone, unheard, .. } = self;
        format!("floor {floor}, boots {boots:?}, leaving {leaving:?}, left {left:?}, gone {gone:?}, {unheard:?}")
    }

    /// Versions of the source: the newest list, and the newest slice.
    #[must_use]
    pub fn source_version(&self) -> (u64, u64) {
        (self.floor, self.slices.values().map(|slice| slice.version).max().unwrap_or_default())
    }

    /// Leaves one form of what means the same, and drops what nobody needs any more.
    fn normalise(&mut self) {
        let floor = self.floor;
        self.slices.retain(|_, slice| slice.endpoints.is_some() || slice.version > floor);
        self.forget_old_deletions();
        let endpoints: Vec<Uid> = self.endpoints().into_keys().cloned().collect();
        let is_endpoint = |uid: &Uid| endpoints.binary_search(uid).is_ok();
        for marks in [&mut self.boots, &mut self.leaving, &mut self.left, &mut self.gone] {
            marks.retain(|uid, _| is_endpoint(uid));
        }
        self.unheard.normalise(is_endpoint);
        // `left` beats `gone`.
        let left = &self.left;
        self.gone.retain(|uid, boot| left.get(uid).is_none_or(|left| *left < *boot));
    }

    fn forget_old_deletions(&mut self) {
        let deleted = self.slices.values().filter(|slice| slice.endpoints.is_none());
        let mut versions: Vec<u64> = deleted.map(|slice| slice.version).collect();
        if versions.len() > MAX_DELETED_SLICES {
            versions.sort_unstable();
            let oldest_kept = versions[versions.len() - MAX_DELETED_SLICES];
            self.slices.retain(|_, slice| slice.endpoints.is_some() || slice.version >= oldest_kept);
        }
    }
}

fn mark(id: &MemberId) -> Marks {
    [(id.uid.clone(), id.boot)].into()
}

fn greater<K: Clone + Ord>(one: &BTreeMap<K, Boot>, other: &BTreeMap<K, Boot>) -> BTreeMap<K, Boot> {
    let mut all = one.clone();
    for (whom, boot) in other {
        let known = all.entry(whom.clone()).or_insert(*boot);
        *known = (*known).max(*boot);
    }
    all
}

#[cfg(test)]
mod tests;
