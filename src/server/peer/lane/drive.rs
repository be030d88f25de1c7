//! The one task of a lane: connects, then turns what was forwarded into messages, and messages into outcomes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture};
use h2::{RecvStream, SendStream};
use http::{Request, StatusCode};
use prost::Message as _;
use tokio::time::{Instant, Sleep, sleep};

use super::{Batch, IDLE_TIMEOUT, Lane, Phase, Use};
use crate::ownership::message::Refusal;
use crate::rpc::http2::{Http2, Io, poll_send};
use crate::rpc::metadata::GRPC_STATUS;
use crate::rpc::peer::{hello_of, hello_to, stamp_of, stamp_to};
use crate::rpc::proto::peer::v1::{ForwardRequest, ForwardResponse, ForwardedAnswer};
use crate::server::codec::Messages;
use crate::server::codec::encode::put_number;
use crate::server::held::Held;
use crate::server::peer::client::Shared;
use crate::server::peer::desk::{Desk, Waiting};
use crate::server::peer::dial::{CONNECT_TIMEOUT, DialError, dial};
use crate::server::peer::error::ForwardError;
use crate::server::peer::outgoing::Outgoing;
use crate::server::peer::received::{EndedWell, Received};
use crate::server::peer::serve::{FORWARD_PATH, MAX_FORWARD_BYTES};

/// `ForwardRequest.waited_us`.
const WAITED_US: u32 = 5;

/// How a lane ended.
enum End {
    /// There was no connection.
    NotConnected(DialError),
    /// The other turned the stream down: nothing of it was begun.
    TurnedDown,
    /// The stream ended in good order: what has no answer was not begun.
    InOrder,
    /// It broke, or was cut.
    Broken,
}

/// A lane that is connected.
#[expect(clippy::struct_excessive_bools, reason = "four ends and beginnings that do not depend on each other")]
struct Driven<'a> {
    lane: &'a Lane,
    shared: &'a Shared,
    desk: Arc<dyn Desk>,
    connection: Connection<Io, Bytes>,
    /// The connection ended; what it brought may still be read.
    is_over: bool,
    outgoing: SendStream<Bytes>,
    /// Our side of the stream has ended.
    is_closed: bool,
    /// The message that is being sent, what is left of it.
    pieces: VecDeque<Bytes>,
    /// Its number.
    batch: u64,
    /// The last message that was handed to HTTP/2 whole.
    written: u64,
    said_hello: bool,
    incoming: Incoming,
    heard_hello: bool,
    accepting: Option<Accepting>,
    idle: Pin<Box<Sleep>>,
    /// The last batch when `idle` began.
    idle_batch: u64,
}

/// Answers whose stamp is being looked at.
type Accepting = (Waiting<Result<(), Refusal>>, Vec<ForwardedAnswer>);

enum Incoming {
    Head(ResponseFuture),
    Messages(Messages<Received>, EndedWell),
}

/// Ends the lane even if its task is dropped with its runtime.
struct Ending<'a> {
    lane: &'a Lane,
    written: u64,
    ended: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.lane.end(unknown_to(self.written), false);
        }
    }
}

/// When a connection breaks, forwards are unknown to the last message that was written, and refused beyond it.
fn unknown_to(written: u64) -> impl Fn(u64) -> ForwardError {
    move |batch| if batch <= written { ForwardError::Unknown } else { ForwardError::Refused }
}

/// Runs a lane to its end.
pub(in crate::server::peer) async fn run(lane: Arc<Lane>, shared: Arc<Shared>) {
    let mut ending = Ending { lane: &lane, written: 0, ended: false };
    let end = live(&lane, &shared, &mut ending.written).await;
    ending.ended = true;
    match end {
        End::NotConnected(error) => {
            shared.cannot_reach(&lane.to, &lane.address, &error);
            lane.end(|_| ForwardError::Refused, true);
        }
        End::TurnedDown => lane.end(|_| ForwardError::Refused, true),
        End::InOrder => lane.end(|_| ForwardError::Refused, false),
        End::Broken => {
            shared.stats.broken.fetch_add(1, Relaxed);
            lane.end(unknown_to(ending.written), false);
        }
    }
}

async fn live(lane: &Lane, shared: &Shared, written: &mut u64) -> End {
    let Some(desk) = shared.desk.get().cloned() else { return End::TurnedDown };
    let closing =
        poll_fn(|cx| if lane.register(cx.waker()) == Phase::Closing { Poll::Ready(()) } else { Poll::Pending });
    let (mut requests, connection): Http2 = tokio::select! {
        biased;
        () = closing => return End::Broken,
        dialled = dial(&lane.address, shared.config.tls.as_ref()) => match dialled {
            Ok(http2) => http2,
            Err(error) => return End::NotConnected(error),
        },
    };
    let uri = format!("http://{}{FORWARD_PATH}", lane.address);
    let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(());
    let Ok(request) = request else { return End::TurnedDown };
    let Ok((response, outgoing)) = requests.send_request(request, false) else { return End::TurnedDown };
    let mut driven = Driven {
        lane,
        shared,
        desk,
        connection,
        is_over: false,
        outgoing,
        is_closed: false,
        pieces: VecDeque::new(),
        batch: 0,
        written: 0,
        said_hello: false,
        incoming: Incoming::Head(response),
        heard_hello: false,
        accepting: None,
        // First for the greeting.
        idle: Box::pin(sleep(CONNECT_TIMEOUT)),
        idle_batch: 0,
    };
    let end = poll_fn(|cx| {
        let end = driven.poll(cx);
        *written = driven.written;
        end
    })
    .await;
    match end {
        End::Broken if !driven.heard_hello && lane.phase() != Phase::Closing => End::NotConnected(DialError::Ungreeted),
        end => end,
    }
}

impl Driven<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let phase = self.lane.register(cx.waker());
        if phase == Phase::Closing {
            return Poll::Ready(End::Broken);
        }
        self.poll_connection(cx);
        if let Poll::Ready(end) = self.poll_incoming(cx) {
            return Poll::Ready(end);
        }
        if self.is_over {
            // What came before the end counts, also while its stamp is being looked at.
            return if self.accepting.is_some() { Poll::Pending } else { Poll::Ready(End::Broken) };
        }
        // If it takes nothing more, what came last says why; that may have to wait for its stamp.
        if let Ok(true) = self.poll_outgoing(phase == Phase::Retiring, cx) {
            // Now, and not when the task has its next turn.
            self.poll_connection(cx);
        }
        self.poll_idle(cx)
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) {
        if !self.is_over {
            self.is_over = pin!(&mut self.connection).poll(cx).is_ready();
        }
    }

    /// A lane that nobody uses ends. One whose answers do not come although the deadlines of all callers have passed is cut, and so
    /// is one that the other does not let end.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while self.idle.as_mut().poll(cx).is_ready() {
            if !self.heard_hello {
                return Poll::Ready(End::NotConnected(DialError::Silent));
            }
            let (used, batch) = self.lane.use_since(self.idle_batch);
            match used {
                Use::Used => {}
                Use::Idle if self.is_closed => return Poll::Ready(End::InOrder),
                Use::Idle => self.lane.retire(),
                Use::Unanswered => return Poll::Ready(End::Broken),
            }
            self.idle_batch = batch;
            self.idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
        }
        Poll::Pending
    }

    /// Sends what waits to be sent, as far as the other takes it. Answers whether anything was.
    fn poll_outgoing(&mut self, retiring: bool, cx: &mut Context<'_>) -> Result<bool, h2::Error> {
        let mut sent = false;
        loop {
            let Some(piece) = self.pieces.front_mut() else {
                self.written = self.batch;
                if !self.said_hello {
                    self.greet();
                    continue;
                }
                if !self.heard_hello {
                    return Ok(sent);
                }
                match self.lane.next_batch() {
                    Some(batch) => self.begin(batch),
                    None if retiring && !self.is_closed => {
                        self.is_closed = true;
                        self.outgoing.send_data(Bytes::new(), true)?;
                        return Ok(true);
                    }
                    None => return Ok(sent),
                }
                continue;
            };
            match poll_send(&mut self.outgoing, piece, cx) {
                Poll::Pending => return Ok(sent),
                Poll::Ready(taken) => taken?,
            }
            sent = true;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// Before any call goes out the other must have greeted: so whoever is turned down, for its certificate or its cluster, knows
    /// that nothing was done.
    fn greet(&mut self) {
        self.said_hello = true;
        let mut message = Outgoing::default();
        let hello = Some(hello_to(&self.shared.config.cluster));
        // A growing buffer has room for every message.
        let _ = ForwardRequest { hello, ..Default::default() }.encode(message.buffer());
        self.pieces = message.finish();
    }

    /// Makes a batch the message that is being sent.
    fn begin(&mut self, batch: Batch) {
        let Batch { number, mut message, calls, began } = batch;
        let waited_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let stamp = Some(stamp_to(&self.desk.stamp(&self.lane.to)));
        let rest = ForwardRequest { stamp, ..Default::default() };
        put_number(WAITED_US, waited_us, message.buffer());
        message.buffer().reserve(rest.encoded_len());
        // A growing buffer has room for every message.
        let _ = rest.encode(message.buffer());
        self.pieces = message.finish();
        self.batch = number;
        self.shared.stats.messages.fetch_add(1, Relaxed);
        self.shared.stats.forwards.fetch_add(calls as u64, Relaxed);
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Some((accepting, answers)) = &mut self.accepting {
                let accepted = ready!(accepting.as_mut().poll(cx)).is_ok();
                let answers = std::mem::take(answers);
                self.accepting = None;
                self.lane.deliver(answers, accepted);
            }
            match &mut self.incoming {
                Incoming::Head(response) => match ready!(Pin::new(response).poll(cx)) {
                    Ok(response) => match begin(response) {
                        Some(messages) => self.incoming = messages,
                        None => return Poll::Ready(End::TurnedDown),
                    },
                    Err(_) => return Poll::Ready(End::Broken),
                },
                Incoming::Messages(messages, ended_well) => match ready!(messages.poll_next(cx, &self.shared.held)) {
                    Some(Ok(message)) => {
                        if let Some(end) = self.take(message) {
                            return Poll::Ready(end);
                        }
                    }
                    None if ended_well.get() => return Poll::Ready(End::InOrder),
                    None | Some(Err(_)) => return Poll::Ready(End::Broken),
                },
            }
        }
    }

    /// A message came. Answers how the lane ends, if it does.
    fn take(&mut self, message: Bytes) -> Option<End> {
        let Ok(message) = ForwardResponse::decode(message) else { return Some(End::Broken) };
        if !std::mem::replace(&mut self.heard_hello, true) {
            if message.refused != 0 {
                self.shared.turned_down(&self.lane.to, &self.lane.address, message.refused);
                return Some(End::TurnedDown);
            }
            if let Err(stranger) = hello_of(message.hello.as_ref(), &self.shared.config.cluster) {
                self.shared.stranger(&self.lane.to, &self.lane.address, &stranger);
                return Some(End::TurnedDown);
            }
        }
        if message.leaving {
            self.lane.retire();
        }
        if message.answers.is_empty() {
            return None;
        }
        let Ok(stamp) = stamp_of(message.stamp) else { return Some(End::Broken) };
        match self.desk.try_accept(&stamp) {
            Some(accepted) => self.lane.deliver(message.answers, accepted.is_ok()),
            None => self.accepting = Some((self.desk.accept(stamp), message.answers)),
        }
        None
    }
}

/// The messages of a stream that was taken; `None` if the other is no peer service.
fn begin(response: http::Response<RecvStream>) -> Option<Incoming> {
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK || head.headers.contains_key(GRPC_STATUS) {
        return None;
    }
    let (body, ended_well) = Received::new(body);
    let messages = Messages::new(&head.headers, body, MAX_FORWARD_BYTES).ok()?;
    Some(Incoming::Messages(messages, ended_well))
}

/// Bytes that all lanes may hold of messages that have not come whole.
pub(in crate::server::peer) fn held() -> Arc<Held> {
    /// A message each of a few hundred members at once.
    const MAX_HELD_BYTES: u64 = 256 * 1024 * 1024;
    Held::new(MAX_HELD_BYTES)
}
