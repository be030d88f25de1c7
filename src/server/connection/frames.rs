//! Where frames begin and end (RFC 9113 §4.1), and nothing else of HTTP/2: enough to see a client that sends a header
//! block a byte at a time, which h2 buffers without a deadline. DATA may be as slow as it likes; calls have deadlines.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::activity::Activity;

/// How long a closed connection waits for the client's own close.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that it reads meanwhile: what a client may send ahead on a connection, twice.
const LINGER_BYTES: usize = 2 * 1024 * 1024;
/// Bytes before each frame's payload.
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames in the bytes that a client sends after its preface.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` that have come; all of them while a payload is.
    have: usize,
    /// Bytes of the payload that are to come.
    left: usize,
    /// A header block waits for its CONTINUATION.
    in_block: bool,
}

/// The plain text of a connection: gives back the preface that was read already, then follows the frames; closes
/// without a reset.
#[derive(Debug)]
pub(super) struct Framed<T> {
    inner: T,
    preface: &'static [u8],
    frames: Frames,
    activity: Arc<Activity>,
    /// Set once the sending side is closed: until when it reads, and how many bytes more.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Frames {
    /// Takes the next bytes. Answers whether at some point in them nothing was incomplete.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut was_whole = !self.is_partial();
        while !bytes.is_empty() {
            if self.have < HEAD_BYTES {
                let take = bytes.len().min(HEAD_BYTES - self.have);
                self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < HEAD_BYTES {
                    break;
                }
                self.left =
                    usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
            }
            let take = bytes.len().min(self.left);
            self.left -= take;
            bytes = &bytes[take..];
            if self.left == 0 {
                self.finish();
            }
            was_whole |= !self.is_partial();
        }
        was_whole
    }

    fn finish(&mut self) {
        self.have = 0;
        if let HEADERS | PUSH_PROMISE | CONTINUATION = self.head[3] {
            self.in_block = self.head[4] & END_HEADERS == 0;
        }
    }

    /// Something other than DATA is incomplete.
    fn is_partial(&self) -> bool {
        self.in_block || (self.have > 0 && !(self.have == HEAD_BYTES && self.head[3] == DATA))
    }
}

impl<T> Framed<T> {
    pub(super) fn new(inner: T, preface: &'static [u8], activity: Arc<Activity>) -> Self {
        Self { inner, preface, frames: Frames::default(), activity, lingering: None }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Framed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.preface.is_empty() {
            let (now, later) = self.preface.split_at(self.preface.len().min(buf.remaining()));
            buf.put_slice(now);
            self.preface = later;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            let was_whole = self.frames.feed(&buf.filled()[before..]);
            if self.frames.is_partial() {
                self.activity.partial(was_whole);
            } else {
                self.activity.whole();
            }
        }
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Framed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Says that nothing more comes, then reads and forgets what the client goes on sending until it closes too, for
    /// [`LINGER`] and [`LINGER_BYTES`] at most. A socket that is closed with unread bytes is reset, and a reset may reach the client before it has
    /// read the last answers and the GOAWAY.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        }
        let this = &mut *self;
        let (until, left) = this.lingering.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        let mut forgotten = [0; 4096];
        loop {
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut forgotten);
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf));
            // Closed or reset by the client: either way it is gone.
            if read.is_err() || buf.filled().is_empty() || buf.filled().len() > *left {
                return Poll::Ready(Ok(()));
            }
            *left -= buf.filled().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + payload, 0xee);
        frame
    }

    #[test]
    fn a_frame_is_partial_until_its_last_byte() {
        let mut frames = Frames::default();
        let headers = frame(HEADERS, END_HEADERS, 300);
        for byte in &headers[..headers.len() - 1] {
            frames.feed(&[*byte]);
            assert!(frames.is_partial());
        }
        assert!(frames.feed(&headers[headers.len() - 1..]));
        assert!(!frames.is_partial());
    }

    #[test]
    fn a_header_block_is_partial_until_its_last_continuation() {
        let mut frames = Frames::default();
        frames.feed(&frame(HEADERS, 0, 10));
        assert!(!frames.feed(&frame(CONTINUATION, 0, 10)));
        assert!(frames.is_partial());
        assert!(frames.feed(&frame(CONTINUATION, END_HEADERS, 10)));
        assert!(!frames.is_partial());
    }

    #[test]
    fn data_may_be_slow() {
        let mut frames = Frames::default();
        frames.feed(&frame(DATA, 0, 70_000)[..=HEAD_BYTES]);
        assert!(!frames.is_partial());
    }

    #[test]
    fn a_chunk_that_ends_one_frame_and_begins_another_was_whole_between() {
        let mut frames = Frames::default();
        let mut bytes = frame(HEADERS, END_HEADERS, 20);
        frames.feed(&bytes.split_off(5));
        let mut frames = Frames::default();
        frames.feed(&frame(HEADERS, END_HEADERS, 20)[..5]);
        let mut rest = frame(HEADERS, END_HEADERS, 20)[5..].to_vec();
        rest.extend_from_slice(&frame(HEADERS, END_HEADERS, 20)[..5]);
        assert!(frames.feed(&rest));
        assert!(frames.is_partial());
    }
}
