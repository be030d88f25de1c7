//! The one task of a lane: connects, then turns calls into messages, and messages into answers.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, RecvStream, SendStream};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::{Lane, Look, Lost, Phase, Ready, answers};
use crate::cache::limits::STOCK_MESSAGE_BYTES;
use crate::client::dial::dial;
use crate::client::operation::Answer;
use crate::client::place::Place;
use crate::client::stream::{self, failure_of_trailers, request_head};
use crate::rpc::failure::Failure;
use crate::rpc::frames::Frames;
use crate::rpc::http2::{Io, poll_send};

/// A connection is made, TLS and a first round trip included, within this time.
pub(in crate::client) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A lane on which nothing is called for this long ends: an idle connection costs its replica memory.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// While something is under way: how often a lane looks after its replica.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// After how long a silence it is asked whether it lives.
const PING_AFTER: Duration = Duration::from_millis(750);

/// How long the answer may take. With the looks in between a silent replica is noticed within 2.5 s.
const PING_TIMEOUT: Duration = Duration::from_millis(1250);

/// `PipelineResponse` is at most a stock message.
const MAX_MESSAGE_BYTES: usize = STOCK_MESSAGE_BYTES;

const PIPELINE: &str = "/larder.v1.Cache/Pipeline";

/// How a lane ended.
enum End {
    /// There was no connection.
    NotConnected(Arc<str>),
    /// The pipeline ended in good order: what has no answer was not carried out.
    InOrder,
    /// The replica ended it with an error, which is the answer of what has no other.
    Refused(Failure),
    /// It broke, or was cut.
    Broken,
    /// Nothing is heard of the replica any more.
    Silent,
}

/// A lane that is connected.
struct Driven<'a> {
    lane: &'a Lane,
    place: &'a Arc<Place>,
    connection: Connection<Io, Bytes>,
    requests: SendRequest<Bytes>,
    /// The connection ended; what it brought may still be read.
    is_over: bool,
    pipeline: Option<Pipeline>,
    /// The pipeline has ended; streams of their own go on.
    lingers: bool,
    /// The last message that was handed to HTTP/2.
    written: u64,
    pulse: Pulse,
    due: Due,
    idle: Pin<Box<Sleep>>,
    /// The last message when `idle` began.
    idle_batch: u64,
    answers: Vec<(u64, Answer)>,
}

/// The stream of small calls.
struct Pipeline {
    outgoing: SendStream<Bytes>,
    /// Our side of it has ended.
    is_closed: bool,
    /// What is left of the message that is being sent, and its number.
    rest: Bytes,
    batch: u64,
    incoming: Incoming,
}

enum Incoming {
    Head(ResponseFuture),
    Body { stream: RecvStream, frames: Frames, data_ended: bool },
}

/// Ends the calls whose deadline passes.
struct Due {
    timer: Pin<Box<Sleep>>,
    /// When it fires, if it is to.
    armed: Option<Instant>,
}

/// Whether the replica lives.
struct Pulse {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    is_looking: bool,
    heard: Instant,
    asked: Option<Instant>,
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
            self.lane.end(unknown_to(self.written), Lost::NotRun);
        }
    }
}

/// When a connection breaks, calls are unknown to the last message that was written, and were not sent beyond it.
fn unknown_to(written: u64) -> impl Fn(u64) -> super::slots::Outcome {
    move |message| Err(if message <= written { Lost::Unknown } else { Lost::NotRun })
}

/// Runs a lane to its end.
pub(in crate::client) async fn run(lane: Arc<Lane>, place: Arc<Place>) {
    let mut ending = Ending { lane: &lane, written: 0, ended: false };
    let connected = tokio::select! {
        biased;
        () = closing(&lane) => None,
        connected = timeout(CONNECT_TIMEOUT, connect(&place)) => {
            Some(connected.unwrap_or_else(|_| Err("no connection within a second".to_owned())))
        }
    };
    let (requests, connection, pings) = match connected {
        Some(Ok(connected)) => connected,
        Some(Err(problem)) => {
            ending.ended = true;
            return settle(&lane, &place, End::NotConnected(problem.into()), 0);
        }
        None => return,
    };
    place.reached();
    lane.ready.send_replace(Ready::Open(requests.clone()));
    let mut driven = Driven::new(&lane, &place, connection, requests, pings);
    let end = poll_fn(|cx| {
        let end = driven.poll(cx);
        ending.written = driven.written;
        end
    })
    .await;
    ending.ended = true;
    let goes_on = matches!(end, End::InOrder | End::Refused(_)) && !driven.is_over;
    settle(&lane, &place, end, driven.written);
    if goes_on {
        driven.lingers = true;
        driven.pipeline = None;
        poll_fn(|cx| driven.poll(cx)).await;
    }
}

/// Tells the callers, and the place.
fn settle(lane: &Lane, place: &Arc<Place>, end: End, written: u64) {
    match end {
        End::NotConnected(problem) => {
            place.not_reached(&problem);
            let lost = Lost::Unreachable(problem);
            lane.end(|_| Err(lost.clone()), lost.clone());
        }
        End::InOrder => lane.end(|_| Err(Lost::NotRun), Lost::NotRun),
        End::Refused(failure) => lane.end(|_| Ok(Answer::Failed(failure.clone())), Lost::NotRun),
        End::Broken => lane.end(unknown_to(written), Lost::NotRun),
        End::Silent => {
            place.not_reached(&Arc::from("it is silent"));
            lane.end(unknown_to(written), Lost::NotRun);
        }
    }
}

/// Waits until the lane is to be cut; until then calls end at their deadlines.
async fn closing(lane: &Lane) {
    let mut due = Due::new();
    poll_fn(|cx| {
        let look = lane.register(cx.waker());
        due.poll(lane, look.next_due, cx);
        if look.phase == Phase::Closing { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A connection over which the replica has answered: so whoever is no Larder, or does not want this client, is found before
/// anything is called.
async fn connect(place: &Place) -> Result<(SendRequest<Bytes>, Connection<Io, Bytes>, PingPong), String> {
    let (requests, mut connection) = dial(&place.target, place.tls()).await?;
    let mut pings = connection.ping_pong().ok_or("no connection")?;
    pings.send_ping(Ping::opaque()).map_err(|error| error.to_string())?;
    let ended = |error: Option<h2::Error>| {
        let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
        format!("it ended the connection before it said anything{error}")
    };
    poll_fn(|cx| {
        if let Poll::Ready(end) = pin!(&mut connection).poll(cx) {
            return Poll::Ready(Err(ended(end.err())));
        }
        pings.poll_pong(cx).map(|pong| pong.map(drop).map_err(|error| ended(Some(error))))
    })
    .await?;
    Ok((requests, connection, pings))
}

impl<'a> Driven<'a> {
    fn new(
        lane: &'a Lane,
        place: &'a Arc<Place>,
        connection: Connection<Io, Bytes>,
        requests: SendRequest<Bytes>,
        pings: PingPong,
    ) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep(LOOK_INTERVAL));
        Self {
            lane,
            place,
            connection,
            requests,
            is_over: false,
            pipeline: None,
            lingers: false,
            written: 0,
            pulse: Pulse { pings, timer, is_looking: false, heard: now, asked: None },
            due: Due::new(),
            idle: Box::pin(sleep(IDLE_TIMEOUT)),
            idle_batch: 0,
            answers: Vec::new(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let look = self.lane.register(cx.waker());
        if look.phase == Phase::Closing {
            return Poll::Ready(End::Broken);
        }
        self.poll_connection(cx);
        self.pulse.poll_pong(cx);
        if let Poll::Ready(end) = self.poll_incoming(cx) {
            return Poll::Ready(end);
        }
        if self.is_over {
            return Poll::Ready(End::Broken);
        }
        if self.lingers && self.lane.streams() == 0 {
            return Poll::Ready(End::InOrder);
        }
        if !self.lingers {
            match self.poll_outgoing(look.phase == Phase::Retiring, cx) {
                Err(end) => return Poll::Ready(end),
                // Now, and not when the task has its next turn.
                Ok(true) => self.poll_connection(cx),
                Ok(false) => {}
            }
        }
        self.poll_timers(&look, cx)
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) {
        if !self.is_over {
            self.is_over = pin!(&mut self.connection).poll(cx).is_ready();
        }
    }

    /// Sends what waits to be sent, as far as the replica takes it. Answers whether anything was.
    fn poll_outgoing(&mut self, retiring: bool, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut sent = false;
        loop {
            if self.pipeline.is_none() {
                if !self.lane.has_batches() {
                    return if retiring { Err(End::InOrder) } else { Ok(sent) };
                }
                match self.requests.poll_ready(cx) {
                    Poll::Pending => return Ok(sent),
                    Poll::Ready(Err(error)) if stream::was_not_run(&error) => return Err(End::InOrder),
                    Poll::Ready(Err(_)) => return Err(End::Broken),
                    Poll::Ready(Ok(())) => self.open()?,
                }
            }
            let Some(pipeline) = &mut self.pipeline else { return Ok(sent) };
            if pipeline.rest.is_empty() {
                self.written = pipeline.batch;
                match self.lane.next_batch() {
                    Some((number, message)) => {
                        (pipeline.batch, pipeline.rest) = (number, message);
                        self.place.sent(self.lane.number);
                    }
                    None if retiring && !pipeline.is_closed && !self.lane.has_batches() => {
                        pipeline.is_closed = true;
                        return pipeline.outgoing.send_data(Bytes::new(), true).map(|()| true).map_err(|_| End::Broken);
                    }
                    None => return Ok(sent),
                }
            }
            match poll_send(&mut pipeline.outgoing, &mut pipeline.rest, cx) {
                Poll::Pending => return Ok(sent),
                Poll::Ready(Ok(())) => sent = true,
                // What the stream has to say about it is read first.
                Poll::Ready(Err(_)) => return if self.is_over { Err(End::Broken) } else { Ok(sent) },
            }
        }
    }

    fn open(&mut self) -> Result<(), End> {
        let head = request_head(&self.place.target, PIPELINE, None, self.lane.authorization());
        let opened = head.ok().map(|head| self.requests.send_request(head, false));
        match opened {
            Some(Ok((response, outgoing))) => {
                let incoming = Incoming::Head(response);
                let rest = Bytes::new();
                self.pipeline = Some(Pipeline { outgoing, is_closed: false, rest, batch: self.written, incoming });
                Ok(())
            }
            Some(Err(_)) => Err(End::InOrder),
            None => Err(End::Refused(Failure::Internal)),
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let Some(pipeline) = &mut self.pipeline else { return Poll::Pending };
            match &mut pipeline.incoming {
                Incoming::Head(response) => match ready!(Pin::new(response).poll(cx)) {
                    Ok(response) => {
                        if let Some(failure) = stream::refusal(response.status(), response.headers()) {
                            return Poll::Ready(End::Refused(failure));
                        }
                        let frames = Frames::new(MAX_MESSAGE_BYTES);
                        let stream = response.into_body();
                        pipeline.incoming = Incoming::Body { stream, frames, data_ended: false };
                    }
                    Err(error) => return Poll::Ready(end_of(&error)),
                },
                Incoming::Body { stream, data_ended: true, .. } => {
                    return Poll::Ready(match ready!(stream.poll_trailers(cx)) {
                        Ok(Some(trailers)) => match failure_of_trailers(&trailers) {
                            None => End::InOrder,
                            Some(failure) => End::Refused(failure),
                        },
                        Ok(None) => End::Broken,
                        Err(error) => end_of(&error),
                    });
                }
                Incoming::Body { stream, frames, data_ended } => match ready!(stream.poll_data(cx)) {
                    Some(Ok(data)) => {
                        // What is read is bounded by the calls in flight, not by the window.
                        let _ = stream.flow_control().release_capacity(data.len());
                        frames.push(data);
                        if self.take().is_err() {
                            return Poll::Ready(End::Broken);
                        }
                    }
                    Some(Err(error)) => return Poll::Ready(end_of(&error)),
                    None => *data_ended = true,
                },
            }
        }
    }

    /// Hands over whatever came whole.
    fn take(&mut self) -> Result<(), answers::Malformed> {
        let Some(Pipeline { incoming: Incoming::Body { frames, .. }, .. }) = &mut self.pipeline else { return Ok(()) };
        self.pulse.heard();
        while let Some(message) = frames.take().map_err(|_| answers::Malformed)? {
            let answers = &mut self.answers;
            let said = answers::read(message, |id, answer| answers.push((id, answer)))?;
            if said.drains {
                self.lane.retire();
            }
            if said.topology != 0 {
                self.place.hint(said.topology);
            }
        }
        self.lane.deliver(&mut self.answers);
        Ok(())
    }

    fn poll_timers(&mut self, look: &Look, cx: &mut Context<'_>) -> Poll<End> {
        let streams = self.lane.streams();
        if self.pulse.poll(look.under_way + streams > 0, cx).is_ready() {
            return Poll::Ready(End::Silent);
        }
        self.due.poll(self.lane, look.next_due, cx);
        while self.idle.as_mut().poll(cx).is_ready() {
            let last = self.lane.last_batch();
            if look.under_way + streams == 0 && last == self.idle_batch {
                self.lane.retire();
                cx.waker().wake_by_ref();
            }
            self.idle_batch = last;
            self.idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
        }
        Poll::Pending
    }
}

impl Due {
    fn new() -> Self {
        Self { timer: Box::pin(sleep(IDLE_TIMEOUT)), armed: None }
    }

    fn poll(&mut self, lane: &Lane, next: Option<Instant>, cx: &mut Context<'_>) {
        if self.armed != next {
            self.arm(next);
        }
        while self.armed.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.arm(lane.expire(Instant::now()));
        }
    }

    fn arm(&mut self, at: Option<Instant>) {
        self.armed = at;
        if let Some(at) = at {
            self.timer.as_mut().reset(at);
        }
    }
}

impl Pulse {
    fn heard(&mut self) {
        self.heard = Instant::now();
    }

    fn poll_pong(&mut self, cx: &mut Context<'_>) {
        if self.asked.is_some() && self.pings.poll_pong(cx).is_ready() {
            self.asked = None;
            self.heard();
        }
    }

    /// Ready when the replica is silent.
    fn poll(&mut self, is_needed: bool, cx: &mut Context<'_>) -> Poll<()> {
        if !is_needed {
            self.is_looking = false;
            return Poll::Pending;
        }
        if !std::mem::replace(&mut self.is_looking, true) {
            self.heard();
            // One that was asked before and not waited for is waited for from now.
            self.asked = self.asked.map(|_| self.heard);
            self.timer.as_mut().reset(Instant::now() + LOOK_INTERVAL);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match self.asked {
                Some(asked) if now - asked >= PING_TIMEOUT => return Poll::Ready(()),
                None if now - self.heard >= PING_AFTER && self.pings.send_ping(Ping::opaque()).is_ok() => {
                    self.asked = Some(now);
                    // Its answer wakes this task; the question itself goes out now.
                    self.poll_pong(cx);
                    cx.waker().wake_by_ref();
                }
                _ => {}
            }
            self.timer.as_mut().reset(now + LOOK_INTERVAL);
        }
        Poll::Pending
    }
}

/// What an error of the stream means to its calls.
fn end_of(error: &h2::Error) -> End {
    if stream::was_not_run(error) { End::InOrder } else { End::Broken }
}
