//! Operations and leases that wait, as the thread knows them.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::ticket::{Slot, Verdict};
use crate::cache::store::Place;
use crate::ownership::{LeaseId, LeaseVerdict, Origin, RequestId};

/// Every ticket that has not finished, and every ask for a lease. As many as there may be tickets.
#[derive(Default)]
pub(super) struct Tickets {
    tickets: HashMap<RequestId, Waiting>,
    leases: HashMap<LeaseId, oneshot::Sender<LeaseVerdict>>,
}

struct Waiting {
    place: Place,
    origin: Origin,
    slot: Arc<Slot>,
}

impl Tickets {
    /// Answers whether somebody still waits for it: what ended before the thread heard of it is not taken in.
    #[must_use]
    pub(super) fn insert(&mut self, id: RequestId, place: Place, origin: Origin, slot: Arc<Slot>) -> bool {
        let waits = !slot.is_over();
        if waits {
            self.tickets.insert(id, Waiting { place, origin, slot });
        }
        waits
    }

    pub(super) fn get(&self, id: RequestId) -> Option<(Place, Origin)> {
        self.tickets.get(&id).map(|waiting| (waiting.place.clone(), waiting.origin))
    }

    /// All of them, for a state machine that starts.
    pub(super) fn all(&self) -> Vec<(RequestId, Place, Origin)> {
        self.tickets.iter().map(|(id, waiting)| (*id, waiting.place.clone(), waiting.origin)).collect()
    }

    pub(super) fn tell(&self, id: RequestId, verdict: Verdict) {
        if let Some(waiting) = self.tickets.get(&id) {
            waiting.slot.give(verdict);
        }
    }

    pub(super) fn remove(&mut self, id: RequestId) {
        self.tickets.remove(&id);
    }

    /// As [`Self::insert`].
    #[must_use]
    pub(super) fn insert_lease(&mut self, id: LeaseId, reply: oneshot::Sender<LeaseVerdict>) -> bool {
        let waits = !reply.is_closed();
        if waits {
            self.leases.insert(id, reply);
        }
        waits
    }

    pub(super) fn tell_lease(&mut self, id: LeaseId, verdict: LeaseVerdict) {
        if let Some(reply) = self.leases.remove(&id) {
            // Who asked may have given up.
            let _ = reply.send(verdict);
        }
    }

    pub(super) fn remove_lease(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty() && self.leases.is_empty()
    }

    /// This process starts again: whoever waits for it is told so.
    pub(super) fn fence(&mut self) {
        for waiting in self.tickets.drain().map(|(_, waiting)| waiting) {
            waiting.slot.give(Verdict::Fenced);
        }
        self.leases.clear();
    }
}
