//! Rule 16's clock: whether this process stood still. The hand-off's thread says at each tick that it runs; whoever is about to
//! answer compares. `CLOCK_MONOTONIC` goes on while a process is stopped (SIGSTOP, a frozen container), and stands still while
//! the machine sleeps: then everybody on it slept.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ownership::FENCE_PAUSE_MS;

const FENCE_PAUSE_US: u64 = FENCE_PAUSE_MS * 1000;

/// Microseconds of the server's monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Alive {
    ticked_us: AtomicU64,
    /// Before this moment this process was another one, whose answers do not count.
    fenced_us: AtomicU64,
}

impl Alive {
    /// The thread runs.
    pub(super) fn tick(&self, now_us: u64) {
        self.ticked_us.store(now_us, Ordering::Release);
    }

    /// What began before does not count. Told before the next tick, so that nobody sees a pulse and not the fence.
    pub(super) fn fence(&self, now_us: u64) {
        self.fenced_us.fetch_max(now_us, Ordering::AcqRel);
    }

    /// May the answer of an operation that began at `since` leave now?
    pub(super) fn is_alive(&self, since_us: u64, now_us: u64) -> bool {
        let ticked = self.ticked_us.load(Ordering::Acquire);
        now_us.saturating_sub(ticked) < FENCE_PAUSE_US && since_us >= self.fenced_us.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn no_answer_leaves_two_seconds_or_more_after_the_last_tick() {
        let alive = Alive::default();
        alive.tick(5 * S);
        assert!(alive.is_alive(4 * S, 7 * S - 1));
        assert!(!alive.is_alive(4 * S, 7 * S));
    }

    #[test]
    fn what_began_before_a_fence_is_never_answered_however_late_the_look() {
        let alive = Alive::default();
        alive.tick(5 * S);
        alive.fence(9 * S);
        alive.tick(9 * S);
        assert!(!alive.is_alive(5 * S, 9 * S + 1));
        assert!(alive.is_alive(9 * S, 9 * S + 1));
    }
}
