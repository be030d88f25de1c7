//! The store of a simulated replica: the server's own, through the hand-off's side of it.

use std::sync::Arc;

use larder::cache::key::{AccountId, Key};
use larder::cache::quota::{Amount, Tenant};
use larder::cache::store::{Carried, Condition, Mode, Name, Scope, Store, StoreConfig, StoreCopies, StoreError};
use larder::cache::version::{Now, Version};
use larder::ownership::copies::Frozen;
use larder::ownership::member::MemberId;
use larder::ownership::mistake::Mistakes;
use larder::ownership::shard::ShardView;
use larder::ring::hash;

use crate::monitor::{Cell, Kind, OpId, Outcome, number};
use crate::world::Op;

pub type Place = larder::cache::store::Place;

/// Enough that no run evicts.
pub const AMPLE_BYTES: u64 = 64 * 1024 * 1024;

const SHARDS: usize = 4;
const SPACE: &str = "a";

/// What a key holds; its number says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Decimal text, which may be incremented.
    Number,
    /// A number, and what takes room beside it.
    Padded,
}

pub fn content(number: usize) -> Content {
    if number % 3 == 1 { Content::Padded } else { Content::Number }
}

pub fn place(number: usize) -> Place {
    let key = format!("k{number}");
    let hash = hash::of_route(format!("{SPACE}/{key}").as_bytes());
    Place { hash, key: Name { space: space(), key: key.into() } }
}

pub fn number_of(key: &str) -> Option<usize> {
    key.strip_prefix('k')?.parse().ok()
}

pub fn space() -> AccountId {
    AccountId::new(SPACE).expect("it is an account's name")
}

/// Why an operation did not run.
pub enum Blocked {
    Elsewhere,
    NeedsLease(Amount),
}

/// What the store said, and which version it is about: the one written, or the one read.
pub type Executed = (Outcome, Version);

pub fn new(me: &MemberId, capacity_bytes: u64, mistakes: Mistakes) -> Arc<Store> {
    let config = StoreConfig { capacity_bytes, shards: SHARDS, replica: 0 };
    let store = Store::simulated(config, 7);
    store.join(me, mistakes);
    Arc::new(store)
}

/// Runs an operation, if this replica is the authority for its key now.
pub fn execute(store: &Store, payer: &Tenant, op: &Op, now: Now) -> Result<Executed, Blocked> {
    let name = &op.place.key;
    let key = Key::new(&name.key).expect("it is a short text");
    let space = store.tenant(&name.space);
    let scope = Scope { space: &space, charge: Some(payer), mode: Mode::Apply };
    let stored = |condition| {
        let value = text(op.id, content(op.number));
        answered(store.store(scope, key, value.as_bytes(), op.ttl_ms, condition, now), |version| {
            (Outcome::Done, version)
        })
    };
    match op.kind {
        Kind::Read => {
            let read = store.read(&space, key, now, |entry| (cell(&entry.value()), entry.version()));
            let read = read.map_err(|_| Blocked::Elsewhere)?;
            let (value, version) = read.unwrap_or((None, Version::NONE));
            Ok((Outcome::Value(value), version))
        }
        Kind::Write => stored(Condition::Always),
        Kind::WriteIf(None) => stored(Condition::IfAbsent),
        Kind::WriteIf(Some(_)) => stored(Condition::IfVersion(op.seen)),
        Kind::WriteIfPresent => stored(Condition::IfPresent),
        Kind::Increment => {
            let request = if op.may_repeat { op.id.to_string() } else { String::new() };
            let counted = store.increment(scope, key, number(op.id), &request, op.ttl_ms, now);
            answered(counted, |counted| (Outcome::Count(counted.value), counted.version))
        }
        Kind::Delete | Kind::DeleteIf(_) => {
            let expected = matches!(op.kind, Kind::DeleteIf(_)).then_some(op.seen);
            answered(store.delete(scope, key, expected, now), |_| (Outcome::Done, Version::NONE))
        }
    }
}

fn answered<T>(answer: Result<T, StoreError>, done: impl FnOnce(T) -> Executed) -> Result<Executed, Blocked> {
    match answer {
        Ok(answer) => Ok(done(answer)),
        Err(StoreError::Elsewhere(_)) => Err(Blocked::Elsewhere),
        Err(StoreError::NeedsLease { keys, bytes, .. }) => Err(Blocked::NeedsLease(Amount { keys, bytes })),
        Err(StoreError::AlreadyExists | StoreError::NotFound | StoreError::VersionMismatch { .. }) => {
            Ok((Outcome::Mismatch, Version::NONE))
        }
        Err(StoreError::NoRoom) => Ok((Outcome::Refused, Version::NONE)),
        Err(other) => panic!("the store says {other}"),
    }
}

fn text(id: OpId, content: Content) -> String {
    let number = number(id);
    match content {
        Content::Number => number.to_string(),
        // From within the entry to outside of it.
        Content::Padded => {
            let padding = usize::try_from(id * 131 % 1500).expect("it is small");
            format!("{number} {}", "x".repeat(padding))
        }
    }
}

/// The number in a value.
#[expect(clippy::unnecessary_wraps, reason = "it is a cell with a value")]
pub fn cell(value: &[u8]) -> Cell {
    let text = std::str::from_utf8(value).expect("values are texts");
    let number = text.split(' ').next().expect("a split has a first part");
    Some(number.parse().expect("values are numbers"))
}

/// What a look at a store sees of a key.
pub trait Look {
    fn entry_of(&self, place: &Place) -> Option<Frozen<Carried>>;
    fn view_of<R>(
        &self,
        place: &Place,
        f: impl FnOnce(&ShardView<u64>, &larder::ownership::shard::Place<u64>) -> R,
    ) -> R;

    fn is_settled(&self, place: &Place) -> bool {
        self.view_of(place, |view, mark| view.is_settled(mark))
    }

    fn is_authority(&self, place: &Place) -> bool {
        self.view_of(place, |view, mark| view.is_authority(mark))
    }

    fn is_lent_to(&self, place: &Place, to: &MemberId) -> bool {
        self.view_of(place, |view, mark| view.lent_to(mark).any(|id| id == to))
    }
}

impl Look for StoreCopies {
    fn entry_of(&self, place: &Place) -> Option<Frozen<Carried>> {
        self.entry(place)
    }

    fn view_of<R>(
        &self,
        place: &Place,
        f: impl FnOnce(&ShardView<u64>, &larder::ownership::shard::Place<u64>) -> R,
    ) -> R {
        self.with_view(place, f).expect("a simulated store is a member's")
    }
}
