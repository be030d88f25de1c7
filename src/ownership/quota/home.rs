//! The accounts that a replica is the home of, as far as somebody asked under this view.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::member::MemberId;
use super::super::message::{Counted, LeaseReply, LeaseRequest};
use super::super::mistake::Mistakes;
use super::ledger::{Counts, Ledger, Next};
use crate::cache::key::AccountId;

/// Accounts that a home knows something of at most, oldest dropped: of a dropped one all members are counted again.
const MAX_LEDGERS: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Home {
    /// The number of the last round that began. Never used twice by one process.
    rounds: u64,
    ledgers: BTreeMap<AccountId, Ledger>,
    /// Of `ledgers`, oldest first.
    order: VecDeque<AccountId>,
    /// Of `ledgers`: who wants a round, and who has one.
    wanted: BTreeSet<AccountId>,
    counting: BTreeSet<AccountId>,
}

impl Home {
    /// A new view, perhaps a new home. Rounds are numbered on.
    pub(super) fn clear(&mut self) {
        *self = Self { rounds: self.rounds, ..Self::default() };
    }

    pub(super) fn ask(
        &mut self,
        from: &MemberId,
        request: &LeaseRequest,
        members: usize,
        now_ms: u64,
        mistakes: Mistakes,
    ) -> LeaseReply {
        let account = &request.account;
        if !self.ledgers.contains_key(account) {
            self.make_room();
            self.ledgers.insert(account.clone(), Ledger::default());
            self.order.push_back(account.clone());
        }
        let Some(ledger) = self.ledgers.get_mut(account) else {
            return LeaseReply::Wait { before_round: self.rounds + 1 };
        };
        let reply = ledger.ask(from, request, members, self.rounds, now_ms, mistakes);
        if ledger.wants_round() {
            self.wanted.insert(account.clone());
        }
        reply
    }

    fn make_room(&mut self) {
        while self.order.len() >= MAX_LEDGERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ledgers.remove(&oldest);
            self.wanted.remove(&oldest);
            self.counting.remove(&oldest);
        }
    }

    pub(super) fn wanted(&mut self) -> BTreeSet<AccountId> {
        std::mem::take(&mut self.wanted)
    }

    /// Begins a round of all `members`.
    pub(super) fn begin(
        &mut self,
        account: &AccountId,
        members: BTreeSet<MemberId>,
        mistakes: Mistakes,
    ) -> Option<Counts> {
        let ledger = self.ledgers.get_mut(account)?;
        self.rounds += 1;
        self.counting.insert(account.clone());
        Some(ledger.begin(self.rounds, members, mistakes))
    }

    pub(super) fn counting(&self) -> Vec<AccountId> {
        self.counting.iter().cloned().collect()
    }

    /// Whom to ask now, and what.
    pub(super) fn take_unasked(
        &mut self,
        account: &AccountId,
        may_call: impl Fn(&MemberId) -> bool,
    ) -> Option<(Vec<MemberId>, Counts)> {
        self.ledgers.get_mut(account)?.take_unasked(may_call)
    }

    pub(super) fn again(&mut self, from: &MemberId, account: &AccountId, number: u64) {
        if let Some(ledger) = self.ledgers.get_mut(account) {
            ledger.again(from, number);
        }
    }

    pub(super) fn counted(
        &mut self,
        from: &MemberId,
        account: &AccountId,
        number: u64,
        counted: Counted,
        now_ms: u64,
        mistakes: Mistakes,
    ) -> Vec<MemberId> {
        let Some(ledger) = self.ledgers.get_mut(account) else { return Vec::new() };
        let next = ledger.counted(from, number, counted, now_ms, mistakes);
        if !ledger.is_counting() {
            self.counting.remove(account);
        }
        match next {
            Some(Next::Tell(ids)) => ids,
            Some(Next::Round) => {
                self.wanted.insert(account.clone());
                Vec::new()
            }
            None => Vec::new(),
        }
    }
}
