//! The answer of another replica, as it comes: a body that remembers how it ended.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::rpc::metadata::GRPC_STATUS;

/// A body whose memory is given back to the sender as it is read.
pub(super) struct Received {
    stream: RecvStream,
    data_ended: bool,
    ended_well: EndedWell,
}

/// Whether the stream has ended with the status OK. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct EndedWell(Arc<AtomicBool>);

impl EndedWell {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Received {
    pub(super) fn new(stream: RecvStream) -> (Self, EndedWell) {
        let ended_well = EndedWell::default();
        (Self { stream, data_ended: false, ended_well: ended_well.clone() }, ended_well)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What is read is bounded by the message's limit, not by the window.
                    let given_back = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(given_back.map(|()| Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        if let Ok(Some(trailers)) = &trailers {
            self.ended_well.0.store(is_ok(trailers), Ordering::Relaxed);
        }
        Poll::Ready(trailers.err().map(Err))
    }
}

/// Whether these trailers (or headers) say the status OK.
fn is_ok(trailers: &HeaderMap) -> bool {
    trailers.get(GRPC_STATUS).is_some_and(|status| status.as_bytes() == b"0")
}
