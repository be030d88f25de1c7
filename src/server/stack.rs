//! The HTTP service of a connection: from a request to an answer. One function shows the order of things, [`Stack::call`];
//! the checks themselves are the wall's.
//!
//! A unary call is read, carried out and answered in the task that HTTP/2 gives the stream, without a box, a timer or a task
//! of its own: its message usually came together with its headers, and no operation waits. What may wait (remote accounts,
//! a token inside the message, another replica's key) and what streams takes the slower way.

mod slow;
mod unary;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method as HttpMethod, Request, Response, StatusCode};
use hyper::body::Incoming;

use self::slow::Slow;
use self::unary::{Outcome, Unary};
use super::answer;
use super::body::Body;
use super::codec::Messages;
use super::connection::{Make, Peer};
use super::drain;
use super::method::{Kind, Method};
use super::reflection::Reflection;
use super::wall::{Admission, Connection, Parts, Wall};

/// Makes the service of each connection.
#[derive(Clone)]
pub struct Stack {
    wall: Arc<Wall>,
    drain: drain::Watch,
    reflection: Reflection,
}

/// The service of one connection.
#[derive(Clone)]
pub struct Service {
    connection: Arc<Connection>,
    drain: drain::Watch,
    leaving: drain::Watch,
    reflection: Reflection,
}

/// A call being answered.
pub struct Answering(State);

enum State {
    Answered(Option<Response<Body>>),
    Unary(Unary),
    Slow(Slow),
}

impl Stack {
    #[must_use]
    pub fn new(parts: Parts, drain: drain::Watch) -> Self {
        Self { wall: Wall::new(parts), drain, reflection: Reflection::new() }
    }

    /// For whoever reloads accounts or writes metrics.
    #[must_use]
    pub fn wall(&self) -> &Arc<Wall> {
        &self.wall
    }
}

impl Make for Stack {
    type Body = Body;
    type Service = Service;

    fn make(&self, peer: &Peer) -> Service {
        let connection = self.wall.connection(peer.address, peer.worker);
        let (drain, leaving) = (self.drain.clone(), peer.leaving.clone());
        Service { connection, drain, leaving, reflection: self.reflection.clone() }
    }
}

impl tower::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Answering {
        if let Some(status) = refused_by_http(&request) {
            return Answering(State::Answered(Some(answer::not_grpc(status))));
        }
        let (call, admission) = self.connection.admit(request.uri().path(), request.headers());
        let admission = match admission {
            Ok(admission) => admission,
            Err(failure) => return Answering(State::Answered(Some(answer::failure(call, &failure)))),
        };
        if matches!(call.method, Method::HealthCheck | Method::HealthWatch | Method::Reflection) {
            let health = self.connection.wall.health.service();
            let reflection = self.reflection.clone();
            return Answering(State::Slow(slow::foreign(call, request, health, reflection, self.drain.clone())));
        }
        let (head, body) = request.into_parts();
        let limit = self.connection.wall.config.max_message_bytes;
        let messages = match Messages::new(&head.headers, body, limit) {
            Ok(messages) => messages,
            Err(failure) => return Answering(State::Answered(Some(answer::failure(call, &failure)))),
        };
        let fast = call.method.traits().kind == Kind::Unary && call.principal.is_some() && call.method != Method::Stats;
        Answering(match admission {
            Admission::In if fast => State::Unary(Unary::new(call, messages)),
            admission => {
                let token = slow::pipeline_token(call.method, &head.headers);
                State::Slow(slow::start(call, admission, messages, token, (self.drain.clone(), self.leaving.clone())))
            }
        })
    }
}

impl Future for Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            // Polled once: hyper drops a future that has answered.
            State::Answered(response) => {
                Poll::Ready(Ok(response.take().unwrap_or_else(|| answer::not_grpc(StatusCode::INTERNAL_SERVER_ERROR))))
            }
            State::Unary(unary) => match ready!(unary.poll(cx)) {
                Outcome::Answered(response) => Poll::Ready(Ok(response)),
                Outcome::Elsewhere(mut slow) => {
                    let polled = slow.as_mut().poll(cx).map(Ok);
                    self.0 = State::Slow(slow);
                    polled
                }
            },
            State::Slow(slow) => slow.as_mut().poll(cx).map(Ok),
        }
    }
}

/// What is no gRPC request at all, and how HTTP says so.
fn refused_by_http<B>(request: &Request<B>) -> Option<StatusCode> {
    if request.method() != HttpMethod::POST {
        Some(StatusCode::METHOD_NOT_ALLOWED)
    } else if !is_grpc(request.headers()) {
        Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    } else {
        None
    }
}

/// `application/grpc`, alone or with a suffix for protobuf or parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else { return false };
    rest.is_empty() || rest == b"+proto" || rest.starts_with(b";") || rest.starts_with(b"+proto;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_with_protobuf_is_grpc() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(value));
            is_grpc(&headers)
        };
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(with(good), "{good}");
        }
        for bad in ["application/json", "application/grpc-web", "application/grpc+json", "text/html"] {
            assert!(!with(bad), "{bad}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
