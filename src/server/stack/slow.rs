//! The way of calls that stream, or that must wait before they can begin.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;
use tower::Service as _;

use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::metadata;
use crate::rpc::proto::v1;
use crate::rpc::token::Token;
use crate::server::answer::Answered;
use crate::server::body::{Body, Produce};
use crate::server::call::Call;
use crate::server::codec::{Messages, PREFIX_BYTES, encode};
use crate::server::forward::{self, Cannot, Forward};
use crate::server::method::Method;
use crate::server::reflection::Reflection;
use crate::server::wall::Admission;
use crate::server::{answer, batch, clear, drain, dump, get_by_token, pipeline, stats, topology, tutorial};

/// An answer that takes a while.
pub(super) type Slow = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What a call comes to.
enum Outcome {
    Unary(Answered),
    Stream(Box<dyn Produce>),
}

/// Answers a call of Larder's own that is not on the fast way. A pipeline and a watch end when their connection leaves; what
/// comes to an end by itself, when the replica drains.
pub(super) fn start(
    mut call: Call,
    admission: Admission,
    mut messages: Messages,
    token: Option<Token>,
    (drain, leaving): (drain::Watch, drain::Watch),
) -> Slow {
    Box::pin(async move {
        let deadline = call.deadline;
        let until = (drain, leaving.clone());
        let run = AssertUnwindSafe(run(&mut call, admission, &mut messages, until)).catch_unwind();
        let outcome = match deadline {
            Some(at) => timeout_at(at, run).await.unwrap_or(Ok(Err(Failure::DeadlineExceeded))),
            None => run.await,
        };
        let outcome = outcome.unwrap_or_else(|_| {
            call.panicked();
            Err(Failure::Internal)
        });
        match outcome {
            Ok(Some(Outcome::Unary(answered))) => answer::success(call, answered),
            Ok(Some(Outcome::Stream(producer))) => answer::stream(call, producer),
            Ok(None) => {
                let producer = Box::new(pipeline::Pipeline::new(&call, messages, token, leaving));
                answer::stream(call, producer)
            }
            Err(failure) => answer::failure(call, &failure),
        }
    })
}

/// Answers a unary call that could not be carried out here when it came, for the reason given.
pub(super) fn elsewhere(call: Call, message: Bytes, cannot: Cannot) -> Slow {
    Box::pin(async move {
        let run = async {
            let forward = of_call(&call, message)?;
            forward::carry_out(&call.connection().wall, &forward, cannot).await
        };
        let outcome = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
            call.panicked();
            Err(Failure::Internal)
        });
        match outcome {
            Ok(answered) => answer::success(call, answered),
            Err(failure) => answer::failure(call, &failure),
        }
    })
}

/// The token that a pipeline shows again when accounts change.
pub(super) fn pipeline_token(method: Method, headers: &HeaderMap) -> Option<Token> {
    if method != Method::Pipeline {
        return None;
    }
    metadata::bearer(headers).ok().flatten().and_then(|text| Token::new(text).ok())
}

/// Answers a call of one of the standard services.
pub(super) fn foreign(
    call: Call,
    request: Request<Incoming>,
    mut health: HealthServer<HealthService>,
    reflection: Reflection,
    mut drain: drain::Watch,
) -> Slow {
    Box::pin(async move {
        let respond = async {
            if call.method == Method::Reflection {
                reflection.call(request).await
            } else {
                Some(health.call(request).await.unwrap_or_else(|never| match never {}))
            }
        };
        let response = match timeout_at(message_due(&call), respond).await {
            Ok(Some(response)) => response,
            Ok(None) => {
                return answer::failure(call, &Failure::UnknownMethod(Method::Reflection.traits().name.to_owned()));
            }
            Err(_) => return answer::failure(call, &Failure::DeadlineExceeded),
        };
        let code = tonic::Status::from_header_map(response.headers()).map_or(tonic::Code::Ok, |status| status.code());
        let (method, deadline) = (call.method, call.deadline);
        let ends = Box::pin(async move {
            let drains = async {
                drain.started().await;
            };
            match deadline {
                Some(at) => timeout_at(at, drains).await.map_or(Failure::DeadlineExceeded, |()| Failure::Draining),
                None => {
                    drains.await;
                    Failure::Draining
                }
            }
        });
        call.finish(code);
        response.map(|body| Body::foreign(body, method, ends))
    })
}

/// Until when a request that is one message must be there. A stream's answers may take for ever, but a caller who never says
/// what it wants must not keep a place among the calls in progress.
fn message_due(call: &Call) -> Instant {
    let due = Instant::now() + call.connection().wall.config.max_unary_time;
    call.deadline.map_or(due, |deadline| deadline.min(due))
}

/// `None`: a pipeline, which keeps the messages.
async fn run(
    call: &mut Call,
    admission: Admission,
    messages: &mut Messages,
    (drain, leaving): (drain::Watch, drain::Watch),
) -> Result<Option<Outcome>, Failure> {
    let connection = call.connection().clone();
    if let Admission::Ask(token) = &admission {
        connection.ask(call, token).await?;
    }
    if call.method == Method::Pipeline {
        return Ok(None);
    }
    let message = timeout_at(message_due(call), messages.single(&connection.wall.held))
        .await
        .unwrap_or(Err(Failure::DeadlineExceeded))?;
    call.bytes_in = (message.len() + PREFIX_BYTES) as u64;
    if matches!(admission, Admission::InMessage) {
        return store_with_token(call, message).await.map(Outcome::Unary).map(Some);
    }
    let stream: Box<dyn Produce> = match call.method {
        Method::Dump => Box::new(dump::Dump::new(call, message, drain)?),
        Method::BatchGet => Box::new(batch::BatchGet::new(call, message)?),
        Method::BatchStore => Box::new(batch::BatchStore::new(call, message)?),
        Method::BatchDelete => Box::new(batch::BatchDelete::new(call, message)?),
        Method::Clear | Method::DeletePrefix => Box::new(clear::Clear::new(call, message, drain)?),
        Method::TopologyWatch => Box::new(topology::Watch::new(call, message, leaving)?),
        Method::TutorialDump => Box::new(tutorial::dump(call, message, drain)?),
        _ => return unary(call, message).await.map(Outcome::Unary).map(Some),
    };
    Ok(Some(Outcome::Stream(stream)))
}

/// A call with one answer.
async fn unary(call: &mut Call, message: Bytes) -> Result<Answered, Failure> {
    match call.method {
        Method::TutorialStore => tutorial::store(call, message).await,
        Method::TutorialGet => tutorial::get(call, message).await,
        Method::TutorialGetByToken => get_by_token::tutorial(call, message).await.map(Answered::Frame),
        Method::GetByToken => get_by_token::answer(call, message).await.map(Answered::Frame),
        Method::Stats => stats::answer(call, message).await.map(|answer| Answered::Frame(encode::frame(&answer))),
        _ => forward::anywhere(&call.connection().wall, &of_call(call, message)?).await,
    }
}

/// The operation of a call on its account's own keys.
fn of_call(call: &Call, message: Bytes) -> Result<Forward, Failure> {
    let principal = call.principal()?;
    let id = principal.state.tenant.id();
    Ok(Forward {
        method: call.method,
        message,
        space: id.clone(),
        payer: Some((id.clone(), *principal.limits())),
        deadline: call.deadline,
        dry_run: call.dry_run,
        trace: call.traced.clone(),
    })
}

/// A store whose token is in its message.
async fn store_with_token(call: &mut Call, message: Bytes) -> Result<Answered, Failure> {
    let mut request: v1::StoreRequest = convert::decode(message)?;
    if request.account_token.is_empty() {
        return Err(Failure::TokenMissing);
    }
    let connection = call.connection().clone();
    if let Admission::Ask(token) = connection.admit_token(call, &request.account_token)? {
        connection.ask(call, &token).await?;
    }
    // It is not for other replicas.
    request.account_token.clear();
    unary(call, request.encode_to_vec().into()).await
}
