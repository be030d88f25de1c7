//! Requests to other members that are under way, and what becomes of their answers. Under one view every request may be
//! repeated; at a view change all are forgotten, so that no answer is ever used across views (rule 3).

use std::collections::BTreeMap;

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

/// Milliseconds between two requests to a member that refused or did not get on.
const CALL_PAUSE_MS: u64 = 50;

/// What is under way. One claim, one pull and some fetches per member, and one ping.
#[derive(Debug)]
pub(super) struct Calls<K> {
    next: CallId,
    under_way: BTreeMap<CallId, Call<K>>,
    /// Pings belong to no view.
    pings: BTreeMap<CallId, (MemberId, u64)>,
    not_before_ms: BTreeMap<MemberId, u64>,
}

#[derive(Debug)]
struct Call<K> {
    to: MemberId,
    what: What<K>,
    sent_ms: u64,
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
        Self { next: 1, under_way: BTreeMap::new(), pings: BTreeMap::new(), not_before_ms: BTreeMap::new() }
    }
}

impl<K> Calls<K> {
    /// Rule 3: whatever is under way is void.
    pub(super) fn void(&mut self) {
        self.under_way.clear();
        self.not_before_ms.clear();
    }

    pub(super) fn may_call(&self, id: &MemberId, now: Now) -> bool {
        self.not_before_ms.get(id).is_none_or(|until| *until <= now.monotonic_ms)
    }

    fn next(&mut self) -> CallId {
        self.next += 1;
        self.next
    }
}

impl<S: Copies> Replica<S> {
    pub(super) fn call(&mut self, to: &MemberId, request: Request<S::Key>, what: What<S::Key>, now: Now) {
        let id = self.calls.next();
        self.calls.under_way.insert(id, Call { to: to.clone(), what, sent_ms: now.monotonic_ms });
        let stamp = self.stamp(to);
        self.outputs.push(Output::Call { id, stamp, request });
    }

    pub(super) fn ping(&mut self, to: &MemberId, now: Now) {
        let id = self.calls.next();
        self.calls.pings.insert(id, (to.clone(), now.monotonic_ms));
        let stamp = self.stamp(to);
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
        let Some(call) = self.calls.under_way.remove(&id) else { return };
        match answer {
            Answer::Cleared { has_copies } => self.cleared(&call.to, has_copies),
            Answer::Copies(copies) => self.copies(&call.to, copies),
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
            Answer::Pong { .. } | Answer::Noted => {}
            Answer::Stale => {
                // My view did not change, so the other is behind: the next message brings mine. If one did already, wait.
                let told = !self.behind.insert(call.to.uid.clone());
                if told && before == self.snapshot.digest() {
                    self.pause(&call.to, now);
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
        let Some(call) = self.calls.under_way.remove(&id) else { return };
        self.detector.refused(&call.to);
        // Rule 5: nothing has ever listened there. Rule 13: a leaver, who gains nothing, need
        // not be cleared by another that has ended, and who has ended need not know that I left.
        let both_leave = self.exit.is_leaving() && self.snapshot.view().is_leaving(&call.to);
        let nobody = call.to.boot == 0 || both_leave || self.exit.has_left();
        match &call.what {
            What::Claim if nobody => self.cleared(&call.to, false),
            What::Count { account, number } if call.to.boot == 0 => {
                let nothing = Counted { settled: true, ..Counted::default() };
                self.counted(&call.to, account, *number, nothing, now);
            }
            _ => {
                self.pause(&call.to, now);
                self.again(call);
            }
        }
        self.kick(now);
    }

    /// Repeats what has waited for too long. Never "none", never "cleared" (rule 5).
    pub(super) fn time_out(&mut self, now: Now) {
        let overdue = |sent_ms: u64| sent_ms + CALL_TIMEOUT_MS <= now.monotonic_ms;
        self.calls.pings.retain(|_, (_, sent_ms)| !overdue(*sent_ms));
        let ids: Vec<CallId> =
            self.calls.under_way.iter().filter(|(_, call)| overdue(call.sent_ms)).map(|(id, _)| *id).collect();
        for call in ids.into_iter().filter_map(|id| self.calls.under_way.remove(&id)).collect::<Vec<_>>() {
            match (&call.what, self.mistakes.make(Mistake::TimeoutMeansNone)) {
                (What::Fetch(places), true) => {
                    let none = places.iter().map(|place| (place.clone(), None)).collect();
                    self.copies(&call.to, none);
                }
                (What::Count { account, number }, _) if self.mistakes.make(Mistake::UncountedIsNothing) => {
                    let nothing = Counted { settled: true, ..Counted::default() };
                    self.counted(&call.to, account, *number, nothing, now);
                }
                _ => self.again(call),
            }
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
            What::Lease { .. } | What::Count { .. } | What::Nudge => {}
            What::Claim => _ = open.claimed.remove(&call.to),
            What::Fetch(places) => open.to_ask.entry(call.to).or_default().extend(places),
            What::Pull | What::Done => {
                if let Some(source) = open.sources.get_mut(&call.to) {
                    source.busy = false;
                }
            }
        }
    }
}
