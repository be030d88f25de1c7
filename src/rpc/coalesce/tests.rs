use std::task::Waker;

use super::*;

/// A socket of which the test decides what it takes.
#[derive(Debug, Default)]
struct Socket {
    written: Vec<u8>,
    calls: usize,
    /// Bytes that it takes before it says "pending"; `None`: any.
    room: Option<usize>,
    is_shut_down: bool,
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.room == Some(0) {
            return Poll::Pending;
        }
        self.calls += 1;
        let before = self.written.len();
        for slice in slices {
            let take = slice.len().min(self.room.unwrap_or(usize::MAX));
            self.room = self.room.map(|room| room - take);
            self.written.extend_from_slice(&slice[..take]);
        }
        Poll::Ready(Ok(self.written.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut_down = true;
        Poll::Ready(Ok(()))
    }
}

fn write(io: &mut Coalesce<Socket>, bytes: &[u8]) -> Poll<usize> {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(io).poll_write(&mut cx, bytes).map(Result::unwrap)
}

fn flush(io: &mut Coalesce<Socket>) -> Poll<()> {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(io).poll_flush(&mut cx).map(Result::unwrap)
}

fn read(io: &mut Coalesce<Socket>) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(io).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 8])).is_pending());
}

#[test]
fn answers_of_one_turn_leave_in_one_write() {
    let mut io = Coalesce::new(Socket::default());
    for _ in 0..100 {
        assert_eq!(write(&mut io, b"answer"), Poll::Ready(6));
        assert_eq!(flush(&mut io), Poll::Ready(()));
    }
    assert_eq!(io.inner.calls, 0);
    read(&mut io);
    assert_eq!(flush(&mut io), Poll::Ready(()));
    assert_eq!((io.inner.calls, io.inner.written.len()), (1, 600));
}

#[test]
fn an_owner_that_flushes_once_and_then_only_reads_is_not_stalled() {
    let mut io = Coalesce::new(Socket::default());
    assert_eq!(write(&mut io, b"hello"), Poll::Ready(5));
    assert_eq!(flush(&mut io), Poll::Ready(()));
    read(&mut io);
    read(&mut io);
    assert_eq!(io.inner.written, b"hello");
}

#[test]
fn an_owner_that_never_reads_is_put_off_256_times_at_most() {
    let mut io = Coalesce::new(Socket::default());
    for _ in 0..=MAX_DEFERRED_FLUSHES {
        assert_eq!(io.inner.calls, 0);
        assert_eq!(write(&mut io, b"x"), Poll::Ready(1));
        assert_eq!(flush(&mut io), Poll::Ready(()));
    }
    assert_eq!(io.inner.calls, 1);
}

#[test]
fn a_write_past_the_cap_takes_what_is_held_along_in_the_same_call() {
    let mut io = Coalesce::new(Socket::default());
    assert_eq!(write(&mut io, b"small"), Poll::Ready(5));
    let large = vec![7; MAX_HELD_BYTES];
    assert_eq!(write(&mut io, &large), Poll::Ready(large.len()));
    assert_eq!((io.inner.calls, io.inner.written.len()), (1, 5 + large.len()));
    assert!(io.held.is_empty());
}

#[test]
fn a_socket_that_takes_nothing_bounds_what_is_held() {
    let mut io = Coalesce::new(Socket { room: Some(0), ..Socket::default() });
    assert_eq!(write(&mut io, &vec![1; MAX_HELD_BYTES - 1]), Poll::Ready(MAX_HELD_BYTES - 1));
    assert_eq!(write(&mut io, b"ab"), Poll::Ready(1));
    assert_eq!(write(&mut io, b"b"), Poll::Pending);
    io.inner.room = None;
    assert_eq!(write(&mut io, b"b"), Poll::Ready(1));
    assert_eq!(io.inner.written[MAX_HELD_BYTES - 1..], *b"ab");
}

#[test]
fn a_partial_write_loses_and_repeats_nothing() {
    let mut io = Coalesce::new(Socket { room: Some(3), ..Socket::default() });
    assert_eq!(write(&mut io, b"held"), Poll::Ready(4));
    let large: Vec<u8> = (0..MAX_HELD_BYTES).map(|index| u8::try_from(index % 251).unwrap()).collect();
    // The socket takes three of the four held bytes, and then nothing: the rest of the buffer is filled.
    assert_eq!(write(&mut io, &large), Poll::Ready(MAX_HELD_BYTES - 1));
    io.inner.room = None;
    assert_eq!(write(&mut io, &large[MAX_HELD_BYTES - 1..]), Poll::Ready(1));
    read(&mut io);
    assert_eq!(flush(&mut io), Poll::Ready(()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut io).poll_shutdown(&mut cx).is_ready());
    assert_eq!(io.inner.written, [b"held".as_slice(), &large].concat());
}

#[test]
fn shutdown_writes_everything_first() {
    let mut io = Coalesce::new(Socket::default());
    assert_eq!(write(&mut io, b"goodbye"), Poll::Ready(7));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut io).poll_shutdown(&mut cx).is_ready());
    assert_eq!(io.inner.written, b"goodbye");
    assert!(io.inner.is_shut_down);
}

#[test]
fn a_drained_buffer_of_a_burst_is_given_back() {
    let mut io = Coalesce::new(Socket::default());
    assert_eq!(io.held.capacity(), 0);
    assert_eq!(write(&mut io, &vec![1; MAX_HELD_BYTES]), Poll::Ready(MAX_HELD_BYTES));
    assert_eq!(flush(&mut io), Poll::Ready(()));
    read(&mut io);
    assert_eq!(flush(&mut io), Poll::Ready(()));
    assert!(io.held.capacity() <= KEPT_BYTES);
}
