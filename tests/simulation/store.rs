//! The store of a simulated replica: shards, each with its own view, as the real one has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder::cache::key::AccountId;
use larder::cache::quota::Tenant;
use larder::cache::version::{HybridClock, Now, Version};
use larder::ownership::Arcs;
use larder::ownership::copies::{Copies, Frozen, Page};
use larder::ownership::member::MemberId;
use larder::ownership::mistake::{Mistake, Mistakes};
use larder::ownership::shard::{Removal, ShardView, Standing};
use larder::ownership::snapshot::Snapshot;
use larder::ownership::view::View;
use larder::ring::Stretch;

use crate::monitor::{Kind, OpId, Outcome, apply};

pub type Place = larder::ownership::shard::Place<u32>;
pub type Value = (OpId, i64);

const SHARDS: u64 = 4;

#[derive(Debug)]
pub struct Store {
    shards: Vec<Shard>,
    mistakes: Mistakes,
}

#[derive(Debug)]
struct Shard {
    view: ShardView<u32>,
    entries: BTreeMap<Place, Frozen<Value>>,
}

impl Store {
    pub fn new(me: &MemberId, mistakes: Mistakes) -> Self {
        let empty = Arc::new(Snapshot::new(View::default()));
        let shard =
            |_| Shard { view: ShardView::new(me.clone(), Arc::clone(&empty), mistakes), entries: BTreeMap::new() };
        Self { shards: (0..SHARDS).map(shard).collect(), mistakes }
    }

    fn shard(&self, place: &Place) -> &Shard {
        &self.shards[Self::number(place)]
    }

    fn shard_mut(&mut self, place: &Place) -> &mut Shard {
        &mut self.shards[Self::number(place)]
    }

    fn number(place: &Place) -> usize {
        usize::try_from(place.hash / (u64::MAX / SHARDS + 1)).expect("there are few shards")
    }

    /// Runs an operation, if this replica is the authority for its key now. Also says the version that it wrote, if any.
    pub fn execute(
        &mut self,
        place: &Place,
        id: OpId,
        kind: Kind,
        clock: &HybridClock,
        now: Now,
    ) -> Result<(Outcome, Option<Version>), Standing> {
        let shard = self.shard_mut(place);
        match shard.view.standing(place) {
            Standing::Authority => {}
            other => return Err(other),
        }
        let before = shard.entries.get(place).and_then(|entry| entry.value);
        let (after, outcome) = apply(id, kind, before);
        if after == before {
            return Ok((outcome, None));
        }
        let version = clock.next(now);
        match after {
            Some(value) => _ = shard.entries.insert(place.clone(), Frozen { version, value: Some(value) }),
            None => shard.remove(place, version),
        }
        Ok((outcome, Some(version)))
    }

    /// Evicts an entry: at the authority as a delete (rule 8), of a copy by making it a tombstone (rule 10).
    pub fn evict(&mut self, place: &Place, clock: &HybridClock, now: Now) -> bool {
        let shard = self.shard_mut(place);
        if shard.entries.get(place).is_none_or(|entry| entry.value.is_none()) {
            return false;
        }
        if shard.view.is_copy(place) {
            shard.entries.entry(place.clone()).and_modify(|entry| entry.value = None);
        } else {
            shard.remove(place, clock.next(now));
        }
        true
    }

    pub fn entry(&self, place: &Place) -> Option<&Frozen<Value>> {
        self.shard(place).entries.get(place)
    }

    pub fn view(&self, place: &Place) -> &ShardView<u32> {
        &self.shard(place).view
    }

    pub fn entries(&self) -> impl Iterator<Item = (&Place, &Frozen<Value>)> {
        self.shards.iter().flat_map(|shard| &shard.entries)
    }

    pub fn marks_in_settled_arcs(&self) -> usize {
        self.shards.iter().map(|shard| shard.view.marks_in_settled_arcs()).sum()
    }
}

impl Shard {
    fn remove(&mut self, place: &Place, version: Version) {
        match self.view.removal(place) {
            Removal::Tombstone => _ = self.entries.insert(place.clone(), Frozen { version, value: None }),
            Removal::Nothing => {
                self.entries.remove(place);
                self.view.forget_miss(place);
            }
        }
    }

    fn copies_for<'a>(&'a self, to: &'a MemberId) -> impl Iterator<Item = (&'a Place, &'a Frozen<Value>)> {
        self.entries.iter().filter(|(place, _)| self.view.is_for(to, place.hash))
    }
}

impl Copies for Store {
    type Key = u32;
    type Value = Value;

    fn standing(&self, place: &Place) -> Standing {
        self.shard(place).view.standing(place)
    }

    fn change(&mut self, snapshot: &Arc<Snapshot>, arcs: &Arc<Arcs>, lost: &[MemberId]) {
        for shard in &mut self.shards {
            for place in shard.view.change(snapshot, arcs, lost) {
                if self.mistakes.make(Mistake::DropCopiesOfCrashed) {
                    shard.entries.remove(&place);
                } else if let Some(entry) = shard.entries.get_mut(&place) {
                    entry.value = None;
                }
            }
        }
    }

    fn advance(&mut self, arcs: &Arc<Arcs>) {
        self.shards.iter_mut().for_each(|shard| shard.view.advance(arcs));
    }

    fn settle_below(&mut self, arcs: &Arc<Arcs>, settled: Stretch) {
        for shard in &mut self.shards {
            shard.view.settle_below(arcs, settled);
            let view = &shard.view;
            shard.entries.retain(|place, entry| entry.value.is_some() || !view.is_settled(place));
        }
    }

    fn has_copies(&self, claimer: &MemberId) -> bool {
        self.shards.iter().any(|shard| shard.copies_for(claimer).next().is_some())
    }

    fn lend(&mut self, place: &Place, to: &MemberId) -> Option<Frozen<Value>> {
        let shard = self.shard_mut(place);
        let entry = shard.entries.get(place).filter(|_| shard.view.is_copy(place))?.clone();
        shard.view.lend(place, to);
        Some(entry)
    }

    fn lend_page(&mut self, to: &MemberId, after: Option<&Place>, max_bytes: usize) -> Page<u32, Value> {
        let mut left = max_bytes.max(1);
        let mut items = Vec::new();
        for shard in &mut self.shards {
            let found = shard.copies_for(to).filter(|(place, _)| after.is_none_or(|after| *place > after));
            let found: Vec<_> = found.map(|(place, entry)| (place.clone(), entry.clone())).collect();
            for (place, entry) in found {
                if left == 0 {
                    return (items, false);
                }
                left -= 1;
                shard.view.lend(&place, to);
                items.push((place, entry));
            }
        }
        (items, true)
    }

    fn drop_through(&mut self, to: &MemberId, through: &Place) {
        for shard in &mut self.shards {
            let dropped: Vec<Place> =
                shard.copies_for(to).map(|(place, _)| place.clone()).take_while(|place| place <= through).collect();
            for place in dropped {
                shard.entries.remove(&place);
                shard.view.dropped(&place);
            }
        }
    }

    fn is_resolved(&self, place: &Place) -> bool {
        self.shard(place).view.is_resolved(place)
    }

    fn resolve(&mut self, place: &Place, best: Option<Frozen<Value>>) {
        let shard = self.shard_mut(place);
        shard.view.resolve(place, best.is_some());
        if let Some(newest) = Frozen::newer(shard.entries.remove(place), best) {
            shard.entries.insert(place.clone(), newest);
        }
    }

    fn forget_miss(&mut self, place: &Place) {
        let shard = self.shard_mut(place);
        if !shard.entries.contains_key(place) {
            shard.view.forget_miss(place);
        }
    }

    fn tenant(&self, _: &AccountId) -> Option<Tenant> {
        None
    }

    fn tenants(&self) -> Vec<Tenant> {
        Vec::new()
    }

    fn expire(&mut self) {}

    fn has_entry(&self, place: &Place) -> bool {
        self.shard(place).entries.contains_key(place)
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.entries.len()).sum()
    }
}
