//! A replica as the client reaches it: its connections, and whether they come about.
//!
//! Calls go only to a place that is *up*. A seed is up until it is not reached; a member until then is reached first, while
//! its calls go by others, who forward them: so a client outside the cluster, who can reach nobody but the seeds, loses no
//! call to waiting. One that was lost is tried again in the background, and less and less often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::dial::Secure;
use super::lane::{Lane, Lost, NotTaken, OnItsWay, StreamPlace, drive};
use super::operation::{Context, Operation};
use super::shared::Wires;
use super::spread::{Spread, Tie};
use crate::rpc::channels::Target;

/// The first wait after a connection did not come about; doubles up to [`MAX_RETRY`].
const MIN_RETRY: Duration = Duration::from_millis(50);

/// The longest wait for one that was reached before. A restart is noticed within it.
const MAX_RETRY: Duration = Duration::from_secs(1);

/// The longest wait for one that never was: it probably cannot be reached from here.
const MAX_RETRY_OF_STRANGERS: Duration = Duration::from_secs(30);

/// A replica as it is reached.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) target: Target,
    wires: Arc<Wires>,
    lanes: Box<[Mutex<Option<Arc<Lane>>>]>,
    spread: Arc<Spread>,
    is_up: AtomicBool,
    health: Mutex<Health>,
}

#[derive(Debug)]
struct Health {
    was_up: bool,
    /// Connections that did not come about, in a row.
    failures: u32,
    /// Not to be tried before.
    retry_at: Option<Instant>,
    problem: Arc<str>,
}

impl Place {
    /// A seed, or a member that must prove itself first.
    pub(super) fn new(target: Target, wires: &Arc<Wires>, is_seed: bool) -> Arc<Self> {
        let health =
            Health { was_up: is_seed, failures: 0, retry_at: None, problem: Arc::from("it was not reached yet") };
        Arc::new(Self {
            target,
            lanes: (0..wires.connections).map(|_| Mutex::default()).collect(),
            spread: Spread::new(wires.connections),
            wires: Arc::clone(wires),
            is_up: AtomicBool::new(is_seed),
            health: Mutex::new(health),
        })
    }

    pub(super) fn tls(&self) -> Option<&Secure> {
        self.wires.tls.as_ref()
    }

    /// Whether calls may go there.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Writes a call into the next message to it. `hash` is that of its key: calls on one key that are under way together share
    /// a connection.
    pub(super) fn push(
        self: &Arc<Self>,
        hash: u64,
        operation: &Operation<'_>,
        context: &Context<'_>,
        due: Instant,
    ) -> Result<OnItsWay, Lost> {
        // One that just ended is replaced once; a second end is an answer.
        for _ in 0..2 {
            let tie = self.spread.tie(hash);
            let number = tie.as_ref().map_or(0, Tie::number);
            match self.lane(number)?.push(operation, context, due, tie) {
                Ok(pushed) => return Ok(pushed),
                Err(NotTaken::Full) => return Err(Lost::Full),
                Err(NotTaken::Ended) => {}
            }
        }
        Err(Lost::NotRun)
    }

    /// A message was sent on this connection.
    pub(super) fn sent(&self, number: u32) {
        self.spread.sent(number);
    }

    /// Which of its connections a call takes that has a stream of its own.
    pub(super) fn number(&self, hash: u64) -> usize {
        // The upper bits have picked the replica.
        usize::try_from(hash & 0xffff).unwrap_or(0) % self.lanes.len()
    }

    /// A place for a call on a stream of its own.
    pub(super) fn enter(self: &Arc<Self>, number: usize) -> Result<StreamPlace, Lost> {
        Ok(self.lane(number)?.enter())
    }

    /// Tries to reach one that is not up, if it is time to.
    pub(super) fn probe(self: &Arc<Self>) {
        if !self.is_up() {
            let _ = self.lane(0);
        }
    }

    /// A connection came about.
    pub(super) fn reached(&self) {
        let mut health = self.health.lock();
        (health.was_up, health.failures, health.retry_at) = (true, 0, None);
        self.is_up.store(true, Ordering::Release);
    }

    /// None did, or nothing is heard of it any more.
    pub(super) fn not_reached(&self, problem: &Arc<str>) {
        let mut health = self.health.lock();
        let longest = if health.was_up { MAX_RETRY } else { MAX_RETRY_OF_STRANGERS };
        let wait = (MIN_RETRY * 2_u32.saturating_pow(health.failures.min(16))).min(longest);
        // Between half of the wait and all of it, so that those who lost it together do not come back together.
        health.retry_at = Some(Instant::now() + wait.mul_f64(0.5 + rand::random::<f64>() / 2.0));
        health.failures += 1;
        health.problem = Arc::clone(problem);
        self.is_up.store(false, Ordering::Release);
    }

    /// The replica says that it has this view.
    pub(super) fn hint(self: &Arc<Self>, digest: u64) {
        self.wires.hints.heard(digest, self);
    }

    /// Takes no new call.
    pub(super) fn retire(&self) {
        self.each_lane(Lane::retire);
    }

    /// The replica is lost: what is under way there has no answer.
    pub(super) fn close(&self) {
        self.each_lane(Lane::close);
    }

    fn each_lane(&self, end: impl Fn(&Lane)) {
        for lane in &self.lanes {
            if let Some(lane) = lane.lock().take() {
                end(&lane);
            }
        }
    }

    /// The lane of this number, or a new one in its place.
    fn lane(self: &Arc<Self>, number: usize) -> Result<Arc<Lane>, Lost> {
        let mut known = self.lanes[number].lock();
        let generation = self.wires.token.generation();
        if let Some(lane) = &*known {
            if lane.generation == generation && lane.is_open() {
                return Ok(Arc::clone(lane));
            }
            lane.retire();
        }
        {
            let health = self.health.lock();
            if health.retry_at.is_some_and(|at| Instant::now() < at) {
                return Err(Lost::Unreachable(Arc::clone(&health.problem)));
            }
        }
        let (generation, authorization) = self.wires.token.current();
        let lane = Lane::new(u32::try_from(number).unwrap_or(0), self.wires.in_flight, generation, authorization);
        *known = Some(Arc::clone(&lane));
        drop(known);
        tokio::spawn(drive::run(Arc::clone(&lane), Arc::clone(self)));
        Ok(lane)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.retire();
    }
}
