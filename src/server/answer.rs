//! Responses: their headers, their trailers, and how a failure becomes one.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::body::{Body, Produce};
use super::call::Call;
use super::held::{FREE_BYTES, Share};
use super::method::Method;
use crate::rpc::failure::Failure;
use crate::rpc::metadata::{GRPC_ACCEPT_ENCODING, GRPC_STATUS, RPC_ERROR};
use crate::rpc::status;

/// A large answer, in a stream of its own so that it is in progress, and held, until the client has read it or its deadline
/// has passed.
struct Whole {
    frame: Option<Bytes>,
    _share: Share,
}

/// The answer of a unary call that succeeded; `frame` is its message.
#[must_use]
pub fn success(mut call: Call, frame: Bytes) -> Response<Body> {
    if frame.len() <= FREE_BYTES {
        call.bytes_out = frame.len() as u64;
        call.finish(tonic::Code::Ok);
        return response(Body::full(frame, ok_trailers()));
    }
    let mut share = call.connection().wall.held.share();
    match share.resize(frame.len()) {
        Ok(()) => response(Body::stream(call, Box::new(Whole { frame: Some(frame), _share: share }))),
        // Only reads have large answers: nothing was changed.
        Err(full) => failure(call, &full),
    }
}

/// The answer of a call that failed before it answered anything.
#[must_use]
pub fn failure(call: Call, failure: &Failure) -> Response<Body> {
    let mut response = response(Body::empty());
    *response.headers_mut() = trailers(call.method, failure);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    if matches!(failure, Failure::Encoding(_)) {
        response.headers_mut().insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,zstd"));
    }
    call.refuse(failure);
    response
}

/// The answer of a call that streams.
#[must_use]
pub fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    // Room for this one field and no more: the map's own first step is eight times as large.
    *response.headers_mut() = HeaderMap::with_capacity(1);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
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
        Poll::Ready(self.frame.take().map(Ok))
    }
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
