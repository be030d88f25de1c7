//! Reads request messages from a body.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio_stream::Stream as _;
use tonic::Status;
use tonic::codec::{CompressionEncoding, DecodeBuf, Decoder, Streaming};

use crate::rpc::failure::Failure;
use crate::rpc::frames::Frames;
use crate::rpc::metadata::GRPC_ENCODING;
use crate::rpc::status::failure_of_codec;
use crate::server::held::{FREE_BYTES, Held, Share};

/// Made once: a name given as text is parsed at every look-up.
static ENCODING: HeaderName = HeaderName::from_static(GRPC_ENCODING);

/// The messages of a request, in order.
pub struct Messages<B = Incoming> {
    source: Source<B>,
    /// The one message of a unary request, kept until the end of the stream is seen.
    single: Option<Bytes>,
    /// Of the bytes that calls may hold, once this one holds many.
    share: Option<Share>,
}

enum Source<B> {
    Plain(Plain<B>),
    Compressed { messages: Box<Streaming<Bytes>>, limit: usize, came: Arc<AtomicUsize> },
}

/// Messages that are not compressed.
struct Plain<B> {
    body: B,
    frames: Frames,
}

/// A body whose bytes are counted, because tonic's codec does not say how many it keeps.
struct Counted<B> {
    body: B,
    came: Arc<AtomicUsize>,
}

/// Hands the bytes of a message on; decoding them is the service's affair.
struct Raw;

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    /// The messages of a body, each at most `limit` bytes.
    ///
    /// # Errors
    /// [`Failure::Encoding`] when they are compressed in a way that Larder does not know.
    pub fn new(headers: &HeaderMap, body: B, limit: usize) -> Result<Self, Failure> {
        let encoding = match headers.get(&ENCODING).map(http::HeaderValue::as_bytes) {
            None | Some(b"identity") => None,
            Some(b"gzip") => Some(CompressionEncoding::Gzip),
            Some(b"zstd") => Some(CompressionEncoding::Zstd),
            Some(other) => return Err(Failure::Encoding(String::from_utf8_lossy(other).chars().take(64).collect())),
        };
        let source = match encoding {
            None => Source::Plain(Plain { body, frames: Frames::new(limit) }),
            Some(_) => {
                let came = Arc::new(AtomicUsize::new(0));
                let body = Counted { body, came: Arc::clone(&came) };
                let messages = Box::new(Streaming::new_request(Raw, body, encoding, Some(limit)));
                Source::Compressed { messages, limit, came }
            }
        };
        Ok(Self { source, single: None, share: None })
    }

    /// The next message; `None` at the end. While it waits for more, what came is held.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, held: &Arc<Held>) -> Poll<Option<Result<Bytes, Failure>>> {
        let next = match &mut self.source {
            Source::Plain(plain) => plain.poll_next(cx),
            Source::Compressed { messages, limit, came } => Pin::new(messages).poll_next(cx).map(|next| {
                came.store(0, Ordering::Relaxed);
                next.map(|message| message.map_err(|status| failure_of_codec(&status, *limit)))
            }),
        };
        match next {
            Poll::Pending => match self.hold(held) {
                Ok(()) => Poll::Pending,
                Err(failure) => Poll::Ready(Some(Err(failure))),
            },
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn hold(&mut self, held: &Arc<Held>) -> Result<(), Failure> {
        let kept = match &self.source {
            Source::Plain(plain) => plain.frames.len(),
            Source::Compressed { came, .. } => came.load(Ordering::Relaxed),
        };
        let kept = kept + self.single.as_ref().map_or(0, Bytes::len);
        if kept <= FREE_BYTES && self.share.is_none() {
            return Ok(());
        }
        self.share.get_or_insert_with(|| held.share()).resize(kept)
    }

    /// The message of a request that has exactly one.
    pub fn poll_single(&mut self, cx: &mut Context<'_>, held: &Arc<Held>) -> Poll<Result<Bytes, Failure>> {
        if self.single.is_none() {
            match ready!(self.poll_next(cx, held)) {
                Some(message) => self.single = Some(message?),
                None => return Poll::Ready(Err(malformed("the request has no message"))),
            }
        }
        // The end usually came with the message.
        if !self.is_at_end() {
            match ready!(self.poll_next(cx, held)) {
                None => {}
                Some(Ok(_)) => return Poll::Ready(Err(malformed("the request has more than one message"))),
                Some(Err(failure)) => return Poll::Ready(Err(failure)),
            }
        }
        Poll::Ready(Ok(self.single.take().unwrap_or_default()))
    }

    /// As [`Self::poll_single`].
    ///
    /// # Errors
    /// When the request cannot be read, is too large, has not exactly one message, or there is no room to wait for it.
    pub async fn single(&mut self, held: &Arc<Held>) -> Result<Bytes, Failure> {
        std::future::poll_fn(|cx| self.poll_single(cx, held)).await
    }

    fn is_at_end(&self) -> bool {
        match &self.source {
            Source::Plain(plain) => plain.frames.is_empty() && plain.body.is_end_stream(),
            Source::Compressed { .. } => false,
        }
    }
}

impl<B> Plain<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            match self.frames.take() {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.frames.push(data);
                    }
                }
                // The caller reset the stream or its connection broke.
                Some(Err(_)) => return Poll::Ready(Some(Err(Failure::Cancelled))),
                None if self.frames.is_empty() => return Poll::Ready(None),
                None => {
                    self.frames.clear();
                    return Poll::Ready(Some(Err(malformed("the request ends inside a message"))));
                }
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.came.fetch_add(data.len(), Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

fn malformed(problem: &str) -> Failure {
    Failure::Malformed(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn messages(
        pieces: &[&[u8]],
        limit: usize,
    ) -> Messages<impl Body<Data = Bytes, Error = std::io::Error> + Unpin + use<>> {
        let frames: Vec<_> = pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        Messages::new(&HeaderMap::new(), StreamBody::new(tokio_stream::iter(frames)), limit).unwrap()
    }

    fn held() -> Arc<Held> {
        Held::new(1 << 20)
    }

    async fn all(pieces: &[&[u8]], limit: usize) -> Vec<Result<Bytes, Failure>> {
        let mut messages = messages(pieces, limit);
        let mut all = Vec::new();
        while let Some(message) = std::future::poll_fn(|cx| messages.poll_next(cx, &held())).await {
            let failed = message.is_err();
            all.push(message);
            if failed {
                break;
            }
        }
        all
    }

    #[tokio::test]
    async fn messages_come_whole_however_the_body_is_cut() {
        let wire = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x02de";
        let expected: Vec<Result<Bytes, Failure>> = ["abc", "", "de"].iter().map(|m| Ok(Bytes::from(*m))).collect();
        for cut in 0..wire.len() {
            for second in cut..wire.len() {
                let pieces = [&wire[..cut], &wire[cut..second], &wire[second..]];
                assert_eq!(all(&pieces, 3).await, expected, "cut at {cut} and {second}");
            }
        }
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_refused_by_its_prefix() {
        assert_eq!(all(&[b"\0\0\0\0\x04"], 3).await, [Err(Failure::MessageTooLarge { limit: 3 })]);
    }

    #[tokio::test]
    async fn a_message_that_breaks_off_or_has_a_strange_flag_is_malformed() {
        for wire in [&b"\0\0\0\0\x04ab"[..], b"\0\0", b"\x01\0\0\0\0", b"\x07\0\0\0\0"] {
            assert!(matches!(&all(&[wire], 9).await[..], [Err(Failure::Malformed(_))]), "{wire:?}");
        }
    }

    #[tokio::test]
    async fn a_unary_request_has_exactly_one_message() {
        assert_eq!(messages(&[b"\0\0\0\0\x01a"], 9).single(&held()).await, Ok(Bytes::from("a")));
        for wire in [&b""[..], b"\0\0\0\0\x01a\0\0\0\0\x01b"] {
            assert!(matches!(messages(&[wire], 9).single(&held()).await, Err(Failure::Malformed(_))), "{wire:?}");
        }
    }
}
