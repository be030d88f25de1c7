//! The streams of one connection: each is a task on the connection's worker, counted, so that idleness is known and a
//! drain waits for the last of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::server::drain::Hold;

/// Counts the streams of a connection, and runs them (as hyper's executor). Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Streams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    open: AtomicUsize,
    /// When the last stream ended, in ms since `began`.
    idle_since: AtomicU64,
    /// Kept until the last clone is gone: the connection's and every stream's.
    _hold: Hold,
}

pin_project_lite::pin_project! {
    /// A stream's task.
    struct Counted<F> {
        #[pin]
        stream: F,
        count: Count,
    }
}

struct Count(Streams);

impl Streams {
    pub(super) fn new(hold: Hold) -> Self {
        let inner =
            Inner { began: Instant::now(), open: AtomicUsize::new(0), idle_since: AtomicU64::new(0), _hold: hold };
        Self(Arc::new(inner))
    }

    /// Since when none has been open; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let since = std::time::Duration::from_millis(self.0.idle_since.load(Ordering::Relaxed));
        (self.0.open.load(Ordering::Relaxed) == 0).then(|| self.0.began + since)
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(Counted { stream, count: Count(self.clone()) });
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().stream.poll(cx)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let inner = &self.0.0;
        if inner.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            let since = u64::try_from(inner.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            inner.idle_since.store(since, Ordering::Relaxed);
        }
    }
}
