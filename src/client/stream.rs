//! Calls on streams of their own: large values, dumps, watches, and whatever is not on one key.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::lane::{Lost, Ready, StreamPlace};
use super::observe::TraceContext;
use super::place::Place;
use crate::cache::limits::STOCK_MESSAGE_BYTES;
use crate::rpc::channels::Target;
use crate::rpc::failure::Failure;
use crate::rpc::frames::Frames;
use crate::rpc::metadata::{
    AUTHORIZATION, DRY_RUN, GRPC_STATUS, GRPC_TIMEOUT, TOPOLOGY, TRACEPARENT, TRACESTATE, timeout_value,
};
use crate::rpc::status::failure_of;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The method's path.
    pub(super) path: &'static str,
    /// The request message with its prefix.
    pub(super) frame: Bytes,
    /// Until when the replica may work on it; `None`: for as long as the connection lives.
    pub(super) due: Option<Instant>,
    pub(super) dry_run: bool,
    pub(super) trace: Option<TraceContext>,
}

/// How a stream came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Lost(Lost),
    /// The replica answered with an error.
    Failed(Failure),
}

/// The answers to one request.
#[derive(Debug)]
pub(super) struct Answers {
    body: RecvStream,
    frames: Frames,
    data_ended: bool,
    _place: StreamPlace,
}

impl From<Lost> for Ended {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// Asks, and waits for the head of the answer. The caller keeps the time.
pub(super) async fn ask(place: &Arc<Place>, number: usize, asked: &Asked) -> Result<Answers, Ended> {
    let entered = place.enter(number)?;
    let mut ready = entered.lane().ready();
    let requests = match ready.wait_for(|ready| !matches!(ready, Ready::Connecting)).await.as_deref() {
        Ok(Ready::Open(requests)) => requests.clone(),
        Ok(Ready::Over(lost)) => return Err(lost.clone().into()),
        Ok(Ready::Connecting) | Err(_) => return Err(Lost::NotRun.into()),
    };
    let mut requests = requests.ready().await.map_err(|_| Lost::NotRun)?;
    let head = request_head(&place.target, asked.path, asked.due, entered.lane().authorization());
    let mut head = head.map_err(|_| Ended::Failed(Failure::Internal))?;
    if asked.dry_run {
        head.headers_mut().insert(DRY_RUN, HeaderValue::from_static("1"));
    }
    if let Some(trace) = &asked.trace {
        for (name, text) in [(TRACEPARENT, &trace.traceparent), (TRACESTATE, &trace.tracestate)] {
            // What cannot travel is no trace context.
            if let Some(value) = HeaderValue::from_str(text).ok().filter(|value| !value.is_empty()) {
                head.headers_mut().insert(name, value);
            }
        }
    }
    let Ok((response, mut body)) = requests.send_request(head, false) else {
        // It takes no new stream: it leaves.
        entered.lane().retire();
        return Err(Lost::NotRun.into());
    };
    let mut rest = asked.frame.clone();
    while !rest.is_empty() {
        body.reserve_capacity(rest.len());
        let room = match body.capacity() {
            0 => match std::future::poll_fn(|cx| body.poll_capacity(cx)).await {
                Some(Ok(room)) => room,
                // The answer says why.
                Some(Err(_)) | None => break,
            },
            room => room,
        };
        let piece = rest.split_to(room.min(rest.len()));
        if body.send_data(piece, rest.is_empty()).is_err() {
            break;
        }
    }
    let response = response.await.map_err(|error| lost(&error))?;
    if let Some(hint) = response.headers().get(TOPOLOGY).and_then(|hint| hint.to_str().ok()) {
        place.hint(u64::from_str_radix(hint, 16).unwrap_or(0));
    }
    if let Some(failure) = refusal(response.status(), response.headers()) {
        return Err(Ended::Failed(failure));
    }
    let frames = Frames::new(STOCK_MESSAGE_BYTES);
    Ok(Answers { body: response.into_body(), frames, data_ended: false, _place: entered })
}

/// Asks for one answer, until the request is due.
pub(super) async fn ask_one(place: &Arc<Place>, number: usize, asked: &Asked) -> Result<Bytes, Ended> {
    let talk = async {
        let mut answers = ask(place, number, asked).await?;
        let answer = answers.next().await?.ok_or(Ended::Lost(Lost::Unknown))?;
        // Its status counts.
        match answers.next().await? {
            None => Ok(answer),
            Some(_) => Err(Ended::Failed(Failure::Malformed("there is more than one answer".to_owned()))),
        }
    };
    match asked.due {
        Some(due) => timeout_at(due, talk).await.unwrap_or(Err(Lost::Late.into())),
        None => talk.await,
    }
}

impl Answers {
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Ended> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next message; `None` at an end in good order.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Ended>> {
        loop {
            if let Some(message) = self.frames.take().map_err(Ended::Failed)? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.data_ended {
                let trailers = ready!(self.body.poll_trailers(cx)).map_err(|error| lost(&error))?;
                return Poll::Ready(match trailers.as_ref().map(failure_of_trailers) {
                    Some(None) => Ok(None),
                    Some(Some(failure)) => Err(Ended::Failed(failure)),
                    None => Err(Lost::Unknown.into()),
                });
            }
            match ready!(Pin::new(&mut self.body).poll_data(cx)) {
                Some(Ok(data)) => {
                    // What is not read is not taken either: the window is what the replica may send ahead.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.frames.push(data);
                }
                Some(Err(error)) => return Poll::Ready(Err(lost(&error).into())),
                None => self.data_ended = true,
            }
        }
    }
}

/// The head of a request.
pub(super) fn request_head(
    target: &Target,
    path: &str,
    due: Option<Instant>,
    authorization: Option<&HeaderValue>,
) -> Result<Request<()>, http::Error> {
    let mut request = Request::post(target.uri_of(path))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("larder/", env!("CARGO_PKG_VERSION")));
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    if let Some(due) = due {
        request = request.header(GRPC_TIMEOUT, timeout_value(due.saturating_duration_since(Instant::now())));
    }
    request.body(())
}

/// Whether these headers are no beginning of an answer but all of it, and what they say.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap) -> Option<Failure> {
    if headers.contains_key(GRPC_STATUS) {
        let ended_well = Failure::Malformed("the answer has no message".to_owned());
        return Some(failure_of_trailers(headers).unwrap_or(ended_well));
    }
    let unavailable = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    let code = if unavailable { tonic::Code::Unavailable } else { tonic::Code::Unknown };
    let message = format!("HTTP status {status}; is this a Larder server's gRPC port?");
    (status != StatusCode::OK).then_some(Failure::Other { code: code as i32, message })
}

/// What trailers say; `None`: all is well.
pub(super) fn failure_of_trailers(trailers: &HeaderMap) -> Option<Failure> {
    if trailers.get(GRPC_STATUS).is_some_and(|status| status.as_bytes() == b"0") {
        return None;
    }
    let nothing = Failure::Malformed("the answer has no status".to_owned());
    Some(Status::from_header_map(trailers).map_or(nothing, |status| failure_of(&status)))
}

/// Whether a stream that ended with this error was surely not begun: the replica said GOAWAY before it, or refused it.
pub(super) fn was_not_run(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

fn lost(error: &h2::Error) -> Lost {
    if was_not_run(error) { Lost::NotRun } else { Lost::Unknown }
}
