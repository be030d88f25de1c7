//! Quotas of the whole cluster: an account's *home* leases room to the replicas that create its keys.
//!
//! The home is the owner, by the view, of the route `<account id>/`. It grants what fits under an upper bound of what exists,
//! and refuses only what an exact count of all members leaves no room for ([`ledger`]). Leases, asks and counts belong to one
//! view: a view change voids them, and what every replica holds then is the new home's first bound. `docs/ownership.md` argues
//! why nothing is exceeded and nothing refused while there is room.
//! Not here: the lease itself, which the store takes from under an account's lock (`cache::quota`), and the limits, which
//! travel with every ask.

mod asks;
mod home;
mod ledger;

use asks::Asks;
use home::Home;
use ledger::Counts;

use super::calls::What;
use super::copies::Copies;
use super::member::MemberId;
use super::message::{CountAsk, Counted, LeaseReply, LeaseRequest};
use super::mistake::Mistake;
use super::{Answer, Output, Replica, Request};
use crate::cache::key::AccountId;
use crate::cache::quota::{Amount, Counting, Holding};
use crate::cache::route;
use crate::cache::version::Now;

/// Steps of one round of [`Replica::lease_on`]: a question, its rounds and their answer are fewer, when this replica is its own
/// home and alone. What is left goes on with the next input.
const MAX_STEPS: usize = 16;

/// The adapter's name for an ask. Never used twice by one process.
pub type LeaseId = u64;

/// A store said [`NeedsLease`](crate::cache::store::StoreError::NeedsLease): what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAsk {
    pub account: AccountId,
    /// What is missing: keys, and bytes of keys and values.
    pub keys: u64,
    pub bytes: u64,
    /// The account's limits; none: unlimited.
    pub max_keys: Option<u64>,
    pub max_bytes: Option<u64>,
    /// Only asks whether it would fit.
    pub dry_run: bool,
}

/// How an ask ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseVerdict {
    /// Try the operation again: there is room here now, or the view changed and the key may be another's. It may have to ask
    /// once more. Of a dry run: it would fit.
    Granted,
    OverKeys {
        limit: u64,
    },
    OverBytes {
        limit: u64,
    },
}

/// What a replica knows of quotas.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    asks: Asks,
    home: Home,
    /// Under this view nothing moves here any more. It stays so until the view changes.
    settled: bool,
}

impl Quotas {
    pub(super) fn clear(&mut self) {
        self.asks.clear();
        self.home.clear();
    }
}

impl<S: Copies> Replica<S> {
    /// An operation has no room left in its account's lease. Ends in [`Output::Lease`], now or later; while the answer hangs
    /// on what is in flight, not at all: the caller's deadline ends it ([`Self::lease_over`]). How many may wait is bounded by
    /// how many calls the adapter takes at all.
    pub fn lease(&mut self, id: LeaseId, ask: LeaseAsk, now: Now) {
        self.quotas.asks.push(id, ask);
        self.kick(now);
    }

    /// The caller waits no longer.
    pub fn lease_over(&mut self, id: LeaseId) {
        self.quotas.asks.remove(id);
    }

    /// A new view: every lease is void, and so is all that was asked and counted.
    pub(super) fn void_leases(&mut self) {
        self.quotas.settled = false;
        self.quotas.home.clear();
        if !self.mistakes.make(Mistake::LeaseOverViews) {
            for tenant in self.store.tenants() {
                tenant.void_lease();
            }
        }
        for ended in self.quotas.asks.void() {
            self.outputs.push(Output::Lease { id: ended.id, verdict: ended.verdict });
        }
    }

    /// Everything about quotas that can be done at once.
    pub(super) fn lease_on(&mut self, now: Now) {
        for _ in 0..MAX_STEPS {
            let asked = self.ask_homes(now);
            let counted = self.count_on(now);
            if !asked && !counted {
                return;
            }
        }
    }

    /// Asks the homes of the accounts that somebody waits for. Answers whether anything happened.
    fn ask_homes(&mut self, now: Now) -> bool {
        let mut any = false;
        for account in self.quotas.asks.due(now.monotonic_ms) {
            let Some(home) = self.snapshot.owner(route::home_hash(&account)).cloned() else { continue };
            let is_mine = home == self.me;
            if !is_mine && !self.calls.may_call(&home, now) {
                continue;
            }
            let Some((request, through)) = self.quotas.asks.question(&account) else { continue };
            any = true;
            if is_mine {
                let me = self.me.clone();
                let reply = self.serve_lease(&me, &request, now);
                self.leased(&account, through, reply, now);
            } else {
                self.call(&home, Request::Lease(request), What::Lease { account, through }, now);
            }
        }
        any
    }

    /// The home's answer.
    pub(super) fn leased(&mut self, account: &AccountId, through: u64, reply: LeaseReply, now: Now) {
        let tenant = self.store.tenant(account);
        if let (LeaseReply::Granted { round, keys, bytes }, Some(tenant)) = (reply, &tenant) {
            let round = if self.mistakes.make(Mistake::OvertakenGrantCounts) { u64::MAX } else { round };
            if !tenant.grant(Amount { keys, bytes }, round) {
                self.quotas.asks.again(account);
                return;
            }
        }
        for ended in self.quotas.asks.answered(account, through, reply, now.monotonic_ms, self.mistakes) {
            if let (Some(tenant), LeaseVerdict::Granted) = (&tenant, ended.verdict) {
                tenant.promise(ended.need, now.monotonic_ms);
            }
            self.outputs.push(Output::Lease { id: ended.id, verdict: ended.verdict });
        }
    }

    /// The question was not answered.
    pub(super) fn lease_again(&mut self, account: &AccountId) {
        self.quotas.asks.again(account);
    }

    /// The home can say more now.
    pub(super) fn nudged(&mut self, account: &AccountId) {
        self.quotas.asks.nudge(account);
    }

    /// A replica asks this one, the account's home.
    pub(super) fn serve_lease(&mut self, from: &MemberId, request: &LeaseRequest, now: Now) -> LeaseReply {
        let members = self.snapshot.present().count();
        self.quotas.home.ask(from, request, members, now.monotonic_ms, self.mistakes)
    }

    /// The home counts.
    pub(super) fn serve_count(&mut self, ask: &CountAsk, now: Now) -> Counted {
        // What is not reclaimed yet is counted, so nobody may be refused for it: this member is not closed, and is asked again.
        let expired = !ask.close || self.store.expire();
        let reuse = self.mistakes.make(Mistake::UsedAgainWhileCounted);
        let how = Counting { round: ask.round, close: ask.close && !reuse, now_ms: now.monotonic_ms };
        let settled = self.nothing_moves();
        let Some(holding) = self.store.tenant(&ask.account).and_then(|tenant| tenant.count(how)) else {
            return Counted { settled, closed: ask.close, ..Counted::default() };
        };
        let Holding { used, bound_keys, bound_bytes, closed } = holding;
        let closed = (closed || (reuse && ask.close)) && expired;
        Counted { used_keys: used.keys, used_bytes: used.bytes, bound_keys, bound_bytes, settled, closed }
    }

    /// Every arc of mine is settled, and I hold no copy for anybody. Both stay so until the view changes (invariant I4).
    fn nothing_moves(&mut self) -> bool {
        if !self.quotas.settled && self.arcs.is_empty() {
            let mut others = self.snapshot.present().filter(|member| member.id != self.me);
            self.quotas.settled = others.all(|member| !self.store.has_copies(&member.id));
        }
        self.quotas.settled
    }

    /// Begins the rounds that are wanted, and asks whom they miss. Answers whether anything happened.
    fn count_on(&mut self, now: Now) -> bool {
        let mut any = false;
        for account in self.quotas.home.wanted() {
            any = true;
            self.begin_round(&account, now);
        }
        for account in self.quotas.home.counting() {
            let unasked = self.quotas.home.take_unasked(&account, |id| self.calls.may_call(id, now));
            let Some((ids, Counts { number, close })) = unasked else { continue };
            for id in ids {
                any = true;
                let ask = CountAsk { account: account.clone(), round: number, close };
                self.call(&id, Request::Count(ask), What::Count { account: account.clone(), number }, now);
            }
        }
        any
    }

    fn begin_round(&mut self, account: &AccountId, now: Now) {
        let members = self.snapshot.present().map(|member| member.id.clone()).chain([self.me.clone()]).collect();
        let Some(Counts { number, close }) = self.quotas.home.begin(account, members, self.mistakes) else { return };
        let counted = self.serve_count(&CountAsk { account: account.clone(), round: number, close }, now);
        let me = self.me.clone();
        self.counted(&me, account, number, counted, now);
    }

    /// A member's count.
    pub(super) fn counted(&mut self, from: &MemberId, account: &AccountId, number: u64, counted: Counted, now: Now) {
        let may_ask = self.quotas.home.counted(from, account, number, counted, now.monotonic_ms, self.mistakes);
        for id in may_ask {
            if id == self.me {
                self.quotas.asks.nudge(account);
            } else {
                self.call(&id, Request::AskAgain(account.clone()), What::Nudge, now);
            }
        }
    }

    /// A count was not answered.
    pub(super) fn count_again(&mut self, from: &MemberId, account: &AccountId, number: u64) {
        self.quotas.home.again(from, account, number);
    }

    /// Answers to what replicas ask about quotas.
    pub(super) fn serve_quota(
        &mut self,
        from: &MemberId,
        request: &Request<S::Key>,
        now: Now,
    ) -> Answer<S::Key, S::Value> {
        match request {
            Request::Lease(request) => Answer::Leased(self.serve_lease(from, request, now)),
            Request::Count(ask) => Answer::Counted(self.serve_count(ask, now)),
            Request::AskAgain(account) => {
                self.nudged(account);
                Answer::Noted
            }
            _ => Answer::Stale,
        }
    }
}

#[cfg(test)]
mod tests;
