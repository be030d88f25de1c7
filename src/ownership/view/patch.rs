//! What changed in a slice, in a part of a view that is sent to somebody who has the slice as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Slice, View};
use crate::ownership::member::{Endpoint, Uid};

/// From one version of a slice to a later one. Only ever in a part of a view; never in a view that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Sorted by uid: new, or other than before.
    pub(super) changed: Arc<[Endpoint]>,
    pub(super) removed: Arc<[Uid]>,
}

impl Patch {
    /// None, if the whole slice says it in fewer words.
    fn between(old: &Slice, new: &Slice) -> Option<Self> {
        let (before, after) = (old.endpoints.as_ref()?, new.endpoints.as_ref()?);
        if old.version >= new.version {
            return None;
        }
        let changed: Vec<Endpoint> =
            after.iter().filter(|endpoint| before.binary_search(endpoint).is_err()).cloned().collect();
        let stays = |uid: &Uid| after.binary_search_by(|endpoint| endpoint.uid.cmp(uid)).is_ok();
        let removed: Vec<Uid> = before.iter().map(|it| &it.uid).filter(|uid| !stays(uid)).cloned().collect();
        let is_short = (changed.len() + removed.len()) * 2 < after.len();
        is_short.then(|| Self { from: old.version, to: new.version, changed: changed.into(), removed: removed.into() })
    }

    fn apply(&self, old: &Slice) -> Option<Slice> {
        let before = old.endpoints.as_ref().filter(|_| old.version == self.from)?;
        let stays = |endpoint: &&Endpoint| {
            !self.removed.contains(&endpoint.uid) && !self.changed.iter().any(|it| it.uid == endpoint.uid)
        };
        let after = before.iter().filter(stays).chain(self.changed.iter()).cloned().collect();
        Some(Slice::new(self.to, after))
    }
}

impl View {
    /// What takes the slices of `past` to those of this view: whole, or what changed in them.
    pub(super) fn slices_since(&self, past: &Self) -> (BTreeMap<Arc<str>, Slice>, BTreeMap<Arc<str>, Patch>) {
        let (mut slices, mut patches) = (BTreeMap::new(), BTreeMap::new());
        for (name, slice) in &self.slices {
            let before = past.slices.get(name);
            if before == Some(slice) {
                continue;
            }
            match before.and_then(|before| Patch::between(before, slice)) {
                Some(patch) => _ = patches.insert(Arc::clone(name), patch),
                None => _ = slices.insert(Arc::clone(name), slice.clone()),
            }
        }
        (slices, patches)
    }

    /// This part, with the slices that its patches make of those of `whole`. A patch of another version says nothing: whoever
    /// sent it finds out that the views still differ, and sends the whole.
    pub(super) fn patched_on(&self, whole: &Self) -> Self {
        let mut part = Self { patches: BTreeMap::new(), ..self.clone() };
        for (name, patch) in &self.patches {
            if let Some(slice) = whole.slices.get(name).and_then(|old| patch.apply(old)) {
                part.slices.insert(Arc::clone(name), slice);
            }
        }
        part
    }
}
