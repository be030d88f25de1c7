//! The first bytes of a connection: which protocol it speaks. HTTP/2 by prior knowledge or ALPN begins with a fixed
//! preface (RFC 9113 §3.4). It is read here, before hyper, so that it has its own deadline and so that whoever speaks
//! HTTP/1.1 is told so; gRPC-Web will hook in here.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What an HTTP/2 client says first.
pub(super) const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What an HTTP/1.1 client is told. 426 is the status for "this needs another protocol" (RFC 9110 §15.5.22).
const TO_HTTP1: &[u8] = b"HTTP/1.1 426 Upgrade Required\r\nupgrade: h2c\r\nconnection: upgrade, close\r\n\
    content-type: text/plain\r\n\r\nThis port speaks gRPC: HTTP/2 with prior knowledge.\n";
/// What an HTTP/2 client is told that comes when the server is full: empty SETTINGS, then a GOAWAY for stream 0 without
/// an error. So it knows that none of its calls was begun, and tries elsewhere.
const FULL: &[&[u8]] = &[
    b"\0\0\0\x04\0\0\0\0\0",             // SETTINGS: length 0, type 4, no flags, stream 0
    b"\0\0\x18\x07\0\0\0\0\0",           // GOAWAY: length 24, type 7, no flags, stream 0
    b"\0\0\0\0\0\0\0\0connection limit", // last stream 0, NO_ERROR, debug data
];

/// Bytes read of a client that has been told to go.
const MAX_UNHEARD_BYTES: usize = 64 * 1024;

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
                farewell(io, TO_HTTP1).await?;
            }
            return Ok(Preface::Other);
        }
    }
    Ok(Preface::Http2)
}

/// Tells an HTTP/2 client that the server is full, and closes.
pub(super) async fn refuse(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    farewell(io, &FULL.concat()).await
}

/// Says a last word. What the client goes on saying is read for a while, because closing a socket with unread bytes
/// resets it, and a reset may overtake the word.
async fn farewell(io: &mut (impl AsyncRead + AsyncWrite + Unpin), word: &[u8]) -> io::Result<()> {
    io.write_all(word).await?;
    io.shutdown().await?;
    let mut unheard = [0; 1024];
    let mut heard = 0;
    while heard < MAX_UNHEARD_BYTES {
        match io.read(&mut unheard).await? {
            0 => break,
            count => heard += count,
        }
    }
    Ok(())
}
