//! A socket that is read to its end although it cannot be written any more.
//!
//! Whoever closes a connection, or dies, may have sent answers before; they wait here in the kernel. Who writes then is told
//! that the connection is broken, and whoever takes that for the end of everything, as HTTP/2 libraries do, never reads those
//! answers, and cannot know whether what they are to was done. [`HearOut`] takes what is written to a broken connection as
//! written: its end shows where it belongs, after the last byte that came.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The socket of whoever asks; see the module.
#[derive(Debug)]
pub struct HearOut<T> {
    inner: T,
    /// It took no more.
    is_broken: bool,
}

impl<T> HearOut<T> {
    /// Wraps a connected socket.
    pub fn new(inner: T) -> Self {
        Self { inner, is_broken: false }
    }

    /// What became of a write, of so many bytes.
    fn written(&mut self, written: Poll<io::Result<usize>>, asked: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if is_gone(&error) => {
                self.is_broken = true;
                Poll::Ready(Ok(asked))
            }
            other => other,
        }
    }

    /// The same of what writes nothing.
    fn done(&mut self, done: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        self.written(done.map_ok(|()| 0), 0).map_ok(|_| ())
    }
}

/// The other side is gone, so that reading comes to an end by itself.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl<T: AsyncRead + Unpin> AsyncRead for HearOut<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HearOut<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(written, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let asked = slices.iter().map(|slice| slice.len()).sum();
        if self.is_broken {
            return Poll::Ready(Ok(asked));
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.written(written, asked)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.done(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Ok(()));
        }
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.done(shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_came_before_a_reset_is_read_although_writing_failed_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = HearOut::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(b"asked").await.unwrap();
        far.readable().await.unwrap();
        far.write_all(b"answered").await.unwrap();
        // With an unread byte: it is reset.
        drop(far);
        while !near.is_broken {
            near.write_all(b"asked more").await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut heard = Vec::new();
        // A reset is an end too.
        let _ = near.read_to_end(&mut heard).await;
        assert_eq!(heard, b"answered");
        near.write_all(b"nobody hears it").await.unwrap();
        near.shutdown().await.unwrap();
    }
}
