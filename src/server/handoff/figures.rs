//! What is counted of the hand-off, and how it stands: for metrics, and for people at three in the morning.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::cache::store::{Carried, Name};
use crate::ownership::copies::Frozen;
use crate::ownership::member::MemberId;
use crate::ownership::message::{Answer, Request};
use crate::ownership::shard::Place;
use crate::ownership::snapshot::Snapshot;

/// Counters. Written by the thread, read by whoever asks.
#[derive(Debug, Default)]
pub struct Figures {
    pub claims: AtomicU64,
    pub fetches: AtomicU64,
    pub pulls: AtomicU64,
    pub pages_in: AtomicU64,
    pub pages_out: AtomicU64,
    pub keys_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub keys_out: AtomicU64,
    pub bytes_out: AtomicU64,
    pub stale: AtomicU64,
    pub fences: AtomicU64,
    pub lost: AtomicU64,
    pub dropped: AtomicU64,
    pub views: AtomicU64,
    /// Times that something was gained, and microseconds until everybody had cleared it.
    pub gains: AtomicU64,
    pub gain_us: AtomicU64,
    /// Hand-offs that came to their end here, and microseconds from the view change that began them.
    pub settles: AtomicU64,
    pub settle_us: AtomicU64,
    /// Microseconds of the server's clock at the last change of the view.
    pub view_changed_us: AtomicU64,
    pub forwards: Forwards,
    pub leases: Leases,
}

/// What became of forwarded operations; counted by who forwards.
#[derive(Debug, Default)]
pub struct Forwards {
    /// Answered by the owner.
    pub sent: AtomicU64,
    /// Carried out here for others.
    pub received: AtomicU64,
    /// The owner said that the key is not its own.
    pub moved: AtomicU64,
    /// The owner was not reached.
    pub refused: AtomicU64,
    /// The answer was lost.
    pub unknown: AtomicU64,
}

/// What became of room in quotas that was asked for at the accounts' homes.
#[derive(Debug, Default)]
pub struct Leases {
    pub granted: AtomicU64,
    /// The account is full.
    pub refused: AtomicU64,
    /// Nobody knew in time.
    pub failed: AtomicU64,
}

/// How far this replica's part in the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not every member has cleared it yet.
    Starting,
    Ready,
    Leaving,
}

/// How the hand-off stands at the last tick.
#[derive(Clone, Debug)]
pub struct Status {
    pub me: MemberId,
    pub snapshot: Arc<Snapshot>,
    pub stage: Stage,
    /// Arcs that are owned and not cleared by everybody; and those that are held and not settled.
    pub gaining: usize,
    pub held: usize,
    /// Members that have not cleared this one, and those that hold copies for it.
    pub waiting: usize,
    pub sources: usize,
    /// No hand-off is under way.
    pub settled: bool,
    pub source_age: Duration,
    pub held_back: bool,
}

impl Figures {
    pub(super) fn calling(&self, request: &Request<Name>) {
        let counter = match request {
            Request::Claim => &self.claims,
            Request::Fetch(_) => &self.fetches,
            Request::Pull { .. } => &self.pulls,
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// A peer's answer; how many bytes of entries it brings.
    pub(super) fn came(&self, answer: &Answer<Name, Carried>) -> usize {
        match answer {
            Answer::Page { .. } => self.pages_in.fetch_add(1, Relaxed),
            Answer::Stale => self.stale.fetch_add(1, Relaxed),
            _ => 0,
        };
        let (keys, bytes) = entries(answer);
        self.keys_in.fetch_add(keys as u64, Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
        bytes
    }

    /// What a peer was answered.
    pub(super) fn answered(&self, answer: &Answer<Name, Carried>) {
        if matches!(answer, Answer::Page { .. } | Answer::Written(_)) {
            self.pages_out.fetch_add(1, Relaxed);
        }
        let (keys, bytes) = entries(answer);
        self.keys_out.fetch_add(keys as u64, Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn view_changed(&self, now_us: u64) {
        self.views.fetch_add(1, Relaxed);
        self.view_changed_us.store(now_us, Relaxed);
    }
}

/// Since when a hand-off is under way, and how far it was at the last look.
#[derive(Debug, Default)]
pub(super) struct Progress {
    gaining_since_us: Option<u64>,
    open_since_us: Option<u64>,
}

impl Progress {
    /// After each step: whether something is gained that not everybody has cleared, and whether anything is open.
    pub(super) fn look(&mut self, figures: &Figures, gaining: bool, open: bool, now_us: u64) {
        let count = |since: &mut Option<u64>, is: bool, times: &AtomicU64, sum_us: &AtomicU64| match (is, *since) {
            (true, None) => *since = Some(now_us),
            (false, Some(began)) => {
                times.fetch_add(1, Relaxed);
                sum_us.fetch_add(now_us.saturating_sub(began), Relaxed);
                *since = None;
            }
            _ => {}
        };
        count(&mut self.gaining_since_us, gaining, &figures.gains, &figures.gain_us);
        count(&mut self.open_since_us, open, &figures.settles, &figures.settle_us);
    }
}

/// How many entries and tombstones an answer has, and the bytes of their keys and values.
fn entries(answer: &Answer<Name, Carried>) -> (usize, usize) {
    let add = |(keys, bytes): (usize, usize), (place, copy): (&Place<Name>, &Frozen<Carried>)| {
        let value = copy.value.as_ref().map_or(0, |carried| carried.value.len());
        (keys + 1, bytes + place.key.key.len() + value)
    };
    match answer {
        Answer::Page { items, .. } => items.iter().map(|(place, copy)| (place, copy)).fold((0, 0), add),
        Answer::Copies(found) => {
            found.iter().filter_map(|(place, copy)| Some((place, copy.as_ref()?))).fold((0, 0), add)
        }
        Answer::Written(page) => (page.entries, page.bytes),
        _ => (0, 0),
    }
}
