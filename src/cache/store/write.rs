//! Calls that change an entry. One way leads through all of them ([`Store::put`]): decide under the lock what to write, take
//! room and quota for it, write. Where room or quota must be made first, everything is decided again afterwards.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::MutexGuard;

use super::call::{Condition, Counted, Mode, Scope, StoreError, TouchMode, Touched};
use super::counter::{self, Remembered};
use super::entry::{self, EntryRef};
use super::index::Hashes;
use super::outside::Outside;
use super::room::Room;
use super::shard::{Evict, Fresh, Garbage, MAX_SECOND_CHANCES, Shard, Value};
use super::slab::ChunkRef;
use super::{Store, room};
use crate::cache::key::Key;
use crate::cache::quota::{OverBudget, Tenant};
use crate::cache::version::{Now, Version};

/// What to do with an entry, once it is known.
enum Step<'a, A> {
    /// Nothing.
    Answer(A),
    /// Write it and answer.
    Write(Content<'a>, A),
}

/// What an entry will be.
struct Content<'a> {
    value: Value<'a>,
    /// Monotonic milliseconds.
    expires_ms: Option<u64>,
}

/// A change on its way. Made before the shard is locked, so that it is dropped after unlock, garbage and all.
struct Change<'a> {
    scope: Scope<'a>,
    key: &'a [u8],
    hashes: Hashes,
    now: Now,
    room: Room<'a>,
    garbage: Garbage,
}

/// Why a write cannot take place yet.
enum Lacks {
    /// This many bytes; some may be evicted.
    Room(u64),
    Quota(OverBudget, Tenant),
    /// Nothing can be done.
    Everything,
}

impl Store {
    /// Stores a copy of `value`. `ttl_ms` is the time to live in milliseconds, at least 1; `None`: for ever.
    ///
    /// # Errors
    /// When the condition fails, the budget is used up, or there is no room.
    pub fn store(
        &self,
        scope: Scope<'_>,
        key: Key<'_>,
        value: &[u8],
        ttl_ms: Option<u64>,
        condition: Condition,
        now: Now,
    ) -> Result<Version, StoreError> {
        // A large value is copied here, not under the lock.
        let value = if entry::is_inline(key.as_bytes().len(), value.len()) {
            Value::Inline(Cow::Borrowed(value))
        } else {
            Value::Outside(Outside { value: Bytes::copy_from_slice(value), requests: None })
        };
        let expires_ms = expiry(ttl_ms, now);
        let stored = self.put(scope, key, now, true, |current| {
            check(condition, current)?;
            Ok(Step::Write(Content { value: value.clone(), expires_ms }, ()))
        });
        stored.map(|((), version)| version)
    }

    /// Removes the key. Nothing is left, or a tombstone while another replica may have an older copy. Answers whether there
    /// was a value.
    ///
    /// # Errors
    /// [`StoreError::VersionMismatch`] when `if_version` is another than the current one.
    pub fn delete(
        &self,
        scope: Scope<'_>,
        key: Key<'_>,
        if_version: Option<Version>,
        now: Now,
    ) -> Result<bool, StoreError> {
        let mut change = self.change(scope, key, now);
        let mut shard = self.lock(change.hashes);
        shard.admit(change.hashes).map_err(StoreError::Elsewhere)?;
        let Some(at) = self.deletable(&mut shard, &mut change, if_version)? else { return Ok(false) };
        if !scope.mode.is_dry_run() {
            let freed = shard.vanish(at, change.hashes, now, &mut change.garbage);
            self.release(freed);
        }
        Ok(true)
    }

    /// Changes how long the entry lives. `ttl_ms` as in [`Self::store`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::NoRoom`] when there is none for the time itself.
    pub fn touch(
        &self,
        scope: Scope<'_>,
        key: Key<'_>,
        ttl_ms: Option<u64>,
        mode: TouchMode,
        now: Now,
    ) -> Result<Touched, StoreError> {
        let new = expiry(ttl_ms, now);
        let longest = |at: Option<u64>| (at.is_none(), at);
        let (touched, version) = self.put(scope, key, now, false, |current| {
            let entry = current.ok_or(StoreError::NotFound)?;
            let old = entry.expires_ms();
            let changed = match mode {
                TouchMode::Overwrite => new != old,
                TouchMode::ExtendOnly => longest(new) > longest(old),
                TouchMode::ShortenOnly => longest(new) < longest(old),
            };
            let expires_ms = if changed { new } else { old };
            let remaining_ttl_ms = expires_ms.map(|at| at.saturating_sub(now.monotonic_ms).max(1));
            let version = if scope.mode.is_dry_run() { Version::NONE } else { entry.version() };
            let answer = Touched { version, remaining_ttl_ms, changed };
            if !changed {
                return Ok(Step::Answer(answer));
            }
            let value = match entry.outside() {
                Some(outside) => Value::Outside(outside.clone()),
                None => Value::Inline(Cow::Owned(entry.value().into())),
            };
            Ok(Step::Write(Content { value, expires_ms }, answer))
        })?;
        Ok(if touched.changed { Touched { version, ..touched } } else { touched })
    }

    /// Adds to a counter, created at 0 with `ttl_ms` if absent. A counter is decimal text: an optional `-` and digits. With a
    /// `request_id` (not empty), the answer is remembered and given again: the last 16, for 60 s, until a plain store.
    ///
    /// # Errors
    /// When the value is no counter, the sum does not fit, or as in [`Self::store`].
    pub fn increment(
        &self,
        scope: Scope<'_>,
        key: Key<'_>,
        delta: i64,
        request_id: &str,
        ttl_ms: Option<u64>,
        now: Now,
    ) -> Result<Counted, StoreError> {
        let (counted, version) = self.put(scope, key, now, true, |current| {
            let (before, expires_ms, requests) = match current {
                None => (0, expiry(ttl_ms, now), None),
                Some(entry) => (number(&entry)?, entry.expires_ms(), requests_of(&entry)),
            };
            let again = requests.and_then(|requests| requests.answer(request_id, now));
            if let Some((value, version)) = again {
                return Ok(Step::Answer(Counted { value, version }));
            }
            let value = before.checked_add(delta).ok_or(StoreError::CounterOverflow)?;
            let remembered = match requests {
                Some(requests) => requests.with(request_id, value, now),
                None => Remembered::default().with(request_id, value, now),
            };
            let text = value.to_string().into_bytes();
            let value_text = if remembered.is_empty() {
                Value::Inline(Cow::Owned(text))
            } else {
                Value::Outside(Outside { value: text.into(), requests: Some(Box::new(remembered)) })
            };
            let content = Content { value: value_text, expires_ms };
            Ok(Step::Write(content, Counted { value, version: Version::NONE }))
        })?;
        let version = if counted.version == Version::NONE { version } else { counted.version };
        let version = if scope.mode.is_dry_run() { Version::NONE } else { version };
        Ok(Counted { version, ..counted })
    }

    /// Writes what `decide` says. `decide` may be asked again when room or quota had to be made.
    fn put<'v, A>(
        &self,
        scope: Scope<'_>,
        key: Key<'_>,
        now: Now,
        counts_as_stored: bool,
        mut decide: impl FnMut(Option<EntryRef<'_>>) -> Result<Step<'v, A>, StoreError>,
    ) -> Result<(A, Version), StoreError> {
        let mut change = self.change(scope, key, now);
        let mut everything_due_is_expired = false;
        let mut shard = self.lock(change.hashes);
        loop {
            // Each time, since the lock was let go.
            shard.admit(change.hashes).map_err(StoreError::Elsewhere)?;
            let at = self.find_unexpired(&mut shard, &mut change);
            let live = at.filter(|&at| !shard.entry(at).meta().is_tombstone());
            let (content, answer) = match decide(live.map(|at| shard.entry(at)))? {
                Step::Answer(answer) => return Ok((answer, Version::NONE)),
                Step::Write(content, answer) => (content, answer),
            };
            match self.try_put(&mut shard, &mut change, at, content) {
                Ok(version) => {
                    shard.counts.stored += u64::from(counts_as_stored && version != Version::NONE);
                    return Ok((answer, version));
                }
                Err(Lacks::Quota(over, payer)) if everything_due_is_expired => {
                    return Err(StoreError::over_budget(over, &payer));
                }
                Err(Lacks::Quota(..)) => {
                    everything_due_is_expired = true;
                    MutexGuard::unlocked(&mut shard, || self.expire_due(now, usize::MAX));
                }
                Err(Lacks::Room(missing)) => {
                    self.make_room(&mut shard, &mut change, at, missing)?;
                }
                Err(Lacks::Everything) => return Err(StoreError::NoRoom),
            }
        }
    }

    /// Writes if there is room and quota; in a dry run, only says whether it would.
    fn try_put(
        &self,
        shard: &mut Shard,
        change: &mut Change<'_>,
        at: Option<ChunkRef>,
        mut content: Content<'_>,
    ) -> Result<Version, Lacks> {
        let live = at.map(|at| shard.entry(at)).filter(|entry| !entry.meta().is_tombstone());
        let payer = match &live {
            Some(entry) => shard.charged(entry).cloned(),
            None => change.scope.charge.cloned(),
        };
        let bytes_before = live.as_ref().map_or(0, EntryRef::quota_bytes);
        let bytes_after = (change.key.len() + content.value.len()) as u64;
        let (keys, more) = (u64::from(live.is_none()), bytes_after.saturating_sub(bytes_before));
        let would_fit = || payer.as_ref().map_or(Ok(()), |payer| Lacks::quota(payer.would_fit(keys, more), payer));

        let before = at.map_or(0, |at| shard.charge(at));
        let charged_apart = payer.as_ref() != Some(change.scope.space);
        let after = content.value.charge(change.key.len(), content.expires_ms.is_some(), charged_apart);
        let missing = after.saturating_sub(before);
        let capacity = self.capacity.load(Ordering::Relaxed);
        if after > capacity {
            return Err(Lacks::Everything);
        }
        if change.scope.mode.is_dry_run() {
            if change.scope.mode != Mode::DryRunThatFits {
                would_fit()?;
            }
            let fits = self.used.load(Ordering::Relaxed).saturating_add(missing) <= capacity
                || self.may_evict_anything(Some(change.asker()));
            return if fits { Ok(Version::NONE) } else { Err(Lacks::Everything) };
        }
        if !change.room.grow_to(missing, capacity) {
            would_fit()?;
            return Err(Lacks::Room(missing));
        }
        if let Some(payer) = &payer {
            Lacks::quota(payer.take(keys, more), payer)?;
        }
        let version = self.clock.next(change.now);
        content.value.set_version(version);
        let Content { value, expires_ms } = content;
        let fresh =
            Fresh { space: change.scope.space, charged: payer.as_ref(), key: change.key, value, version, expires_ms };
        let written = shard.write(at, fresh, change.hashes, &mut change.garbage);
        if let Some(payer) = &payer {
            // What was taken and not used, or held and not needed any more.
            let surplus = if written.is_some() { bytes_before.saturating_sub(bytes_after) } else { more };
            payer.give_back(if written.is_some() { 0 } else { keys }, surplus);
        }
        change.room.keep(before, written.ok_or(Lacks::Everything)?);
        Ok(version)
    }

    /// Evicts for a write: from its own shard if that holds its share, otherwise, without its lock, from any.
    fn make_room(
        &self,
        shard: &mut MutexGuard<'_, Shard>,
        change: &mut Change<'_>,
        at: Option<ChunkRef>,
        missing: u64,
    ) -> Result<(), StoreError> {
        let (asker, now) = (Some(change.asker()), change.now);
        if self.holds_its_share(shard) {
            let (patience, second_chances) = (room::PATIENCE, MAX_SECOND_CHANCES);
            let mut search = Evict { asker, keep: at, patience, second_chances, now };
            let freed = self.evict_from(shard, &mut search, missing, &mut change.garbage);
            if freed > 0 && freed < missing {
                // More batches follow: others have their turn between them.
                MutexGuard::bump(shard);
            }
            if freed > 0 {
                return Ok(());
            }
        }
        let evicted = MutexGuard::unlocked(shard, || self.evict_somewhere(asker, missing, now));
        if evicted { Ok(()) } else { Err(StoreError::NoRoom) }
    }

    /// The entry or tombstone of the key; an entry whose time is over is reclaimed. That changes nothing that a caller can
    /// see, so a dry run does it too.
    fn find_unexpired(&self, shard: &mut Shard, change: &mut Change<'_>) -> Option<ChunkRef> {
        let at = shard.find(change.scope.space, change.key, change.hashes)?;
        if !shard.entry(at).is_expired(change.now) {
            return Some(at);
        }
        shard.counts.expired += 1;
        let freed = shard.vanish(at, change.hashes, change.now, &mut change.garbage);
        self.release(freed);
        // It may have left a tombstone.
        shard.find(change.scope.space, change.key, change.hashes)
    }

    /// The entry to delete, if there is one.
    fn deletable(
        &self,
        shard: &mut Shard,
        change: &mut Change<'_>,
        if_version: Option<Version>,
    ) -> Result<Option<ChunkRef>, StoreError> {
        let at = self.find_unexpired(shard, change).filter(|&at| !shard.entry(at).meta().is_tombstone());
        let current = at.map_or(Version::NONE, |at| shard.entry(at).version());
        match if_version {
            Some(expected) if expected != current => Err(StoreError::VersionMismatch { current }),
            _ => Ok(at),
        }
    }

    fn change<'a>(&'a self, scope: Scope<'a>, key: Key<'a>, now: Now) -> Change<'a> {
        let hashes = self.hashes(scope.space, key);
        let room = Room::none(&self.used);
        Change { scope, key: key.as_bytes(), hashes, now, room, garbage: Garbage::new() }
    }

    /// Bytes came free.
    pub(super) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl<'a> Change<'a> {
    /// Whose store this is: its own entries are not guarded against it.
    fn asker(&self) -> &'a Tenant {
        self.scope.charge.unwrap_or(self.scope.space)
    }
}

impl Lacks {
    fn quota(fits: Result<(), OverBudget>, payer: &Tenant) -> Result<(), Self> {
        fits.map_err(|over| Self::Quota(over, payer.clone()))
    }
}

fn check(condition: Condition, current: Option<EntryRef<'_>>) -> Result<(), StoreError> {
    let version = current.map_or(Version::NONE, |entry| entry.version());
    match condition {
        Condition::IfAbsent if version != Version::NONE => Err(StoreError::AlreadyExists),
        Condition::IfPresent if version == Version::NONE => Err(StoreError::NotFound),
        Condition::IfVersion(expected) if version != expected => Err(StoreError::VersionMismatch { current: version }),
        _ => Ok(()),
    }
}

/// Saturates: a time that does not fit never comes.
fn expiry(ttl_ms: Option<u64>, now: Now) -> Option<u64> {
    ttl_ms.map(|ttl_ms| now.monotonic_ms.saturating_add(ttl_ms.max(1)))
}

fn number(entry: &EntryRef<'_>) -> Result<i64, StoreError> {
    counter::parse(&entry.value()).ok_or(StoreError::NotACounter)
}

fn requests_of<'a>(entry: &EntryRef<'a>) -> Option<&'a Remembered> {
    entry.outside().and_then(|outside| outside.requests.as_deref())
}
