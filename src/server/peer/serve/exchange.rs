//! One message of the hand-off, and its answer.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use prost::Message as _;
use tokio::time::timeout;

use super::{Answering, Body, Inner, MAX_EXCHANGES, failed, ok_trailers, response};
use crate::rpc::failure::Failure;
use crate::rpc::peer::{MAX_EXCHANGE_BYTES, answer_frame, hello_to, refusal_to, request_of, stamp_of, stamp_to};
use crate::rpc::proto::peer::v1::exchange_response::Answer;
use crate::rpc::proto::peer::v1::{ExchangeRequest, ExchangeResponse, Refusal};
use crate::server::codec::{Messages, encode};

/// A message is there within this time after its headers.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// A place among the messages in progress.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

pub(super) async fn answer(inner: &Inner, from: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let _place = Place(&inner.exchanges);
    let full = inner.exchanges.fetch_add(1, Relaxed) >= MAX_EXCHANGES;
    let mut messages = match Messages::new(&head.headers, body, MAX_EXCHANGE_BYTES) {
        Ok(messages) => messages,
        Err(failure) => return failed(&failure),
    };
    let message = timeout(MESSAGE_TIMEOUT, messages.single(&inner.held)).await;
    let message = match message.unwrap_or(Err(Failure::DeadlineExceeded)) {
        Ok(message) => message,
        Err(failure) => return failed(&failure),
    };
    inner.stats.exchanges.fetch_add(1, Relaxed);
    let answered = match ExchangeRequest::decode(message) {
        _ if full => Err(Refusal::Overloaded),
        Ok(request) => exchange(inner, from, request).await,
        Err(_) => Err(Refusal::Malformed),
    };
    let frame = answered.unwrap_or_else(|refusal| {
        if refusal == Refusal::Malformed {
            inner.stats.malformed.fetch_add(1, Relaxed);
        }
        let hello = Some(hello_to(&inner.config.cluster));
        vec![encode::frame(&ExchangeResponse { hello, answer: Some(Answer::Refused(refusal.into())), stamp: None })]
    });
    response(Answering::One { frame: frame.into(), trailers: Some(ok_trailers()) })
}

/// The answer's frame, in pieces.
async fn exchange(inner: &Inner, from: SocketAddr, request: ExchangeRequest) -> Result<Vec<Bytes>, Refusal> {
    inner.greet(request.hello.as_ref(), from).map_err(|_| Refusal::OtherCluster)?;
    let stamp = stamp_of(request.stamp).map_err(|_| Refusal::Malformed)?;
    let request = request_of(request.request).map_err(|_| Refusal::Malformed)?;
    let answered = inner.desk.request(stamp, request).await;
    let (stamp, answer) = answered.map_err(|refusal| {
        inner.stats.refused.fetch_add(1, Relaxed);
        refusal_to(refusal)
    })?;
    Ok(answer_frame(hello_to(&inner.config.cluster), stamp_to(&stamp), answer, inner.config.clock.now()))
}
