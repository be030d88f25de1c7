//! Whether the control thread moves: it beats, the probes' thread looks, and health says so under the name [`LIVE`]. Kubernetes ends
//! a replica that is not live, and all that it holds, so load, a hand-off, or a lost API server must never look like that.
//!
//! Not here: whether it serves, which is readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::health::Health;

/// The name under which liveness probes ask: SERVING from the start.
pub const LIVE: &str = "live";

/// How often the thread beats, and is looked at.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Looks in a row without a beat after which the thread is stuck. Looks, not time: a process that was frozen as a whole and goes
/// on is live.
const STUCK_AFTER: u32 = 10;

/// The beats of the control thread. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// Beats, for ever: on the thread that is looked at.
    pub async fn beat(self) {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks, for ever: on another thread.
    pub async fn watch(self, health: Health) {
        let mut ticks = ticks();
        let (mut last, mut missed) = (self.0.load(Ordering::Relaxed), 0);
        loop {
            ticks.tick().await;
            let beats = self.0.load(Ordering::Relaxed);
            missed = if beats == last { missed + 1 } else { 0 };
            last = beats;
            match missed {
                0 => health.set_live(true),
                STUCK_AFTER => {
                    tracing::error!("the control thread stands still; liveness probes are told so");
                    health.set_live(false);
                }
                _ => {}
            }
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_stands_still_is_not_live_until_it_moves_again() {
        let (pulse, health) = (Pulse::default(), Health::default());
        let watch = tokio::spawn(pulse.clone().watch(health.clone()));
        let beat = tokio::spawn(pulse.clone().beat());
        tokio::time::sleep(BEAT_EVERY * STUCK_AFTER * 3).await;
        assert!(health.is_live());
        beat.abort();
        tokio::time::sleep(BEAT_EVERY * (STUCK_AFTER - 2)).await;
        assert!(health.is_live(), "a pause is no standstill");
        tokio::time::sleep(BEAT_EVERY * 4).await;
        assert!(!health.is_live());
        let beat = tokio::spawn(pulse.beat());
        tokio::time::sleep(BEAT_EVERY * 2).await;
        assert!(health.is_live());
        beat.abort();
        watch.abort();
    }
}
