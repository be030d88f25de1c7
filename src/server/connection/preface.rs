//! The first bytes of a connection: which protocol it speaks. HTTP/2 by prior knowledge or ALPN begins with a fixed
//! preface (RFC 9113 §3.4). It is read here, before hyper, so that it has its own deadline and so that whoever speaks
//! HTTP/1.1 is told so; gRPC-Web will hook in here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// What an HTTP/2 client says first.
pub(super) const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What an HTTP/1.1 client is told. 426 is the status for "this needs another protocol" (RFC 9110 §15.5.22).
const TO_HTTP1: &[u8] = b"HTTP/1.1 426 Upgrade Required\r\nupgrade: h2c\r\nconnection: upgrade, close\r\n\
    content-type: text/plain\r\ncontent-length: 51\r\n\r\nThis port speaks gRPC: HTTP/2 with prior knowledge.\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preface {
    /// HTTP/2; its preface has been read.
    Http2,
    /// Something else; it has been answered if it looked like HTTP/1.
    Other,
}

/// Reads the preface, and not a byte more.
pub(super) async fn read(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Preface> {
    let mut read = [0; HTTP2.len()];
    let mut length = 0;
    while length < HTTP2.len() {
        let count = io.read(&mut read[length..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length += count;
        if read[..length] != HTTP2[..length] {
            // A method is upper-case letters; a TLS hello on a plain port, say, gets no text.
            if read[0].is_ascii_uppercase() {
                io.write_all(TO_HTTP1).await?;
                io.shutdown().await?;
            }
            return Ok(Preface::Other);
        }
    }
    Ok(Preface::Http2)
}

/// Gives the bytes of a preface back before those of the socket.
#[derive(Debug)]
pub(super) struct Rewind<T> {
    inner: T,
    first: &'static [u8],
}

impl<T> Rewind<T> {
    pub(super) fn new(inner: T, first: &'static [u8]) -> Self {
        Self { inner, first }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewind<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        let (now, later) = self.first.split_at(count);
        buf.put_slice(now);
        self.first = later;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewind<T> {
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
