//! What a source of members is to whoever listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::ownership::view::View;

/// A source of members. The first value is the first consistent list; before it, nothing. Each value is everything that
/// the source has said so far, merged, so skipping some loses nothing.
pub trait Discover: Send + 'static {
    /// Its age is the metric by which an operator sees that the source is silent.
    fn last_heard(&self) -> LastHeard;

    /// Follows the source until nobody listens. Whatever the source does, the last good view stays.
    fn run(self, to: watch::Sender<Option<Arc<View>>>) -> impl Future<Output = ()> + Send;
}

/// When a source last said something that was taken. Cheap to clone; clones tell the same.
#[derive(Clone, Debug)]
pub struct LastHeard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// Milliseconds after the origin.
    at_ms: AtomicU64,
}

impl LastHeard {
    /// Of a source that has not said anything yet: its silence begins now.
    #[must_use]
    pub fn never() -> Self {
        Self(Arc::new(Inner { origin: Instant::now(), at_ms: AtomicU64::new(0) }))
    }

    /// It said something just now, if only that nothing has changed.
    pub fn heard(&self) {
        self.0.at_ms.store(self.since_origin_ms(), Ordering::Relaxed);
    }

    /// How long it has been silent, to the millisecond.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.since_origin_ms().saturating_sub(self.0.at_ms.load(Ordering::Relaxed)))
    }

    fn since_origin_ms(&self) -> u64 {
        u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
