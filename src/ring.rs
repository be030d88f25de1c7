//! Who owns a key: the ring that Envoy and gRPC's `ring_hash` policy (gRFC A42, A61, A76) compute, so that stock clients
//! and proxies find the owner by themselves.
//!
//! A ring is an immutable value made of the members' addresses and nothing else; it knows neither the members' state nor
//! time. Placement is frozen by `tests/fixtures/placement_v1.csv`.

use std::fmt::Write as _;

mod diff;
pub mod hash;

pub use diff::{Move, Stretch, diff};

/// Entries of a ring at most: stock clients do not make larger ones.
pub const MAX_ENTRIES: usize = 4096;

/// Entries of one member at most. More would even the shares out a little, and cost every change more.
pub const MAX_ENTRIES_PER_MEMBER: usize = 128;

/// Bits of a hash that pick the place where a search starts: as many places as entries, so a search takes about one step.
const START_BITS: u32 = MAX_ENTRIES.ilog2();

/// Members on a ring. Cheap to ask, not cheap to make: share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Sorted, each once.
    members: Box<[Box<str>]>,
    /// The entries' hashes, sorted.
    hashes: Box<[u64]>,
    /// Whose each is: an index into `members`.
    owners: Box<[u16]>,
    /// By the upper bits of a hash: the first entry whose upper bits are no smaller.
    starts: Box<[u16]>,
}

/// The `minimum_ring_size` that a stock client must be given for `members` members to compute the same ring.
///
/// It gives every member the same number of entries, so that a join or a leave moves about 1/n of the keys up to 32
/// members. Above, where that number changes with n, it moves 2/n to 3/n.
#[must_use]
pub fn minimum_ring_size(members: usize) -> usize {
    entries_per_member(members) * members - members / 2
}

fn entries_per_member(members: usize) -> usize {
    // Over 4,096 members, who get an entry at most, some get none.
    MAX_ENTRIES_PER_MEMBER.min(MAX_ENTRIES / members.max(1)).max(1)
}

impl Ring {
    /// The ring of these members, each named by its address, "ip:port" or "[ip]:port"; one named twice counts once.
    /// Over [`MAX_ENTRIES`] members some own nothing.
    #[must_use]
    pub fn new<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Self {
        let mut members: Vec<Box<str>> = addresses.into_iter().map(|address| address.as_ref().into()).collect();
        members.sort_unstable();
        members.dedup();
        members.truncate(usize::from(u16::MAX));
        let mut entries = entries(&members);
        entries.sort_unstable();
        let hashes: Box<[u64]> = entries.iter().map(|entry| entry.0).collect();
        let starts = (0..1_u64 << START_BITS).map(|start| {
            let first = start << (u64::BITS - START_BITS);
            u16::try_from(hashes.partition_point(|hash| *hash < first)).expect("a ring has at most 4,096 entries")
        });
        Self {
            starts: starts.collect(),
            owners: entries.iter().map(|entry| entry.1).collect(),
            members: members.into(),
            hashes,
        }
    }

    /// The members' addresses, sorted.
    #[must_use]
    pub fn members(&self) -> &[Box<str>] {
        &self.members
    }

    /// How many entries it has.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.hashes.len()
    }

    /// The address of the member that owns a route; none when the ring is empty.
    #[must_use]
    pub fn owner(&self, route: &[u8]) -> Option<&str> {
        self.owner_of(hash::of_route(route))
    }

    /// The address of the member where a route goes when its owner is down; none with fewer than two members.
    #[must_use]
    pub fn successor(&self, route: &[u8]) -> Option<&str> {
        self.successor_of(hash::of_route(route))
    }

    /// As [`Self::owner`], for a hash.
    #[must_use]
    pub fn owner_of(&self, hash: u64) -> Option<&str> {
        self.owner_index(hash).map(|index| &*self.members[index])
    }

    /// As [`Self::owner_of`]: the owner's index in [`Self::members`].
    #[must_use]
    pub fn owner_index(&self, hash: u64) -> Option<usize> {
        self.owners.get(self.entry(hash)).map(|index| usize::from(*index))
    }

    /// The last hash of the stretch, from `hash` on, that belongs to one member; the end of all hashes on an empty ring.
    #[must_use]
    pub fn same_owner_through(&self, hash: u64) -> u64 {
        let entry = self.entry(hash);
        let Some(owner) = self.owners.get(entry) else { return u64::MAX };
        if self.hashes[entry] < hash {
            return u64::MAX;
        }
        let others = self.owners[entry..].iter().position(|other| other != owner);
        match others {
            Some(count) => self.hashes[entry + count - 1],
            // What is after the last entry belongs to the first.
            None if self.owners.first() == Some(owner) => u64::MAX,
            None => self.hashes[self.hashes.len() - 1],
        }
    }

    /// As [`Self::successor`], for a hash.
    #[must_use]
    pub fn successor_of(&self, hash: u64) -> Option<&str> {
        let entry = self.entry(hash);
        let owner = *self.owners.get(entry)?;
        let clockwise = self.owners[entry..].iter().chain(&self.owners[..entry]);
        clockwise.copied().find(|other| *other != owner).map(|other| &*self.members[usize::from(other)])
    }

    /// What a member owns: sorted stretches, as few as possible.
    #[must_use]
    pub fn stretches_of(&self, member: usize) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut first = 0;
        let mut add = |first: u64, last: u64, owner: u16| {
            if usize::from(owner) != member {
                return;
            }
            match stretches.last_mut() {
                Some(before) if before.last.checked_add(1) == Some(first) => before.last = last,
                _ => stretches.push(Stretch { first, last }),
            }
        };
        for (&last, &owner) in self.hashes.iter().zip(&self.owners) {
            if last >= first {
                add(first, last, owner);
            }
            match last.checked_add(1) {
                Some(next) => first = next,
                None => return stretches,
            }
        }
        if let Some(&owner) = self.owners.first() {
            add(first, u64::MAX, owner);
        }
        stretches
    }

    /// A line for people and scripts: route, hash, owner, successor, tab-separated; `-` where there is none.
    #[must_use]
    pub fn placement(&self, route: &str) -> String {
        let hash = hash::of_route(route.as_bytes());
        let (owner, successor) = (self.owner_of(hash), self.successor_of(hash));
        let mut line = String::with_capacity(route.len() + 64);
        // Writing to a `String` cannot fail.
        let _ = write!(line, "{route}\t{hash}\t{}\t{}", owner.unwrap_or("-"), successor.unwrap_or("-"));
        line
    }

    /// The first entry at or after `hash`, or the first of all.
    fn entry(&self, hash: u64) -> usize {
        let start = usize::try_from(hash >> (u64::BITS - START_BITS)).unwrap_or(0);
        let mut entry = usize::from(self.starts[start]);
        while self.hashes.get(entry).is_some_and(|at| *at < hash) {
            entry += 1;
        }
        if entry == self.hashes.len() { 0 } else { entry }
    }
}

/// The entries, not sorted: (hash, member), in the words of gRFC A42, whose floating-point sums decide how many each has.
#[expect(clippy::cast_precision_loss, reason = "all of them are far below 2^52")]
fn entries(members: &[Box<str>]) -> Vec<(u64, u16)> {
    if members.is_empty() {
        return Vec::new();
    }
    let weight = 1.0 / members.len() as f64;
    let minimum = minimum_ring_size(members.len()) as f64;
    let scale = ((weight * minimum).ceil() / weight).min(MAX_ENTRIES as f64);
    let (mut current, mut target) = (0.0, 0.0);
    let mut entries = Vec::with_capacity(MAX_ENTRIES);
    let mut text = String::new();
    for (member, address) in (0_u16..).zip(members) {
        target += scale * weight;
        let mut index = 0;
        while current < target {
            entries.push((hash::of_entry(address, index, &mut text), member));
            index += 1;
            current += 1.0;
        }
    }
    entries
}

#[cfg(test)]
mod tests;
