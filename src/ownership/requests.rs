//! Operations that cannot run at once (rule 6): they wait for a key to become this replica's, or are forwarded, once.
//!
//! Deadlines and answers are the adapter's: it says when a request ended. How many may wait is bounded by how many calls it
//! takes at all.

use std::collections::BTreeMap;

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

/// The requests that wait here or were forwarded from here.
#[derive(Debug)]
pub(super) struct Requests<K> {
    pending: BTreeMap<RequestId, Pending<K>>,
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
        Self { pending: BTreeMap::new() }
    }
}

impl<K> Requests<K> {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }
}

impl<S: Copies> Replica<S> {
    /// A request that its shard would not run: decides what becomes of it, now or later, by outputs.
    pub fn submit(&mut self, id: RequestId, place: Place<S::Key>, origin: Origin, now: Now) {
        self.requests.pending.insert(id, Pending { place, origin, state: State::Waiting });
        self.decide(id);
        self.kick(now);
    }

    /// The request ended, in whatever way: answered, or its deadline passed.
    pub fn finished(&mut self, id: RequestId, now: Now) {
        self.requests.pending.remove(&id);
        self.kick(now);
    }

    /// A forward came back as `Moved` or refused: surely not applied. The answer's stamp was accepted before.
    pub fn turned_away(&mut self, id: RequestId, now: Now) {
        let digest = self.snapshot.digest();
        let Some(pending) = self.requests.pending.get_mut(&id) else { return };
        let State::Forwarded { to, under } = &pending.state else { return };
        if *under == digest {
            // It may not have my view: the next message brings it.
            self.behind.insert(to.uid.clone());
            pending.state = State::Paused { until_ms: now.monotonic_ms + RETRY_PAUSE_MS };
        } else {
            pending.state = State::Waiting;
            self.decide(id);
        }
        self.kick(now);
    }

    /// Rule 3: whatever waits is looked at again. Forwards to a lost member end as unknown (rule 15).
    pub(super) fn review(&mut self, lost: &[MemberId]) {
        let ids: Vec<RequestId> = self.requests.pending.keys().copied().collect();
        for id in ids {
            let Some(pending) = self.requests.pending.get_mut(&id) else { continue };
            match &pending.state {
                State::Forwarded { to, .. } if lost.contains(to) => {
                    self.requests.pending.remove(&id);
                    self.outputs.push(Output::Unknown(id));
                }
                State::Forwarded { .. } => {}
                State::Waiting | State::Paused { .. } => {
                    pending.state = State::Waiting;
                    self.decide(id);
                }
            }
        }
    }

    /// Pauses that are over.
    pub(super) fn wake_paused(&mut self, now: Now) {
        let over = |pending: &Pending<S::Key>| matches!(pending.state, State::Paused { until_ms } if until_ms <= now.monotonic_ms);
        let ids: Vec<RequestId> = self.requests.pending.iter().filter(|(_, p)| over(p)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(pending) = self.requests.pending.get_mut(&id) {
                pending.state = State::Waiting;
            }
            self.decide(id);
        }
    }

    /// Runs what waits for a key that was just resolved.
    pub(super) fn wake(&mut self, place: &Place<S::Key>) {
        let waits = |pending: &Pending<S::Key>| pending.state == State::Waiting && pending.place == *place;
        let ids: Vec<RequestId> = self.requests.pending.iter().filter(|(_, p)| waits(p)).map(|(id, _)| *id).collect();
        for id in ids {
            self.decide(id);
        }
    }

    fn decide(&mut self, id: RequestId) {
        let Some(pending) = self.requests.pending.get_mut(&id) else { return };
        let onward = self.mistakes.make(Mistake::ForwardForEver);
        match (self.store.standing(&pending.place), pending.origin) {
            (Standing::Authority, _) => {
                self.requests.pending.remove(&id);
                self.outputs.push(Output::Run(id));
            }
            (Standing::Unresolved, _) => {
                let place = pending.place.clone();
                self.touch(&place);
            }
            (Standing::Other(_) | Standing::Nobody, Origin::Peer) if !onward => {
                self.requests.pending.remove(&id);
                self.outputs.push(Output::Moved(id));
            }
            (Standing::Other(to), _) => {
                pending.state = State::Forwarded { to: to.clone(), under: self.snapshot.digest() };
                self.outputs.push(Output::Forward { id, to });
            }
            (Standing::Gaining | Standing::Nobody, _) => {}
        }
    }
}
