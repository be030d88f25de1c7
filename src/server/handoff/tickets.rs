//! Operations that wait, as the thread knows them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::ticket::{Slot, Verdict};
use crate::cache::store::Name;
use crate::ownership::shard::Place;
use crate::ownership::{Origin, RequestId};

/// Every ticket that has not finished. As many as there may be tickets.
#[derive(Default)]
pub(super) struct Tickets {
    tickets: HashMap<RequestId, Waiting>,
    /// Keys that were resolved as missing while some who waited for them were told to run and have not finished:
    /// until they have, the shard must know that the key is resolved. A miss is not remembered beyond that (rule 7).
    misses: BTreeSet<Place<Name>>,
    /// How many were told to run, by place.
    running: BTreeMap<Place<Name>, usize>,
}

struct Waiting {
    place: Place<Name>,
    origin: Origin,
    slot: Arc<Slot>,
    runs: bool,
}

impl Tickets {
    pub(super) fn insert(&mut self, id: RequestId, place: Place<Name>, origin: Origin, slot: Arc<Slot>) {
        self.tickets.insert(id, Waiting { place, origin, slot, runs: false });
    }

    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// All of them, for a state machine that starts.
    pub(super) fn all(&self) -> Vec<(RequestId, Place<Name>, Origin)> {
        self.tickets.iter().map(|(id, waiting)| (*id, waiting.place.clone(), waiting.origin)).collect()
    }

    pub(super) fn tell(&mut self, id: RequestId, verdict: Verdict) {
        let Some(waiting) = self.tickets.get_mut(&id) else { return };
        if verdict == Verdict::Run && !waiting.runs {
            waiting.runs = true;
            *self.running.entry(waiting.place.clone()).or_default() += 1;
        }
        waiting.slot.give(verdict);
    }

    /// All are told the same, and forgotten.
    pub(super) fn tell_all(&mut self, verdict: &Verdict) {
        for waiting in self.tickets.drain().map(|(_, waiting)| waiting) {
            waiting.slot.give(verdict.clone());
        }
        self.misses.clear();
        self.running.clear();
    }

    /// A key was resolved as missing. Whether that may be forgotten at once.
    pub(super) fn may_forget(&mut self, place: &Place<Name>) -> bool {
        let runs = self.running.contains_key(place);
        if runs {
            self.misses.insert(place.clone());
        }
        !runs
    }

    /// The ticket is gone. Answers a miss that may be forgotten now.
    pub(super) fn finished(&mut self, id: RequestId) -> Option<Place<Name>> {
        let waiting = self.tickets.remove(&id).filter(|waiting| waiting.runs)?;
        let left = self.running.get_mut(&waiting.place)?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        self.running.remove(&waiting.place);
        self.misses.remove(&waiting.place).then_some(waiting.place)
    }
}
