//! Responses: their headers, their trailers, and how a failure becomes one.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::{Body, Produce};
use super::call::Call;
use super::codec::PREFIX_BYTES;
use super::codec::encode::put_prefix;
use super::held::{FREE_BYTES, Share};
use super::method::Method;
use crate::rpc::failure::Failure;
use crate::rpc::metadata::{self, GRPC_ACCEPT_ENCODING, GRPC_STATUS, RPC_ERROR};
use crate::rpc::status;

/// What a unary call that succeeded answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Made here: the message with its prefix.
    Frame(Bytes),
    /// Another replica's: the message alone.
    Message(Bytes),
}

/// A large answer, in a stream of its own so that it is in progress, and held, until the client has read it or its deadline
/// has passed.
struct Whole {
    /// Of a message that came without.
    prefix: Option<Bytes>,
    message: Option<Bytes>,
    _share: Share,
}

/// The answer of a unary call that succeeded.
#[must_use]
pub fn success(mut call: Call, answered: Answered) -> Response<Body> {
    let (prefix, message) = match answered {
        Answered::Frame(frame) => (None, frame),
        Answered::Message(message) if message.len() <= FREE_BYTES => (None, framed(&message)),
        Answered::Message(message) => (Some(prefix_of(&message)), message),
    };
    if message.len() <= FREE_BYTES && prefix.is_none() {
        call.bytes_out = message.len() as u64;
        let hint = call.connection().wall.hint();
        call.finish(tonic::Code::Ok);
        return response(Body::full(message, ok_trailers()), hint);
    }
    let mut share = call.connection().wall.held.share();
    match share.resize(message.len()) {
        Ok(()) => stream(call, Box::new(Whole { prefix, message: Some(message), _share: share })),
        // Only reads have large answers: nothing was changed.
        Err(full) => failure(call, &full),
    }
}

/// The answer of a call that failed before it answered anything.
#[must_use]
pub fn failure(call: Call, failure: &Failure) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    *headers = trailers(call.method, failure);
    headers.insert(CONTENT_TYPE, GRPC);
    if let Some(hint) = call.connection().wall.hint() {
        headers.insert(TOPOLOGY, hint);
    }
    if matches!(failure, Failure::Encoding(_)) {
        response.headers_mut().insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,zstd"));
    }
    call.refuse(failure);
    response
}

/// The answer of a call that streams.
#[must_use]
pub fn stream(call: Call, producer: Box<dyn Produce>) -> Response<Body> {
    let hint = call.connection().wall.hint();
    response(Body::stream(call, producer), hint)
}

/// The answer of a call; `hint` says which view this replica has.
#[must_use]
pub fn response(body: Body, hint: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(body);
    // Room for these fields and no more: the map's own first step is eight times as large.
    let headers = response.headers_mut();
    *headers = HeaderMap::with_capacity(1 + usize::from(hint.is_some()));
    headers.insert(CONTENT_TYPE, GRPC);
    if let Some(hint) = hint {
        headers.insert(TOPOLOGY, hint);
    }
    response
}

/// An answer for something that does not speak gRPC.
#[must_use]
pub fn not_grpc(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The trailers of a call that succeeded.
#[must_use]
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// The trailers of a call that failed; those of the tutorial's API say it in its own words too.
#[must_use]
pub fn trailers(method: Method, failure: &Failure) -> HeaderMap {
    let mut trailers = status::to_trailers(failure);
    if method.is_tutorial() {
        trailers.insert(RPC_ERROR, status::rpc_error_trailer(failure));
    }
    trailers
}

impl Produce for Whole {
    fn poll_next(&mut self, _call: &mut Call, _cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        Poll::Ready(self.prefix.take().or_else(|| self.message.take()).map(Ok))
    }
}

fn prefix_of(message: &Bytes) -> Bytes {
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
    put_prefix(message.len(), &mut prefix);
    prefix.freeze()
}

/// Copies it: a small one travels in one piece.
fn framed(message: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    put_prefix(message.len(), &mut frame);
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Made once: a name given as text is parsed at every insertion.
const TOPOLOGY: HeaderName = HeaderName::from_static(metadata::TOPOLOGY);

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
