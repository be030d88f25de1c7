//! Responses: their headers, their trailers, and how a failure becomes one.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::body::Body;
use super::call::Call;
use super::method::Method;
use crate::rpc::failure::Failure;
use crate::rpc::metadata::{GRPC_ACCEPT_ENCODING, GRPC_STATUS, RPC_ERROR};
use crate::rpc::status;

/// Bytes of a value above which its call counts as in progress until the client has read it: what is under way to slow
/// readers stays bounded by the calls in progress.
const HELD_BYTES: usize = 64 * 1024;

/// The answer of a unary call that succeeded; `frame` is its message.
#[must_use]
pub fn success(mut call: Call, frame: Bytes) -> Response<Body> {
    call.bytes_out = frame.len() as u64;
    let held = if frame.len() > HELD_BYTES {
        call.succeeded();
        Some(Box::new(call))
    } else {
        call.finish(tonic::Code::Ok);
        None
    };
    response(Body::full(frame, ok_trailers(), held))
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

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
