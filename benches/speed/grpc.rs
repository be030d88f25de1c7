//! gRPC callers on the bare `h2` crate: as cheap as can be, and the same for every gRPC peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request};
use larder::rpc::proto::v1;
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::latency::Latencies;
use crate::load::{Job, Meter, Protocol, Shape, Share, Target, Verb};
use crate::value::Values;

/// Windows wide enough that flow control is never what is measured.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How many stores are in flight while a server is filled.
const FILL: Shape = Shape { connections: 1, in_flight: 32 };

/// One caller: a place among the requests in flight of a connection.
struct Caller {
    connection: SendRequest<Bytes>,
    request: Request<()>,
    messages: Arc<Vec<Bytes>>,
    job: Job,
    constant: bool,
    index: usize,
    meter: Arc<Meter>,
    latencies: Latencies,
}

/// Stores all values, each once.
pub async fn fill(address: SocketAddr, token: &str, values: Values) -> Result<(), String> {
    let job = Job { verb: Verb::Store, values, shape: FILL };
    let (messages, connection) = (messages(job), connect(address).await?);
    let request = request(address, token, job.verb)?;
    let mut stores = JoinSet::new();
    for message in messages.iter().cloned() {
        if stores.len() >= FILL.in_flight {
            stores.join_next().await.ok_or("no store to wait for")?.map_err(|error| error.to_string())??;
        }
        let (connection, request) = (connection.clone(), request.clone());
        stores.spawn(async move { unary(&connection, &request, message).await.map(drop) });
    }
    while let Some(stored) = stores.join_next().await {
        stored.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Keeps `connections` connections busy until the meter says stop; the latencies of each caller.
pub async fn call(target: &Target, job: Job, share: Share, meter: &Arc<Meter>) -> Result<Vec<Latencies>, String> {
    let Protocol::Grpc { token, constant } = &target.protocol else {
        return Err("this server does not speak gRPC".into());
    };
    let messages = messages(job);
    let callers_each = if job.verb == Verb::Pipeline { 1 } else { job.shape.in_flight };
    let mut callers = JoinSet::new();
    for connection_number in 0..share.connections {
        let connection = connect(target.address).await?;
        meter.connected();
        for number in 0..callers_each {
            let caller = Caller {
                connection: connection.clone(),
                request: request(target.address, token, job.verb)?,
                messages: Arc::clone(&messages),
                job,
                constant: *constant,
                index: (share.seed + connection_number * 131 + number * 17) % job.values.keys,
                meter: Arc::clone(meter),
                latencies: Latencies::default(),
            };
            callers.spawn(caller.run());
        }
    }
    let mut latencies = Vec::new();
    while let Some(caller) = callers.join_next().await {
        latencies.push(caller.map_err(|error| error.to_string())??);
    }
    Ok(latencies)
}

/// A connection whose driver runs on this thread.
pub async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>, String> {
    let socket = TcpStream::connect(address).await.map_err(|error| format!("connect {address}: {error}"))?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let (sender, connection) = builder.handshake(socket).await.map_err(|error| format!("HTTP/2: {error}"))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One call: its whole answer without the frame's prefix, or why there is none.
pub async fn unary(connection: &SendRequest<Bytes>, request: &Request<()>, message: Bytes) -> Result<Bytes, String> {
    let mut ready = connection.clone().ready().await.map_err(|error| format!("connection: {error}"))?;
    let (response, mut body) =
        ready.send_request(request.clone(), false).map_err(|error| format!("request: {error}"))?;
    body.send_data(message, true).map_err(|error| format!("request body: {error}"))?;
    let (head, mut body) = response.await.map_err(|error| format!("response: {error}"))?.into_parts();
    if head.headers.contains_key("grpc-status") {
        check_status(&head.headers)?;
    }
    let mut first = next_data(&mut body).await?.unwrap_or_default();
    while let Some(more) = next_data(&mut body).await? {
        first = [first, more].concat().into();
    }
    check_status(&body.trailers().await.map_err(|error| format!("trailers: {error}"))?.unwrap_or_default())?;
    take_frame(first)
}

impl Caller {
    async fn run(mut self) -> Result<Latencies, String> {
        match self.job.verb {
            Verb::Pipeline => self.run_pipeline().await?,
            Verb::Get | Verb::Store => self.run_unary().await?,
        }
        Ok(self.latencies)
    }

    async fn run_unary(&mut self) -> Result<(), String> {
        while !self.meter.stopped() {
            let recording = self.meter.sending(1);
            let asked = Instant::now();
            let answer = unary(&self.connection, &self.request, self.messages[self.index].clone()).await?;
            if recording {
                self.latencies.record(asked.elapsed());
            }
            self.check(answer)?;
            self.meter.answered(1);
            self.index = self.job.values.next(self.index);
        }
        Ok(())
    }

    fn check(&self, answer: Bytes) -> Result<(), String> {
        if self.job.verb == Verb::Store {
            let stored = v1::StoreResponse::decode(answer).map_err(|error| error.to_string())?;
            return if stored.version == 0 { Err("a store answered version 0".into()) } else { Ok(()) };
        }
        let got = v1::GetResponse::decode(answer).map_err(|error| error.to_string())?;
        self.job.values.check(self.index, self.constant, &got.val)
    }

    /// A window of calls in one message; the next when all are answered.
    async fn run_pipeline(&mut self) -> Result<(), String> {
        let mut ready = self.connection.clone().ready().await.map_err(|error| format!("connection: {error}"))?;
        let (response, mut requests) =
            ready.send_request(self.request.clone(), false).map_err(|error| format!("request: {error}"))?;
        let mut window = self.job.shape.in_flight;
        let mut recording = self.meter.sending(window);
        let mut asked = Instant::now();
        requests.send_data(self.next_window(), false).map_err(|error| format!("request body: {error}"))?;
        let (head, mut body) = response.await.map_err(|error| format!("response: {error}"))?.into_parts();
        if head.headers.contains_key("grpc-status") {
            check_status(&head.headers)?;
        }
        let mut frames = Vec::new();
        let mut partial = BytesMut::new();
        loop {
            let data = next_data(&mut body).await?.ok_or("the stream ended before its calls were answered")?;
            partial.extend_from_slice(&data);
            while let Some(frame) = whole_frame(&mut partial) {
                frames.push(frame);
            }
            for frame in frames.drain(..) {
                window -= self.check_results(frame)?;
            }
            if window > 0 {
                continue;
            }
            if recording {
                self.latencies.record(asked.elapsed());
            }
            self.meter.answered(self.job.shape.in_flight);
            if self.meter.stopped() {
                return Ok(());
            }
            window = self.job.shape.in_flight;
            recording = self.meter.sending(window);
            asked = Instant::now();
            requests.send_data(self.next_window(), false).map_err(|error| format!("request body: {error}"))?;
        }
    }

    fn next_window(&mut self) -> Bytes {
        let mut calls = BytesMut::new();
        for _ in 0..self.job.shape.in_flight {
            calls.extend_from_slice(&self.messages[self.index]);
            self.index = self.job.values.next(self.index);
        }
        framed(&calls)
    }

    /// Checks every result against the key that its id names.
    fn check_results(&self, frame: Bytes) -> Result<usize, String> {
        let response = v1::PipelineResponse::decode(frame).map_err(|error| error.to_string())?;
        for result in &response.results {
            let Some(v1::pipeline_result::Result::Get(got)) = &result.result else {
                return Err(format!("a pipelined get was answered {:?}", result.result));
            };
            let index =
                usize::try_from(result.id).unwrap_or_default().checked_sub(1).ok_or("a result without an id")?;
            self.job.values.check(index, self.constant, &got.val)?;
        }
        Ok(response.results.len())
    }
}

/// The request message of every key, encoded beforehand: framed for unary calls, a field of `PipelineRequest` for a pipeline.
fn messages(job: Job) -> Arc<Vec<Bytes>> {
    let values = job.values;
    let message = |index: usize| {
        let key = values.key(index);
        match job.verb {
            Verb::Get => framed(&v1::GetRequest { key }.encode_to_vec()),
            Verb::Store => {
                let val = values.value(index);
                framed(&v1::StoreRequest { key, val, ..Default::default() }.encode_to_vec())
            }
            Verb::Pipeline => {
                let operation = Some(v1::pipeline_call::Operation::Get(v1::GetRequest { key }));
                let call = v1::PipelineCall { id: index as u64 + 1, context: None, operation };
                v1::PipelineRequest { calls: vec![call] }.encode_to_vec().into()
            }
        }
    };
    Arc::new((0..values.keys).map(message).collect())
}

fn request(address: SocketAddr, token: &str, verb: Verb) -> Result<Request<()>, String> {
    request_to(address, &format!("/larder.v1.Cache/{}", verb.name()), token)
}

/// The head of a call: what a careful client sends, a deadline and a token among it.
pub fn request_to(address: SocketAddr, path: &str, token: &str) -> Result<Request<()>, String> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "10S")
        .header("authorization", format!("Bearer {token}"))
        .body(())
        .map_err(|error| error.to_string())
}

/// A message behind its gRPC prefix: not compressed, length.
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    frame.freeze()
}

fn take_frame(mut answer: Bytes) -> Result<Bytes, String> {
    if answer.len() < 5 || answer[0] != 0 {
        return Err("the answer is not one uncompressed message".into());
    }
    answer.advance(1);
    let length = answer.get_u32() as usize;
    if answer.len() == length { Ok(answer) } else { Err("the answer is cut short".into()) }
}

fn whole_frame(partial: &mut BytesMut) -> Option<Bytes> {
    let length = partial.get(1..5)?.try_into().map(u32::from_be_bytes).ok()? as usize;
    if partial.len() < 5 + length {
        return None;
    }
    partial.advance(5);
    Some(partial.split_to(length).freeze())
}

async fn next_data(body: &mut RecvStream) -> Result<Option<Bytes>, String> {
    let Some(data) = body.data().await.transpose().map_err(|error| format!("response body: {error}"))? else {
        return Ok(None);
    };
    body.flow_control().release_capacity(data.len()).map_err(|error| format!("flow control: {error}"))?;
    Ok(Some(data))
}

fn check_status(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).map_or("-", |value| value.to_str().unwrap_or("?")).to_owned();
    match text("grpc-status").as_str() {
        "0" => Ok(()),
        code => Err(format!("answered with grpc-status {code}: {}", text("grpc-message"))),
    }
}
