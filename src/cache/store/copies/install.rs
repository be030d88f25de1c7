//! What a key's sources said becomes its entry (rule 7), in the room that there is.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::MutexGuard;

use super::StoreCopies;
use crate::cache::quota::Tenant;
use crate::cache::store::counter::Remembered;
use crate::cache::store::entry;
use crate::cache::store::index::Hashes;
use crate::cache::store::member::{Carried, Place};
use crate::cache::store::outside::Outside;
use crate::cache::store::room::{MAX_ATTEMPTS, Room};
use crate::cache::store::shard::{Fresh, Garbage, Shard, Value};
use crate::cache::store::slab::ChunkRef;
use crate::cache::version::{Now, Version};
use crate::ownership::copies::Frozen;
use crate::ownership::shard::{Removal, ShardView};

/// What is to be the entry, unless one's own copy is newer.
struct Incoming<'a> {
    space: Tenant,
    payer: Option<Tenant>,
    key: &'a [u8],
    hashes: Hashes,
    value: Value<'a>,
    version: Version,
    expires_ms: Option<u64>,
}

impl StoreCopies {
    /// Rule 7: the newest of the sources' copies, `best`, and one's own is the entry. What does not fit, and nothing may go
    /// for it, is as if it were evicted at once.
    pub(super) fn install(&self, place: &Place, best: Option<&Frozen<Carried>>) {
        let (space, hashes) = self.target(place);
        let key = place.key.key.as_bytes();
        let incoming = best.map(|best| self.incoming(&space, key, hashes, best));
        let mut garbage = Garbage::new();
        let mut room = Room::none(&self.store.used);
        let mut shard = self.store.lock(hashes);
        let mut attempts = MAX_ATTEMPTS;
        loop {
            let own = shard.find(&space, key, hashes);
            let newer = incoming.as_ref().filter(|incoming| incoming.wins(&shard, own));
            let before = own.map_or(0, |at| shard.charge(at));
            let after = newer.map_or(before, Incoming::charge);
            let needed = after.saturating_sub(before) + ShardView::<u64>::RESOLVED_BYTES;
            let capacity = self.store.capacity.load(Ordering::Relaxed);
            let fits = room.grow_to(needed, capacity);
            if !fits && after <= capacity && attempts > 0 {
                let asker = newer.map(|newer| newer.payer.as_ref().unwrap_or(&newer.space));
                let evict = || self.evict(asker, needed);
                attempts = if MutexGuard::unlocked(&mut shard, evict) { attempts - 1 } else { 0 };
                // Everything is looked at again: one's own copy may have been what went.
                continue;
            }
            let (marks, wins) = (shard.marks(), newer.is_some());
            if let (true, Some(own)) = (wins, own) {
                shard.remove(own, hashes, &mut garbage);
            }
            if let Some(member) = &mut shard.member {
                member.view.resolve(&hashes.mark(), best.is_some());
            }
            let after = match incoming.filter(|_| wins) {
                Some(incoming) if fits => incoming.write(&mut shard, &mut garbage),
                Some(incoming) => incoming.write_evicted(&mut shard, self.now, &mut garbage),
                None => before,
            };
            room.keep(before + marks, after + shard.count_marks());
            return;
        }
    }

    fn incoming<'a>(&self, space: &Tenant, key: &'a [u8], hashes: Hashes, best: &'a Frozen<Carried>) -> Incoming<'a> {
        let carried = best.value.as_ref();
        let payer = carried.and_then(|carried| carried.payer.as_ref()).map(|id| self.tenant_of(id));
        if let (Some(payer), Some(budget)) = (&payer, carried.and_then(|carried| carried.budget)) {
            payer.hear_budget(budget);
        }
        Incoming {
            space: space.clone(),
            payer,
            key,
            hashes,
            value: carried.map_or(Value::Tombstone, |carried| value_of(key, carried)),
            version: best.version,
            expires_ms: carried.and_then(|carried| carried.expires_ms),
        }
    }
}

impl Incoming<'_> {
    /// As [`Frozen::newer`].
    fn wins(&self, shard: &Shard, own: Option<ChunkRef>) -> bool {
        let own = own.map(|at| shard.entry(at)).map(|entry| (entry.version(), !entry.meta().is_tombstone()));
        own < Some((self.version, !self.value.is_tombstone()))
    }

    fn charge(&self) -> u64 {
        let charged_apart = !self.value.is_tombstone() && self.payer.as_ref() != Some(&self.space);
        self.value.charge(self.key.len(), self.expires_ms.is_some(), charged_apart)
    }

    /// Answers what is charged for it. Nothing if the slab has no chunk left: then it is lost, as if evicted.
    fn write(self, shard: &mut Shard, garbage: &mut Garbage) -> u64 {
        let bytes = (self.key.len() + self.value.len()) as u64;
        let fresh = Fresh {
            space: &self.space,
            charged: self.payer.as_ref(),
            key: self.key,
            value: self.value,
            version: self.version,
            expires_ms: self.expires_ms,
        };
        let charge = shard.write(None, fresh, self.hashes, garbage);
        if let (Some(_), Some(payer)) = (charge, &self.payer) {
            payer.add_copy(1, bytes);
        }
        charge.unwrap_or(0)
    }

    /// Leaves what rule 8 says of an entry that is evicted.
    fn write_evicted(self, shard: &mut Shard, now: Now, garbage: &mut Garbage) -> u64 {
        let mark = self.hashes.mark();
        if self.value.is_tombstone() {
            return self.write(shard, garbage);
        }
        shard.counts.evicted += 1;
        let Some(member) = &mut shard.member else { return 0 };
        if member.view.removal(&mark) == Removal::Nothing {
            member.view.forget_miss(&mark);
            return 0;
        }
        let version = member.clock.next(now);
        Self { value: Value::Tombstone, payer: None, expires_ms: None, version, ..self }.write(shard, garbage)
    }
}

/// A copy of what came, so that no message stays in memory for it.
fn value_of<'a>(key: &[u8], carried: &'a Carried) -> Value<'a> {
    if carried.requests.is_empty() && entry::is_inline(key.len(), carried.value.len()) {
        return Value::Inline(Cow::Borrowed(&carried.value));
    }
    let requests = (!carried.requests.is_empty()).then(|| Box::new(Remembered::of(&carried.requests)));
    Value::Outside(Outside { value: Bytes::copy_from_slice(&carried.value), requests })
}
