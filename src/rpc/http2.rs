//! HTTP/2 on a connection that this side made, as the client has it to a replica and a replica to its peers.
//!
//! Not here: how the connection is made, and what is said on it.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Reason, SendStream};
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes that the other may send ahead on all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Bytes in one frame that the other sends: larger ones than HTTP/2's 16 KiB cost fewer of everything.
const MAX_FRAME_BYTES: u32 = 256 * 1024;

/// Bytes that one stream may have in HTTP/2's own buffer.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;

/// A connection, plain or TLS.
pub type Io = Box<dyn Socket>;

/// What a connection is made of.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Both halves of HTTP/2: where requests go, and what must be polled for them to get on.
pub type Http2 = (SendRequest<Bytes>, Connection<Io, Bytes>);

/// Begins HTTP/2. The other may send `stream_window` bytes ahead on each stream.
///
/// # Errors
/// When the connection is lost at once.
pub async fn handshake(io: Io, stream_window: u32) -> Result<Http2, h2::Error> {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(stream_window)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    builder.handshake(io).await
}

/// Sends as much of `rest` as the other takes now, and takes it from `rest`; ready when that was something.
///
/// # Errors
/// When the stream has ended.
pub fn poll_send(
    stream: &mut SendStream<Bytes>,
    rest: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    stream.reserve_capacity(rest.len());
    let mut room = stream.capacity();
    if room == 0 {
        room = match ready!(stream.poll_capacity(cx)) {
            Some(room) => room?,
            None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
        };
    }
    let piece = rest.split_to(room.min(rest.len()));
    Poll::Ready(stream.send_data(piece, false))
}
