//! Write coalescing: many small answers, one `writev`.
//!
//! HTTP/2 on one connection multiplexes many calls, but h2 flushes whenever its task has something to send: after every
//! single response when the scheduler runs the connection right after each handler, and after every DATA frame above
//! 256 bytes (hyperium/h2 issue 902). Each flush is a system call, and system calls are most of what a small call costs.
//! [`Coalesce`] sits around the socket (inside TLS), and answers the first flush with "done" while it only wakes its
//! task: the write happens when the task is polled again, after every other task that could run has had its turn.
//! No byte waits for a timer, so an idle connection pays one extra poll and no delay.
//!
//! Not here: read buffering (h2 reads in large pieces already) and any knowledge of HTTP/2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes held back per connection at most. Past it a write goes to the socket at once.
const MAX_HELD_BYTES: usize = 64 * 1024;
/// A drained buffer larger than this many bytes is given back, so that idle connections stay small.
const KEPT_BYTES: usize = 16 * 1024;
/// Flushes put off in a row at most, should the owner of the socket flush without ever reading.
const MAX_DEFERRED_FLUSHES: u16 = 256;
/// Slices passed to one `writev` at most, the held bytes included.
const MAX_SLICES: usize = 64;

/// An `AsyncRead + AsyncWrite` that gathers writes until its task is polled again; see the module.
///
/// `poll_flush` may answer `Ready` before the bytes have reached the socket; they are written in the next poll of the
/// task, for which it has been woken. `poll_shutdown` writes everything first.
#[derive(Debug)]
pub struct Coalesce<T> {
    inner: T,
    held: BytesMut,
    deferral: Deferral,
    deferred_in_a_row: u16,
}

/// Where the held bytes are on their way to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deferral {
    /// Nothing has been put off.
    None,
    /// A flush was answered early and the task woken.
    Woken,
    /// The socket has been read since, so the task is probably in its next poll: the next flush writes.
    Due,
    /// A read found nothing since. Should a second one find nothing either, before any flush, then the owner waits for
    /// an answer to what is held (a TLS handshake does that), and the read writes.
    Waiting,
}

impl<T> Coalesce<T> {
    /// Wraps `inner`; nothing is allocated before the first write.
    pub fn new(inner: T) -> Self {
        Self { inner, held: BytesMut::new(), deferral: Deferral::None, deferred_in_a_row: 0 }
    }

    /// The socket inside.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    fn drained(&mut self) {
        self.deferral = Deferral::None;
        self.deferred_in_a_row = 0;
        if self.held.capacity() > KEPT_BYTES {
            self.held = BytesMut::new();
        }
    }
}

impl<T: AsyncWrite + Unpin> Coalesce<T> {
    /// Writes what is held. Ready when nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
        }
        self.drained();
        Poll::Ready(Ok(()))
    }

    /// Takes what fits into the buffer; `None` when it is full.
    fn hold(&mut self, slices: &[IoSlice<'_>]) -> Option<usize> {
        let before = self.held.len();
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        // h2 hands large answers over frame by frame: at once, in place of by doubling.
        if before < KEPT_BYTES && before + offered > KEPT_BYTES {
            self.held.reserve(MAX_HELD_BYTES - before);
        }
        for slice in slices {
            let room = MAX_HELD_BYTES - self.held.len();
            let take = room.min(slice.len());
            self.held.extend_from_slice(&slice[..take]);
            if take < slice.len() {
                break;
            }
        }
        Some(self.held.len() - before).filter(|taken| *taken > 0)
    }

    /// Passes the held bytes and `slices` to the socket in one `writev`; answers how many bytes of `slices` it took.
    fn poll_write_through(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let held = self.held.len();
        let mut all = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        let held_slice = IoSlice::new(&self.held);
        for slice in std::iter::once(&held_slice).chain(slices).filter(|slice| !slice.is_empty()).take(MAX_SLICES) {
            all[count] = *slice;
            count += 1;
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &all[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.held.advance(written.min(held));
        if self.held.is_empty() {
            self.drained();
        }
        Poll::Ready(Ok(written.saturating_sub(held)))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesce<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.deferral = match (self.deferral, read.is_pending()) {
            (Deferral::None, _) => Deferral::None,
            (Deferral::Waiting, true) => {
                if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
                    return Poll::Ready(Err(error));
                }
                self.deferral
            }
            (Deferral::Woken | Deferral::Due, true) => Deferral::Waiting,
            (Deferral::Woken | Deferral::Due | Deferral::Waiting, false) => Deferral::Due,
        };
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesce<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let asked: usize = slices.iter().map(|slice| slice.len()).sum();
        if asked == 0 {
            return Poll::Ready(Ok(0));
        }
        while self.held.len() + asked > MAX_HELD_BYTES {
            match self.poll_write_through(cx, slices) {
                // Only a part of the held bytes went out: the socket may take more.
                Poll::Ready(Ok(0)) => {}
                Poll::Ready(done) => return Poll::Ready(done),
                // The waker is registered with the socket; what fits may still be taken.
                Poll::Pending => return self.hold(slices).map_or(Poll::Pending, |taken| Poll::Ready(Ok(taken))),
            }
        }
        Poll::Ready(Ok(self.hold(slices).unwrap_or(0)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let early = matches!(self.deferral, Deferral::None | Deferral::Woken);
        if !self.held.is_empty() && early && self.deferred_in_a_row < MAX_DEFERRED_FLUSHES {
            cx.waker().wake_by_ref();
            self.deferral = Deferral::Woken;
            self.deferred_in_a_row += 1;
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(feature = "server")]
impl<T: tonic::transport::server::Connected> tonic::transport::server::Connected for Coalesce<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests;
