//! Requests to other members that are under way, and what becomes of their answers. Under one view every request may be
//! repeated; at a view change all are forgotten, so that no answer is ever used across views (rule 3).

use std::collections::{BTreeMap, BTreeSet};

use super::copies::Copies;
use super::member::MemberId;
use super::message::{Answer, CallId, Counted, Request, Stamp};
use super::mistake::Mistake;
use super::shard::Place;
use super::{Output, Replica};
use crate::cache::key::AccountId;
use crate::cache::version::Now;

/// Milliseconds after which a request that was not answered is repeated.
const CALL_TIMEOUT_MS: u64 = 400;

/// As above, for what is answered with entries: these may take their time on a slow link, and asked for again they take more.
const BULK_TIMEOUT_MS: u64 = 10_000;

/// Milliseconds for which the answer to a ping, with whom the other cannot reach, is waited for.
const PING_TIMEOUT_MS: u64 = 1000;

/// Milliseconds between two requests to a member that refused or did not get on.
const CALL_PAUSE_MS: u64 = 50;

/// What is under way. One claim, one pull and some fetches per member, and pings.
#[derive(Debug)]
pub(super) struct Calls<K> {
    next: CallId,
    under_way: BTreeMap<CallId, Call<K>>,
    /// When each is given up.
    due: BTreeSet<(u64, CallId)>,
    /// Pings belong to no view. The oldest first, as their names grow.
    pings: BTreeMap<CallId, (MemberId, u64)>,
    not_before_ms: BTreeMap<MemberId, u64>,
}

#[derive(Debug)]
struct Call<K> {
    to: MemberId,
    what: What<K>,
    due_ms: u64,
    /// It brought what the other lacked of my view.
    told: bool,
}

/// What a request was for.
#[derive(Debug)]
pub(super) enum What<K> {
    Claim,
    Fetch(Vec<Place<K>>),
    Pull,
    Done,
    /// On behalf of the asks up to one.
    Lease {
        account: AccountId,
        through: u64,
    },
    Count {
        account: AccountId,
        number: u64,
    },
    Nudge,
}

impl<K> Default for Calls<K> {
    fn default() -> Self {
        Self {
            next: 1,
            under_way: BTreeMap::new(),
            due: BTreeSet::new(),
            pings: BTreeMap::new(),
            not_before_ms: BTreeMap::new(),
        }
    }
}

impl<K> Calls<K> {
    /// Rule 3: whatever is under way is void.
    pub(super) fn void(&mut self) {
        self.under_way.clear();
        self.due.clear();
        self.not_before_ms.clear();
    }

    pub(super) fn may_call(&self, id: &MemberId, now: Now) -> bool {
        self.not_before_ms.get(id).is_none_or(|until| *until <= now.monotonic_ms)
    }

    fn next(&mut self) -> CallId {
        self.next += 1;
        self.next
    }

    fn take(&mut self, id: CallId) -> Option<Call<K>> {
        let call = self.under_way.remove(&id)?;
        self.due.remove(&(call.due_ms, id));
        Some(call)
    }

    fn overdue(&self, now: Now) -> Vec<CallId> {
        self.due.iter().take_while(|(due, _)| *due <= now.monotonic_ms).map(|(_, id)| *id).collect()
    }
}

impl<S: Copies> Replica<S> {
    pub(super) fn call(&mut self, to: &MemberId, request: Request<S::Key>, what: What<S::Key>, now: Now) {
        let id = self.calls.next();
        let timeout_ms = match what {
            What::Fetch(_) | What::Pull => BULK_TIMEOUT_MS,
            _ => CALL_TIMEOUT_MS,
        };
        let due_ms = now.monotonic_ms + timeout_ms;
        self.calls.due.insert((due_ms, id));
        let stamp = self.stamp(to);
        self.calls.under_way.insert(id, Call { to: to.clone(), what, due_ms, told: stamp.view.is_some() });
        self.outputs.push(Output::Call { id, stamp, request });
    }

    pub(super) fn ping(&mut self, to: &MemberId, now: Now) {
        let id = self.calls.next();
        self.calls.pings.insert(id, (to.clone(), now.monotonic_ms));
        let mut stamp = self.stamp(to);
        if self.leaves_it_to_the_source(to, now) {
            stamp.view = None;
        }
        self.outputs.push(Output::Call { id, stamp, request: Request::Ping });
    }

    /// An answer came. One to a request of an earlier view, or to one that was given up, does nothing but tell its view.
    pub fn answer(&mut self, id: CallId, stamp: &Stamp, answer: Answer<S::Key, S::Value>, now: Now) {
        let before = self.snapshot.digest();
        if self.accept(stamp, now).is_err() {
            return;
        }
        if let (Some(_), Answer::Pong { unreachable }) = (self.calls.pings.remove(&id), &answer) {
            self.detector.reported(&stamp.from, unreachable);
        }
        let Some(call) = self.calls.take(id) else { return };
        match answer {
            Answer::Cleared { has_copies } => self.cleared(&call.to, has_copies),
            Answer::Copies(copies) => {
                let What::Fetch(places) = call.what else { return };
                self.fetched(&call.to, places, copies);
            }
            Answer::Page { items, last } => self.page(&call.to, items, last),
            Answer::DoneOk => self.done(&call.to),
            Answer::Leased(reply) => {
                if let What::Lease { account, through } = &call.what {
                    self.leased(account, *through, reply, now);
                }
            }
            Answer::Counted(counted) => {
                if let What::Count { account, number } = &call.what {
                    self.counted(&call.to, account, *number, counted, now);
                }
            }
            Answer::Pong { .. } | Answer::Noted | Answer::Written(_) => {}
            Answer::Stale => {
                // My view did not change, so the other is behind: the next message brings mine. If one did already, wait.
                let unchanged = before == self.snapshot.digest();
                if unchanged && call.told {
                    self.told.was_not_enough(&call.to, &self.snapshot);
                    self.pause(&call.to, now);
                } else if unchanged {
                    self.told.is_behind(&call.to, &self.snapshot);
                }
                self.again(call);
            }
        }
        self.kick(now);
    }

    /// The connection for a request was refused, or it was turned down by another process at this address (rule 18).
    pub fn refused(&mut self, id: CallId, now: Now) {
        if let Some((to, _)) = self.calls.pings.remove(&id) {
            self.detector.refused(&to);
        }
        let Some(call) = self.calls.take(id) else { return };
        self.detector.refused(&call.to);
        // Rule 5: nothing has ever listened there. Rule 13: a leaver, who gains nothing, need
        // not be cleared by another that has ended, and who has ended need not know that I left.
        let both_leave = self.exit.is_leaving() && self.snapshot.view().is_leaving(&call.to);
        let nobody = call.to.boot == 0 || both_leave || self.exit.has_left();
        match &call.what {
            What::Claim if nobody => self.cleared(&call.to, false),
            What::Count { account, number } if call.to.boot == 0 => {
                let nothing = Counted { settled: true, closed: true, ..Counted::default() };
                self.counted(&call.to, account, *number, nothing, now);
            }
            _ => {
                self.pause(&call.to, now);
                self.again(call);
            }
        }
        self.kick(now);
    }

    /// A connection to a member was refused to somebody else in this process: the detector need not wait for its ping.
    pub fn refused_by(&mut self, id: &MemberId) {
        self.detector.refused(id);
    }

    /// The answer to a request will not come: its connection broke. As a timeout, at once.
    pub fn lost(&mut self, id: CallId, now: Now) {
        self.calls.pings.remove(&id);
        if let Some(call) = self.calls.take(id) {
            self.pause(&call.to, now);
            self.give_up(call, now);
            self.kick(now);
        }
    }

    /// Repeats what has waited for too long. Never "none", never "cleared" (rule 5).
    pub(super) fn time_out(&mut self, now: Now) {
        while let Some(oldest) = self.calls.pings.first_entry() {
            if oldest.get().1 + PING_TIMEOUT_MS > now.monotonic_ms {
                break;
            }
            oldest.remove();
        }
        for id in self.calls.overdue(now) {
            if let Some(call) = self.calls.take(id) {
                self.give_up(call, now);
            }
        }
    }

    fn give_up(&mut self, call: Call<S::Key>, now: Now) {
        match (&call.what, self.mistakes.make(Mistake::TimeoutMeansNone)) {
            (What::Fetch(places), true) => {
                let none = places.iter().map(|place| (place.clone(), None)).collect();
                self.fetched(&call.to, Vec::new(), none);
            }
            (What::Count { account, number }, _) if self.mistakes.make(Mistake::UncountedIsNothing) => {
                let nothing = Counted { settled: true, closed: true, ..Counted::default() };
                self.counted(&call.to, account, *number, nothing, now);
            }
            _ => self.again(call),
        }
    }

    fn pause(&mut self, id: &MemberId, now: Now) {
        self.calls.not_before_ms.insert(id.clone(), now.monotonic_ms + CALL_PAUSE_MS);
    }

    /// So that `kick` asks once more.
    fn again(&mut self, call: Call<S::Key>) {
        match &call.what {
            What::Lease { account, .. } => return self.lease_again(account),
            What::Count { account, number } => return self.count_again(&call.to, account, *number),
            _ => {}
        }
        let Some(open) = &mut self.open else { return };
        match call.what {
            What::Claim if open.waiting.contains(&call.to) => _ = open.unclaimed.insert(call.to),
            What::Claim | What::Lease { .. } | What::Count { .. } | What::Nudge => {}
            What::Fetch(places) => open.fetch_ended(&call.to, places),
            What::Pull | What::Done => {
                if let Some(source) = open.sources.get_mut(&call.to) {
                    source.busy = false;
                }
            }
        }
    }
}
