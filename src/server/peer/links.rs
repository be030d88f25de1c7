//! Connections for the hand-off's messages: one at a time per member, for each kind of message its own, so that a page never
//! delays a claim or a fetch, nor any of them a ping.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::StatusCode;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::Shared;
use super::desk::Reply;
use super::dial::{DialError, dial};
use super::error::CallError;
use super::received::Received;
use super::serve::EXCHANGE_PATH;
use crate::cache::store::Name;
use crate::ownership::member::MemberId;
use crate::ownership::message::{Request, Stamp};
use crate::rpc::peer::{
    MAX_EXCHANGE_BYTES, answer_of_kind, hello_of, hello_to, is_refused_connection, request_to, stamp_of, stamp_to,
};
use crate::rpc::proto::peer::v1::exchange_response::Answer;
use crate::rpc::proto::peer::v1::{ExchangeRequest, ExchangeResponse};
use crate::server::codec::{Messages, encode};

/// A ping without an answer for this long is none: a member is lost after 3 s.
pub const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything else. A page of 4 MiB takes so long at 3 Mbit/s.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages under way to one member over one connection; more are not sent.
pub const MAX_CALLS: usize = 64;

/// The first wait after a connection failed; doubles up to [`MAX_RETRY`]. Short, because what the hand-off decides by a
/// refused connection must be from now, and is never answered from memory.
const MIN_RETRY: Duration = Duration::from_millis(50);
const MAX_RETRY: Duration = Duration::from_millis(200);

/// What shares a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Ping,
    Word,
    Fetch,
    Page,
}

/// All of them.
#[derive(Default)]
pub(super) struct Links(Mutex<HashMap<Purpose, Arc<Link>>>);

/// A link's address and what it is for.
type Purpose = (Box<str>, Kind);

/// A connection, or what is to become one.
struct Link {
    /// Held while it is being made, so that one attempt is made at a time.
    state: tokio::sync::Mutex<State>,
    calls: Semaphore,
    /// The task that gets the connection on.
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
struct State {
    requests: Option<SendRequest<Bytes>>,
    failures: u32,
    retry_at: Option<Instant>,
}

/// Whom a message is for, and where it is.
type To<'a> = (&'a MemberId, &'a str);

impl Kind {
    fn of(request: &Request<Name>) -> Self {
        match request {
            Request::Ping => Self::Ping,
            Request::Fetch(_) => Self::Fetch,
            Request::Pull { .. } => Self::Page,
            _ => Self::Word,
        }
    }

    fn timeout(self) -> Duration {
        if self == Self::Ping { PING_TIMEOUT } else { CALL_TIMEOUT }
    }
}

impl Links {
    /// Ends the connections to all other addresses; what is under way there is lost.
    pub(super) fn keep_only(&self, is_kept: impl Fn(&str) -> bool) {
        let mut links = self.0.lock();
        let ended: Vec<Arc<Link>> =
            links.extract_if(|(address, _), _| !is_kept(address)).map(|(_, link)| link).collect();
        drop(links);
        for link in ended {
            link.close();
        }
    }

    /// Says one message.
    pub(super) async fn call(
        &self,
        shared: &Shared,
        address: &str,
        stamp: Stamp,
        request: Request<Name>,
    ) -> Result<Reply, CallError> {
        let kind = Kind::of(&request);
        let link = Arc::clone(self.0.lock().entry((address.into(), kind)).or_insert_with(Link::new));
        let Ok(_permit) = link.calls.try_acquire() else { return Err(CallError::Lost) };
        let talk = async {
            let to = (&stamp.to, address);
            let requests = link.requests(shared, to).await?;
            talk(shared, requests, to, &stamp, &request).await
        };
        timeout(kind.timeout(), talk).await.unwrap_or(Err(CallError::Lost))
    }
}

impl Link {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: tokio::sync::Mutex::default(),
            calls: Semaphore::new(MAX_CALLS),
            task: Mutex::default(),
        })
    }

    /// A connection: the one there is, or a new one.
    async fn requests(&self, shared: &Shared, (to, address): To<'_>) -> Result<SendRequest<Bytes>, CallError> {
        let mut state = self.state.lock().await;
        if let Some(requests) = state.requests.take()
            && let Ok(ready) = requests.ready().await
        {
            state.requests = Some(ready.clone());
            return Ok(ready);
        }
        if let Some(at) = state.retry_at {
            sleep_until(at).await;
        }
        match dial(address, shared.config.tls.as_ref()).await {
            Ok((requests, connection)) => {
                *state = State { requests: Some(requests.clone()), ..State::default() };
                // Its end shows in the next message.
                let task = tokio::spawn(async { drop(connection.await) });
                *self.task.lock() = Some(task.abort_handle());
                Ok(requests)
            }
            Err(error) => {
                let wait = (MIN_RETRY * 2_u32.saturating_pow(state.failures.min(8))).min(MAX_RETRY);
                state.failures += 1;
                state.retry_at = Some(Instant::now() + wait.mul_f64(0.5 + rand::random::<f64>() / 2.0));
                shared.cannot_reach(to, address, &error);
                Err(if matches!(error, DialError::Refused) { CallError::Refused } else { CallError::Lost })
            }
        }
    }

    fn close(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// A message and its answer, over a connection.
async fn talk(
    shared: &Shared,
    mut requests: SendRequest<Bytes>,
    to: To<'_>,
    stamp: &Stamp,
    request: &Request<Name>,
) -> Result<Reply, CallError> {
    let message = ExchangeRequest {
        hello: Some(hello_to(&shared.config.cluster)),
        stamp: Some(stamp_to(stamp)),
        request: Some(request_to(request)),
    };
    let uri = format!("http://{}{EXCHANGE_PATH}", to.1);
    let head = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(());
    let (answer, mut body) = requests.send_request(head.map_err(lost)?, false).map_err(lost)?;
    body.send_data(encode::frame(&message), true).map_err(lost)?;
    let (head, body) = answer.await.map_err(lost)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(CallError::Lost);
    }
    let (body, _) = Received::new(body);
    let mut messages = Messages::new(&head.headers, body, MAX_EXCHANGE_BYTES).map_err(lost)?;
    let answer = messages.single(&shared.held).await.map_err(lost)?;
    let answer = ExchangeResponse::decode(answer).map_err(lost)?;
    reply_of(shared, to, request, answer)
}

fn reply_of(
    shared: &Shared,
    (to, address): To<'_>,
    request: &Request<Name>,
    answer: ExchangeResponse,
) -> Result<Reply, CallError> {
    if let Some(Answer::Refused(refusal)) = answer.answer {
        shared.turned_down(to, address, refusal);
        return Err(if is_refused_connection(refusal) { CallError::Refused } else { CallError::Lost });
    }
    if let Err(stranger) = hello_of(answer.hello.as_ref(), &shared.config.cluster) {
        shared.stranger(to, address, &stranger);
        return Err(CallError::Lost);
    }
    let stamp = stamp_of(answer.stamp).map_err(lost)?;
    let answer = answer_of_kind(request, answer.answer, shared.config.clock.now()).map_err(lost)?;
    Ok((stamp, answer))
}

/// Whatever went wrong on the way: the message may have been heard.
fn lost<E>(_: E) -> CallError {
    CallError::Lost
}
