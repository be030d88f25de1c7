//! Linearizability of one key, checked along with the run (just-in-time linearization, as in the protocol's model).
//!
//! It keeps every state that some legal linearization of the history so far can have produced. An operation whose outcome
//! nobody knows stays possible until its deadline, after which no replica executes it.

use std::collections::BTreeSet;

use crate::random::Random;

/// An operation's name; also the name of what it wrote.
pub type OpId = u64;

/// The value: a number that says who made it.
pub type Cell = Option<i64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Read,
    Write,
    /// Writes if the value is this one, which the client saw with its version; none: if there is no value.
    WriteIf(Cell),
    /// Writes if there is any value.
    WriteIfPresent,
    /// Adds the operation's number.
    Increment,
    Delete,
    /// Deletes if the value is this one.
    DeleteIf(Cell),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Done,
    Mismatch,
    /// The store has no room.
    Refused,
    Value(Cell),
    Count(i64),
}

/// The number that an operation writes or adds: not two sums of them are equal, or about never.
pub fn number(id: OpId) -> i64 {
    i64::try_from(Random::new(id).next() >> 16).expect("48 bits")
}

/// What an operation does to a cell.
pub fn apply(id: OpId, kind: Kind, cell: Cell) -> (Cell, Outcome) {
    let number = number(id);
    let written = Some(number);
    match kind {
        Kind::Read => (cell, Outcome::Value(cell)),
        Kind::Write => (written, Outcome::Done),
        Kind::WriteIf(expected) if cell == expected => (written, Outcome::Done),
        Kind::WriteIfPresent if cell.is_some() => (written, Outcome::Done),
        Kind::DeleteIf(expected) if cell == expected => (None, Outcome::Done),
        Kind::WriteIf(_) | Kind::WriteIfPresent | Kind::DeleteIf(_) => (cell, Outcome::Mismatch),
        Kind::Increment => {
            let sum = cell.unwrap_or(0) + number;
            (Some(sum), Outcome::Count(sum))
        }
        Kind::Delete => (None, Outcome::Done),
    }
}

/// One possible past: the state, and operations that took effect and were not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Past {
    cell: Cell,
    effects: BTreeSet<(OpId, Outcome)>,
}

/// Pasts that are followed at most; over it a key is not checked any more, and the run says so.
const MAX_PASTS: usize = 50_000;

#[derive(Debug)]
pub struct Monitor {
    pasts: BTreeSet<Past>,
    pending: Vec<(OpId, Kind)>,
    /// Operations before this one began when the key was not followed: of what they answer nothing follows.
    since: OpId,
    pub given_up: bool,
}

impl Monitor {
    pub fn new() -> Self {
        Self {
            pasts: [Past { cell: None, effects: BTreeSet::new() }].into(),
            pending: Vec::new(),
            since: 0,
            given_up: false,
        }
    }

    pub fn invoke(&mut self, id: OpId, kind: Kind) {
        if !self.given_up {
            self.pending.push((id, kind));
        }
    }

    /// The client got this outcome: false when no linearization explains it.
    pub fn respond(&mut self, id: OpId, outcome: Outcome) -> bool {
        if self.given_up {
            return true;
        }
        if id < self.since {
            self.close(id);
            return true;
        }
        let reached = self.reachable(Some((id, outcome)));
        let with = |past: Past| {
            let mut past = past;
            past.effects.remove(&(id, outcome)).then_some(past)
        };
        self.pasts = reached.into_iter().filter_map(with).collect();
        self.pending.retain(|(pending, _)| *pending != id);
        self.given_up || !self.pasts.is_empty()
    }

    /// From here on the operation does not take effect any more; whether it did, nobody was told.
    pub fn close(&mut self, id: OpId) {
        if !self.given_up && self.pending.iter().any(|(pending, _)| *pending == id) {
            let forget = |mut past: Past| {
                past.effects.retain(|(effect, _)| *effect != id);
                past
            };
            self.pasts = self.reachable(None).into_iter().map(forget).collect();
            self.pending.retain(|(pending, _)| *pending != id);
        }
    }

    /// Follows the key again: it holds one of these values, and these operations may still take effect.
    pub fn resume(&mut self, cells: BTreeSet<Cell>, open: Vec<(OpId, Kind)>, since: OpId) {
        let past = |cell| Past { cell, effects: BTreeSet::new() };
        *self = Self { pasts: cells.into_iter().map(past).collect(), pending: open, since, given_up: false };
    }

    /// The operation was turned down: it took no effect.
    pub fn refused(&mut self, id: OpId) {
        self.pending.retain(|(pending, _)| *pending != id);
        self.pasts.retain(|past| past.effects.iter().all(|(effect, _)| *effect != id));
    }

    /// The value may be gone from here on: a loss that the contract allows.
    pub fn may_vanish(&mut self) {
        if self.given_up {
            return;
        }
        let reached = self.reachable(None);
        let gone = reached.into_iter().map(|past| Past { cell: None, ..past });
        self.pasts.extend(gone.collect::<Vec<_>>());
    }

    /// Can the key hold exactly this now?
    pub fn may_be(&mut self, cell: Cell) -> bool {
        self.given_up || self.reachable(None).iter().any(|past| past.cell == cell)
    }

    /// All pasts after any of the pending operations took effect; of `only`, only with this outcome.
    fn reachable(&mut self, only: Option<(OpId, Outcome)>) -> BTreeSet<Past> {
        let mut todo: Vec<Past> = self.pasts.iter().cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(past) = todo.pop() {
            if !seen.insert(past.clone()) {
                continue;
            }
            if seen.len() > MAX_PASTS {
                self.given_up = true;
                return seen;
            }
            for &(id, kind) in &self.pending {
                if past.effects.iter().any(|(effect, _)| *effect == id) {
                    continue;
                }
                let (cell, outcome) = apply(id, kind, past.cell);
                if only.is_none_or(|(answered, given)| answered != id || given == outcome) {
                    let mut effects = past.effects.clone();
                    effects.insert((id, outcome));
                    todo.push(Past { cell, effects });
                }
            }
        }
        seen
    }
}
