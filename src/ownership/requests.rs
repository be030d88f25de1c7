//! Operations that cannot run at once (rule 6): they wait for a key to become this replica's, or are forwarded, once.
//!
//! Deadlines and answers are the adapter's: it says when a request ended. How many may wait is bounded by how many calls it
//! takes at all. Nothing here looks at all of them but a view change: thousands may wait while keys are resolved one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::copies::Copies;
use super::member::MemberId;
use super::mistake::Mistake;
use super::shard::{Place, Standing};
use super::view::Digest;
use super::{Output, Replica};
use crate::cache::version::Now;

/// Milliseconds after which a forward that was turned away is tried again under the same view.
const RETRY_PAUSE_MS: u64 = 20;

/// The adapter's name for a request.
pub type RequestId = u64;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Client,
    /// Forwarded by another replica: never forwarded further.
    Peer,
}

/// The requests that wait or run here, or were forwarded from here.
#[derive(Debug)]
pub(super) struct Requests<K> {
    pending: BTreeMap<RequestId, Pending<K>>,
    /// Of these, who waits for a key.
    waiting: BTreeMap<Place<K>, BTreeSet<RequestId>>,
    /// Who was told to run, by key: until they have, what was resolved for them is kept.
    running: BTreeMap<Place<K>, BTreeSet<RequestId>>,
    /// Who was turned away under a view that is still mine, and until when it pauses.
    paused: BTreeSet<(u64, RequestId)>,
    forwarded: BTreeMap<MemberId, BTreeSet<RequestId>>,
}

#[derive(Debug)]
struct Pending<K> {
    place: Place<K>,
    origin: Origin,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Told to run: the adapter asks the shard again.
    Running,
    Forwarded {
        to: MemberId,
        under: Digest,
    },
    /// Turned away under a view that is still mine.
    Paused {
        until_ms: u64,
    },
}

impl<K> Default for Requests<K> {
    fn default() -> Self {
        Self {
            pending: BTreeMap::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            paused: BTreeSet::new(),
            forwarded: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord> Requests<K> {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Is somebody about to run on this key?
    pub(super) fn runs(&self, place: &Place<K>) -> bool {
        self.running.contains_key(place)
    }

    fn insert(&mut self, id: RequestId, place: Place<K>, origin: Origin) {
        self.remove(id);
        self.waiting.entry(place.clone()).or_default().insert(id);
        self.pending.insert(id, Pending { place, origin, state: State::Waiting });
    }

    fn remove(&mut self, id: RequestId) -> Option<Pending<K>> {
        self.turn(id, State::Waiting);
        let pending = self.pending.remove(&id)?;
        take(&mut self.waiting, &pending.place, id);
        Some(pending)
    }

    /// Moves a request from one state, and its index, to another.
    fn turn(&mut self, id: RequestId, to: State) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        match &pending.state {
            State::Waiting => take(&mut self.waiting, &pending.place, id),
            State::Running => take(&mut self.running, &pending.place, id),
            State::Forwarded { to, .. } => take(&mut self.forwarded, to, id),
            State::Paused { until_ms } => _ = self.paused.remove(&(*until_ms, id)),
        }
        match &to {
            State::Waiting => _ = self.waiting.entry(pending.place.clone()).or_default().insert(id),
            State::Running => _ = self.running.entry(pending.place.clone()).or_default().insert(id),
            State::Forwarded { to, .. } => _ = self.forwarded.entry(to.clone()).or_default().insert(id),
            State::Paused { until_ms } => _ = self.paused.insert((*until_ms, id)),
        }
        pending.state = to;
    }
}

/// Takes one out of an index, and the key with the last.
fn take<K: Ord>(index: &mut BTreeMap<K, BTreeSet<RequestId>>, key: &K, id: RequestId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

impl<S: Copies> Replica<S> {
    /// A request that its shard would not run: decides what becomes of it, now or later, by outputs. Also one that was told
    /// to run and found that its shard would not after all, under the same id.
    pub fn submit(&mut self, id: RequestId, place: Place<S::Key>, origin: Origin, now: Now) {
        self.enter(id, place, origin);
        self.submitted(now);
    }

    /// As [`Self::submit`], one of several: [`Self::submitted`] must follow the last, so that their keys are fetched together.
    pub fn enter(&mut self, id: RequestId, place: Place<S::Key>, origin: Origin) {
        if !self.is_over() {
            self.requests.insert(id, place, origin);
            self.decide(id);
        }
    }

    /// See [`Self::enter`].
    pub fn submitted(&mut self, now: Now) {
        self.kick(now);
    }

    /// The request ended, in whatever way: it ran, was answered, or its deadline passed. To be said of every request.
    pub fn finished(&mut self, id: RequestId, now: Now) {
        if let Some(pending) = self.requests.remove(id) {
            self.forget_miss(&pending.place);
            self.kick(now);
        }
    }

    /// A forward came back as `Moved` or refused: surely not applied. The answer's stamp was accepted before.
    pub fn turned_away(&mut self, id: RequestId, now: Now) {
        let digest = self.snapshot.digest();
        let Some(pending) = self.requests.pending.get(&id) else { return };
        let State::Forwarded { to, under } = pending.state.clone() else { return };
        if under == digest {
            // It may not have my view: the next message brings it.
            self.told.is_behind(&to, &self.snapshot);
            self.requests.turn(id, State::Paused { until_ms: now.monotonic_ms + RETRY_PAUSE_MS });
        } else {
            self.requests.turn(id, State::Waiting);
            self.decide(id);
        }
        self.kick(now);
    }

    /// Requests that wait, run or were forwarded.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Rule 3: whatever waits is looked at again. Forwards to a lost member end as unknown (rule 15).
    pub(super) fn review(&mut self, lost: &[MemberId]) {
        for member in lost {
            // Also what was forwarded before its boot was heard of.
            for known_as in [member.clone(), MemberId { boot: 0, ..member.clone() }] {
                for id in self.requests.forwarded.remove(&known_as).unwrap_or_default() {
                    self.requests.pending.remove(&id);
                    self.outputs.push(Output::Unknown(id));
                }
            }
        }
        self.wake_paused_until(u64::MAX);
        for id in self.requests.waiting.values().flatten().copied().collect::<Vec<_>>() {
            self.decide(id);
        }
    }

    /// Pauses that are over.
    pub(super) fn wake_paused(&mut self, now: Now) {
        self.wake_paused_until(now.monotonic_ms);
    }

    fn wake_paused_until(&mut self, until_ms: u64) {
        let over: Vec<RequestId> =
            self.requests.paused.iter().take_while(|(until, _)| *until <= until_ms).map(|(_, id)| *id).collect();
        for id in over {
            self.requests.turn(id, State::Waiting);
            self.decide(id);
        }
    }

    /// Runs what waits for a key that was just resolved.
    pub(super) fn wake(&mut self, place: &Place<S::Key>) {
        let ids: Vec<RequestId> = self.requests.waiting.get(place).into_iter().flatten().copied().collect();
        for id in ids {
            self.decide(id);
        }
    }

    fn decide(&mut self, id: RequestId) {
        let Some(pending) = self.requests.pending.get(&id) else { return };
        let onward = self.mistakes.make(Mistake::ForwardForEver);
        match (self.store.standing(&pending.place), pending.origin) {
            (Standing::Authority, _) => {
                self.requests.turn(id, State::Running);
                self.outputs.push(Output::Run(id));
            }
            (Standing::Unresolved, _) => {
                let place = pending.place.clone();
                self.touch(&place);
            }
            (Standing::Other(_) | Standing::Nobody, Origin::Peer) if !onward => {
                self.requests.remove(id);
                self.outputs.push(Output::Moved(id));
            }
            (Standing::Other(to), _) => {
                self.requests.turn(id, State::Forwarded { to: to.clone(), under: self.snapshot.digest() });
                self.outputs.push(Output::Forward { id, to });
            }
            (Standing::Gaining | Standing::Nobody, _) => {}
        }
    }
}
