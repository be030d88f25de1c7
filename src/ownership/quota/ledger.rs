//! What the home of an account knows of it under one view, and what it says to whoever asks: a table of verdicts, without I/O.
//!
//! It knows an upper bound of what exists, and grants what fits under it. What does not fit is decided by *rounds* of counting:
//! all present members are asked, give back what they do not use, and say what they hold.
//! - While keys move, the sum of what was held when the view changed and was leased since is a bound, and no more: no refusal.
//! - Once all are settled, the sum of what they hold is one too, and much closer.
//! - A round that began when all were settled and *closed* (nothing that comes free is used again) is exact: nobody can have
//!   created anything while it went round, so all that was counted existed when it began. Then the home may refuse whoever
//!   asked before that.

use std::collections::{BTreeMap, BTreeSet};

use super::super::member::MemberId;
use super::super::message::{Counted, LeaseReply, LeaseRequest};
use super::super::mistake::{Mistake, Mistakes};
use crate::cache::quota::Amount;

/// Keys and bytes that are granted at most beyond what is asked for, so that not every create asks.
const MAX_EXTRA_KEYS: u64 = 64;
const MAX_EXTRA_BYTES: u64 = 1024 * 1024;

/// Of the room that is left, each member gets at most this part beyond what it asked for: none takes it all.
const EXTRA_PART: u64 = 4;

/// Milliseconds between two rounds while the answer hangs on what is in flight.
pub(super) const ROUND_PAUSE_MS: u64 = 20;

/// One account, at its home, under one view.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What exists is at most this; none: not counted yet.
    bound: Option<Amount>,
    /// Nothing moves under this view any more.
    settled: bool,
    /// Nobody can create anything without asking.
    closed: bool,
    round: Option<Round>,
    exact: Option<Exact>,
    /// Who waits, and for what.
    askers: BTreeMap<MemberId, LeaseRequest>,
    not_before_ms: u64,
    wants_round: bool,
}

/// All are being asked.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what was so when it began, and what all have said so far")]
struct Round {
    number: u64,
    close: bool,
    /// All were settled and closed before it began.
    exact: bool,
    missing: BTreeSet<MemberId>,
    unasked: BTreeSet<MemberId>,
    settled: bool,
    closed: bool,
    used: Amount,
    /// Keys and bytes.
    bound: (i64, i64),
}

/// When this round began, so much was used.
#[derive(Clone, Copy, Debug)]
struct Exact {
    round: u64,
    used: Amount,
}

/// What a round is to ask of everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub number: u64,
    pub close: bool,
}

/// A round is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// These may ask again.
    Tell(Vec<MemberId>),
    /// Once more: nobody who waits would fit, and nobody may be refused yet.
    Round,
}

impl Ledger {
    /// What to say to an ask. `rounds`: the number of the last round that began, of whatever account.
    pub(super) fn ask(
        &mut self,
        from: &MemberId,
        request: &LeaseRequest,
        members: usize,
        rounds: u64,
        now_ms: u64,
        mistakes: Mistakes,
    ) -> LeaseReply {
        if let Some(bound) = self.bound.filter(|_| self.round.is_none()) {
            if fits(request, bound) {
                return self.grant(request, bound, members, rounds);
            }
            let asked_before = |exact: &Exact| {
                request.before_round.is_some_and(|before| exact.round >= before)
                    || mistakes.make(Mistake::RefuseFromOldRound)
            };
            if let Some(Exact { round, used }) =
                self.exact.filter(asked_before).filter(|exact| !fits(request, exact.used))
            {
                return LeaseReply::Full { round, keys: used.keys, bytes: used.bytes };
            }
        }
        self.wants_round |= self.round.is_none() && self.not_before_ms <= now_ms;
        self.askers.insert(from.clone(), request.clone());
        LeaseReply::Wait { before_round: rounds + 1 }
    }

    fn grant(&mut self, request: &LeaseRequest, bound: Amount, members: usize, rounds: u64) -> LeaseReply {
        if request.dry_run {
            return LeaseReply::Fits;
        }
        let members = u64::try_from(members.max(1)).unwrap_or(u64::MAX);
        let part = |need: u64, more: u64, max: Option<u64>, bound: u64, at_most: u64| {
            let Some(max) = max else { return 0 };
            let room = max.saturating_sub(bound).saturating_sub(need);
            need + more.saturating_add(at_most.min(room / (EXTRA_PART * members))).min(room)
        };
        let keys = part(request.keys, request.more_keys, request.max_keys, bound.keys, MAX_EXTRA_KEYS);
        let bytes = part(request.bytes, request.more_bytes, request.max_bytes, bound.bytes, MAX_EXTRA_BYTES);
        self.bound = Some(Amount { keys: bound.keys + keys, bytes: bound.bytes + bytes });
        self.closed = false;
        LeaseReply::Granted { round: rounds, keys, bytes }
    }

    /// Is a round to begin?
    pub(super) fn wants_round(&self) -> bool {
        self.wants_round && self.round.is_none()
    }

    /// A round begins, of all present members.
    pub(super) fn begin(&mut self, number: u64, members: BTreeSet<MemberId>, mistakes: Mistakes) -> Counts {
        let (close, hasty) = (self.settled, mistakes.make(Mistake::OneRoundOnly));
        self.wants_round = false;
        self.round = Some(Round {
            number,
            close,
            exact: close && (self.closed || hasty),
            unasked: members.clone(),
            missing: members,
            settled: true,
            closed: true,
            used: Amount::default(),
            bound: (0, 0),
        });
        Counts { number, close }
    }

    /// What is to be asked of whom next.
    pub(super) fn take_unasked(&mut self, may_call: impl Fn(&MemberId) -> bool) -> Option<(Vec<MemberId>, Counts)> {
        let round = self.round.as_mut()?;
        let ids: Vec<MemberId> = round.unasked.iter().filter(|id| may_call(id)).cloned().collect();
        for id in &ids {
            round.unasked.remove(id);
        }
        Some((ids, Counts { number: round.number, close: round.close }))
    }

    /// A count got no answer: it is asked again.
    pub(super) fn again(&mut self, from: &MemberId, number: u64) {
        if let Some(round) = self.round.as_mut().filter(|round| round.number == number && round.missing.contains(from))
        {
            round.unasked.insert(from.clone());
        }
    }

    /// What a member has. When it was the last: what follows.
    pub(super) fn counted(
        &mut self,
        from: &MemberId,
        number: u64,
        counted: Counted,
        now_ms: u64,
        mistakes: Mistakes,
    ) -> Option<Next> {
        let round = self.round.as_mut().filter(|round| round.number == number)?;
        if !round.missing.remove(from) {
            return None;
        }
        round.unasked.remove(from);
        round.settled &= counted.settled || mistakes.make(Mistake::CountUnsettled);
        round.closed &= counted.closed;
        round.used.keys = round.used.keys.saturating_add(counted.used_keys);
        round.used.bytes = round.used.bytes.saturating_add(counted.used_bytes);
        round.bound.0 = round.bound.0.saturating_add(counted.bound_keys);
        round.bound.1 = round.bound.1.saturating_add(counted.bound_bytes);
        let early = mistakes.make(Mistake::GrantBeforeCounted);
        if round.missing.is_empty() || early { self.end_round(now_ms, mistakes) } else { None }
    }

    fn end_round(&mut self, now_ms: u64, mistakes: Mistakes) -> Option<Next> {
        let Round { number, close, exact, settled, closed, used, bound, .. } = self.round.take()?;
        let part = |bound: i64, used: u64| {
            let bound = u64::try_from(bound).unwrap_or(0);
            if settled { used } else { bound }
        };
        let bound = Amount { keys: part(bound.0, used.keys), bytes: part(bound.1, used.bytes) };
        self.bound = Some(bound);
        self.settled = settled;
        self.closed = settled && closed;
        // Who is closed no more has something left that is to go first.
        if settled && exact && (closed || mistakes.make(Mistake::OneRoundOnly)) {
            self.exact = Some(Exact { round: number, used });
        }
        let nobody_fits = !self.askers.values().any(|request| fits(request, bound));
        let next_decides = settled && !exact && (closed || !close);
        if nobody_fits && next_decides && !self.askers.is_empty() {
            return Some(Next::Round);
        }
        // The answer hangs on keys that move, or on operations that have just been let run.
        let undecided = !settled || !closed;
        if undecided {
            self.not_before_ms = now_ms + ROUND_PAUSE_MS;
        }
        let askers = std::mem::take(&mut self.askers);
        let may_ask = |request: &LeaseRequest| !undecided || fits(request, bound);
        Some(Next::Tell(askers.into_iter().filter(|(_, request)| may_ask(request)).map(|(id, _)| id).collect()))
    }

    pub(super) fn is_counting(&self) -> bool {
        self.round.is_some()
    }
}

/// Does what is needed at once fit above this?
fn fits(request: &LeaseRequest, bound: Amount) -> bool {
    let part = |need: u64, max: Option<u64>, bound: u64| {
        need == 0 || max.is_none_or(|max| bound.checked_add(need).is_some_and(|sum| sum <= max))
    };
    part(request.keys, request.max_keys, bound.keys) && part(request.bytes, request.max_bytes, bound.bytes)
}
