//! Spans that have ended and wait to be exported: a bounded queue that never makes anybody wait. What finds no room is
//! dropped and counted.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Kind, Value};
use crate::rpc::trace::Trace;

/// A span that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) place: Trace,
    pub(super) parent: Option<([u8; 8], bool)>,
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) began: SystemTime,
    pub(super) took: Duration,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) failed: bool,
}

/// What became of spans, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub exported: AtomicU64,
    /// The queue was full, or its end had come.
    pub dropped: AtomicU64,
    /// The collector did not take them.
    pub failed: AtomicU64,
}

/// Where spans wait.
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Finished>>,
    limit: usize,
    /// So many are worth waking the exporter for.
    batch: usize,
    pub(super) enough: Notify,
    closed: AtomicBool,
    pub(super) counts: Counts,
}

impl Queue {
    pub(super) fn new(limit: usize, batch: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            limit,
            batch,
            enough: Notify::new(),
            closed: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    /// Adds one, if there is room.
    pub(super) fn put(&self, span: Finished) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.limit || self.is_closed() {
            drop(waiting);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(span);
        let enough = waiting.len() == self.batch;
        drop(waiting);
        if enough {
            self.enough.notify_one();
        }
    }

    /// Takes up to a batch.
    pub(super) fn take(&self) -> Vec<Finished> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(self.batch);
        waiting.drain(..count).collect()
    }

    /// Whether a whole batch waits.
    pub(super) fn has_enough(&self) -> bool {
        self.waiting.lock().len() >= self.batch
    }

    /// From now on nothing comes in, and the exporter ends when what is in it is out.
    pub(super) fn close(&self) {
        // Under the lock: who has seen it open has put its span in.
        let waiting = self.waiting.lock();
        self.closed.store(true, Ordering::Relaxed);
        drop(waiting);
        self.enough.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Nobody will export what is left.
    pub(super) fn give_up(&self) {
        let left = std::mem::take(&mut *self.waiting.lock()).len() as u64;
        self.counts.dropped.fetch_add(left, Ordering::Relaxed);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("limit", &self.limit).field("counts", &self.counts).finish_non_exhaustive()
    }
}
