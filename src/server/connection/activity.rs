//! What the client did on the socket, and when. [`Metered`] writes it down below TLS and the write buffer, where bytes
//! really move; [`super::watchdog`] judges it.
//!
//! All values belong to one task; they are atomics only because the pieces that share them must be `Send`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// "Not at the moment" for the times below.
const NOT: u64 = u64::MAX;

/// Times of one connection, in ms since it began.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    heard: AtomicU64,
    taken: AtomicU64,
    stalled: AtomicU64,
    partial: AtomicU64,
}

/// A socket whose activity is written down.
#[derive(Debug)]
pub(super) struct Metered<T> {
    inner: T,
    activity: Arc<Activity>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            stalled: AtomicU64::new(NOT),
            partial: AtomicU64::new(NOT),
        }
    }

    /// When the client was last known to be there: it sent something, or made room for output that had to wait.
    pub(super) fn alive_at(&self) -> Instant {
        self.instant(self.heard.load(Ordering::Relaxed).max(self.taken.load(Ordering::Relaxed)))
    }

    /// Since when output waits without any of it being taken.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.since(&self.stalled)
    }

    /// Since when a header block or control frame is incomplete.
    pub(super) fn partial_since(&self) -> Option<Instant> {
        self.since(&self.partial)
    }

    /// A header block or control frame began, or goes on if `begun` is false.
    pub(super) fn partial(&self, begun: bool) {
        if begun || self.partial.load(Ordering::Relaxed) == NOT {
            self.partial.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Nothing is incomplete.
    pub(super) fn whole(&self) {
        self.partial.store(NOT, Ordering::Relaxed);
    }

    fn heard(&self) {
        self.heard.store(self.now(), Ordering::Relaxed);
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        let waited = self.stalled.load(Ordering::Relaxed) != NOT;
        match written {
            Poll::Pending if !waited => self.stalled.store(self.now(), Ordering::Relaxed),
            Poll::Ready(Ok(_)) if waited => {
                self.taken.store(self.now(), Ordering::Relaxed);
                self.stalled.store(NOT, Ordering::Relaxed);
            }
            Poll::Pending | Poll::Ready(_) => {}
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NOT - 1)
    }

    fn instant(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn since(&self, time: &AtomicU64) -> Option<Instant> {
        Some(time.load(Ordering::Relaxed)).filter(|ms| *ms != NOT).map(|ms| self.instant(ms))
    }
}

impl<T> Metered<T> {
    pub(super) fn new(inner: T, activity: Arc<Activity>) -> Self {
        Self { inner, activity }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            self.activity.heard();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.activity.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.activity.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
