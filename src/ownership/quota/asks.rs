//! The asks of this replica's own operations, by account: one question to the home at a time stands for all who wait.

use std::collections::BTreeMap;

use super::super::message::{LeaseReply, LeaseRequest};
use super::super::mistake::{Mistake, Mistakes};
use super::{LeaseAsk, LeaseId, LeaseVerdict};
use crate::cache::key::AccountId;
use crate::cache::quota::Amount;

/// Milliseconds after which the home is asked again if it could not say anything. It says so itself when it can, if that
/// message is not lost and the answer does not hang on keys that move.
const ASK_PAUSE_MS: u64 = 20;

/// All who wait.
#[derive(Debug, Default)]
pub(super) struct Asks {
    accounts: BTreeMap<AccountId, Queue>,
    ids: BTreeMap<LeaseId, (AccountId, u64)>,
    next: u64,
}

/// Who waits for room in one account, oldest first.
#[derive(Debug, Default)]
struct Queue {
    asks: BTreeMap<u64, Waiting>,
    state: State,
    /// The home said that it can answer now.
    nudged: bool,
}

#[derive(Debug)]
struct Waiting {
    id: LeaseId,
    ask: LeaseAsk,
    before_round: Option<u64>,
}

/// An ask that has its verdict.
#[derive(Debug)]
pub(super) struct Ended {
    pub id: LeaseId,
    pub verdict: LeaseVerdict,
    /// What was leased for it; nothing for a dry run.
    pub need: Amount,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    /// The home is being asked, on behalf of the asks up to this one.
    Asking {
        through: u64,
    },
    Paused {
        until_ms: u64,
    },
}

impl Asks {
    pub(super) fn push(&mut self, id: LeaseId, ask: LeaseAsk) {
        self.next += 1;
        self.ids.insert(id, (ask.account.clone(), self.next));
        let queue = self.accounts.entry(ask.account.clone()).or_default();
        queue.asks.insert(self.next, Waiting { id, ask, before_round: None });
    }

    pub(super) fn remove(&mut self, id: LeaseId) {
        let Some((account, number)) = self.ids.remove(&id) else { return };
        let Some(queue) = self.accounts.get_mut(&account) else { return };
        queue.asks.remove(&number);
        if queue.asks.is_empty() {
            self.accounts.remove(&account);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    /// A new view: whoever waits tries again, and dry runs are asked of the new home.
    pub(super) fn void(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        for queue in self.accounts.values_mut() {
            queue.state = State::Idle;
            queue.asks.retain(|_, waiting| {
                waiting.before_round = None;
                if !waiting.ask.dry_run {
                    ended.push(waiting.ends(LeaseVerdict::Granted));
                }
                waiting.ask.dry_run
            });
        }
        self.forget(&ended);
        ended
    }

    /// The accounts whose home is to be asked now.
    pub(super) fn due(&self, now_ms: u64) -> Vec<AccountId> {
        let due = |queue: &Queue| match queue.state {
            State::Idle => true,
            State::Asking { .. } => false,
            State::Paused { until_ms } => until_ms <= now_ms,
        };
        self.accounts.iter().filter(|(_, queue)| due(queue)).map(|(account, _)| account.clone()).collect()
    }

    /// The question: for the oldest ask, and what the others want besides. Also says up to which ask it stands for.
    pub(super) fn question(&mut self, account: &AccountId) -> Option<(LeaseRequest, u64)> {
        let queue = self.accounts.get_mut(account)?;
        let (&through, _) = queue.asks.last_key_value()?;
        let oldest = queue.asks.first_key_value().map(|(_, waiting)| waiting)?;
        let others = || queue.asks.values().skip(1).filter(|waiting| !waiting.ask.dry_run);
        let sum = |part: fn(&LeaseAsk) -> u64| others().fold(0, |sum: u64, it| sum.saturating_add(part(&it.ask)));
        let LeaseAsk { account, keys, bytes, max_keys, max_bytes, dry_run } = oldest.ask.clone();
        let (more_keys, more_bytes) = (sum(|ask| ask.keys), sum(|ask| ask.bytes));
        let before_round = oldest.before_round;
        queue.state = State::Asking { through };
        queue.nudged = false;
        let request =
            LeaseRequest { account, keys, bytes, more_keys, more_bytes, max_keys, max_bytes, dry_run, before_round };
        Some((request, through))
    }

    /// The question got no answer.
    pub(super) fn again(&mut self, account: &AccountId) {
        if let Some(queue) = self.accounts.get_mut(account) {
            queue.state = State::Idle;
        }
    }

    /// The home can answer now.
    pub(super) fn nudge(&mut self, account: &AccountId) {
        if let Some(queue) = self.accounts.get_mut(account) {
            queue.nudged = true;
            if matches!(queue.state, State::Paused { .. }) {
                queue.state = State::Idle;
            }
        }
    }

    /// The home's answer to the question that stood for the asks up to `through`. `Granted`: that counts here. Who has a
    /// verdict, and which.
    pub(super) fn answered(
        &mut self,
        account: &AccountId,
        through: u64,
        reply: LeaseReply,
        now_ms: u64,
        mistakes: Mistakes,
    ) -> Vec<Ended> {
        let Some(queue) = self.accounts.get_mut(account) else { return Vec::new() };
        queue.state = State::Idle;
        let ended = match reply {
            LeaseReply::Granted { keys, bytes, .. } => queue.served(Amount { keys, bytes }),
            LeaseReply::Fits => {
                let oldest = queue.asks.values().next().filter(|waiting| waiting.ask.dry_run);
                oldest.map(|waiting| waiting.ends(LeaseVerdict::Granted)).into_iter().collect()
            }
            LeaseReply::Full { round, keys, bytes } => {
                let round = if mistakes.make(Mistake::RefuseFromOldRound) { u64::MAX } else { round };
                let ended = queue.refused(through, round, Amount { keys, bytes });
                if ended.is_empty() {
                    queue.state = State::Paused { until_ms: now_ms + ASK_PAUSE_MS };
                }
                ended
            }
            LeaseReply::Wait { before_round } => {
                for waiting in queue.asks.range_mut(..=through).map(|(_, waiting)| waiting) {
                    waiting.before_round.get_or_insert(before_round);
                }
                if !queue.nudged {
                    queue.state = State::Paused { until_ms: now_ms + ASK_PAUSE_MS };
                }
                Vec::new()
            }
        };
        self.forget(&ended);
        ended
    }

    fn forget(&mut self, ended: &[Ended]) {
        for Ended { id, .. } in ended {
            self.remove(*id);
        }
        self.accounts.retain(|_, queue| !queue.asks.is_empty());
    }
}

impl Waiting {
    fn ends(&self, verdict: LeaseVerdict) -> Ended {
        let LeaseAsk { keys, bytes, dry_run, .. } = self.ask;
        let need = if dry_run { Amount::default() } else { Amount { keys, bytes } };
        Ended { id: self.id, verdict, need }
    }
}

impl Queue {
    /// The oldest, and as many after it as the lease is for.
    fn served(&self, mut lease: Amount) -> Vec<Ended> {
        let mut ended = Vec::new();
        for waiting in self.asks.values().filter(|waiting| !waiting.ask.dry_run) {
            let LeaseAsk { keys, bytes, max_keys, max_bytes, .. } = waiting.ask;
            let left = |lease: u64, need: u64, max: Option<u64>| match max {
                Some(_) => lease.checked_sub(need),
                None => Some(lease),
            };
            let (Some(keys), Some(bytes)) = (left(lease.keys, keys, max_keys), left(lease.bytes, bytes, max_bytes))
            else {
                break;
            };
            lease = Amount { keys, bytes };
            ended.push(waiting.ends(LeaseVerdict::Granted));
        }
        ended
    }

    /// Of those who asked before the round began: who would not have fitted then.
    fn refused(&self, through: u64, round: u64, used: Amount) -> Vec<Ended> {
        let asked_before = |waiting: &&Waiting| waiting.before_round.unwrap_or(u64::MAX) <= round;
        let over = |need: u64, used: u64, max: Option<u64>| {
            max.filter(|&max| need > 0 && used.checked_add(need).is_none_or(|sum| sum > max))
        };
        let verdict = |waiting: &Waiting| {
            let ask = &waiting.ask;
            let keys = over(ask.keys, used.keys, ask.max_keys).map(|limit| LeaseVerdict::OverKeys { limit });
            let bytes = || over(ask.bytes, used.bytes, ask.max_bytes).map(|limit| LeaseVerdict::OverBytes { limit });
            Some(waiting.ends(keys.or_else(bytes)?))
        };
        self.asks.range(..=through).map(|(_, waiting)| waiting).filter(asked_before).filter_map(verdict).collect()
    }
}
