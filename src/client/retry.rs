//! Doing a call again: whether, when, and within which budget.
//!
//! Only what is temporary is done again, and only a call that may run twice or surely did not run
//! ([`Error::may_be_retried`]). The waits are exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff
//! And Jitter"), never shorter than what the replica asks for. The budget is Finagle's and linkerd's: a part of the calls, and
//! some per second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::{Error, Sent};
use crate::rpc::failure::Failure;
use crate::rpc::status::Pushback;

/// The first wait at most; doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// The longest wait that is not asked for.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// How often a call may find that its connection had left before it ran. Costs nothing of the budget: the replica has done
/// nothing for it.
const MAX_UNHEARD: u32 = 16;

/// What calls of longer ago have left of the budget is forgotten.
const MEMORY: Duration = Duration::from_secs(10);

/// How much is done again after a failure. Only what is temporary is, and only calls that may run twice or surely did not
/// run; see [`Error::may_be_retried`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts of one call, the first included; 1: never again.
    pub attempts: u32,
    /// Retries of all calls together, in percent of the calls. Keeps clients from finishing off a cluster that is overloaded.
    pub percent: u32,
    /// And so many per second on top, so that a client with few calls can retry at all.
    pub per_second: u32,
}

/// What may be done again, of all calls together.
#[derive(Debug)]
pub(super) struct Budget {
    retries: Retries,
    calls: AtomicU64,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    /// Until when it was made up. What it begins with is the first second's.
    at: Option<Instant>,
    calls: u64,
    left: f64,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) wait: Duration,
    /// Whether it counts against the budget.
    pub(super) is_paid: bool,
}

impl Retries {
    /// No retries.
    pub const NONE: Self = Self { attempts: 1, percent: 0, per_second: 0 };

    /// What to do about the failure of the attempt of this number; none: give up. `chance`: 0 to 1.
    pub(super) fn step(&self, error: &Error, attempt: u32, chance: f64) -> Option<Step> {
        let most = FIRST_WAIT.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST_WAIT);
        let backoff = most.mul_f64(chance);
        if self.attempts > 1 && error.was_not_run() && attempt < MAX_UNHEARD {
            // A new connection is mostly all it takes.
            let wait = if attempt == 1 { Duration::ZERO } else { backoff };
            return Some(Step { wait, is_paid: false });
        }
        if attempt >= self.attempts || !error.may_be_retried() || error.failure() == Some(&Failure::DeadlineExceeded) {
            return None;
        }
        let asked = match error.failure().map(Failure::retry_after) {
            Some(Pushback::Never) if error.sent() != Sent::No => return None,
            Some(Pushback::After(wait)) => wait,
            _ => Duration::ZERO,
        };
        Some(Step { wait: asked + backoff, is_paid: true })
    }
}

impl Default for Retries {
    /// Eight attempts, 20 percent and 10 per second, as Finagle and linkerd do.
    fn default() -> Self {
        Self { attempts: 8, percent: 20, per_second: 10 }
    }
}

impl Budget {
    pub(super) fn new(retries: Retries) -> Self {
        let ledger = Ledger { at: None, calls: 0, left: f64::from(retries.per_second) };
        Self { retries, calls: AtomicU64::new(0), ledger: Mutex::new(ledger) }
    }

    /// A call begins.
    pub(super) fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a retry; `false`: there is none left.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut ledger = self.ledger.lock();
        ledger.make_up(self.retries, self.calls.load(Ordering::Relaxed), now);
        let is_left = ledger.left >= 1.0;
        if is_left {
            ledger.left -= 1.0;
        }
        is_left
    }
}

impl Ledger {
    fn make_up(&mut self, retries: Retries, calls: u64, now: Instant) {
        let at = self.at.unwrap_or(now + Duration::from_secs(1));
        let passed = now.saturating_duration_since(at);
        // Of a longer time only so much counts.
        let counts = if passed > MEMORY { MEMORY.as_secs_f64() / passed.as_secs_f64() } else { 1.0 };
        let of_calls = f64::from(retries.percent) / 100.0 * calls.saturating_sub(self.calls) as f64 * counts;
        let of_time = f64::from(retries.per_second) * passed.as_secs_f64().min(1.0);
        let kept = 1.0 - (passed.as_secs_f64() / MEMORY.as_secs_f64()).min(1.0);
        self.left = self.left * kept + of_calls + of_time;
        (self.at, self.calls) = (Some(at.max(now)), calls);
    }
}

#[cfg(test)]
mod tests;
