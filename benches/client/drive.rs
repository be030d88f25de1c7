//! The gRPC clients of the comparison (`benches/compare`): ours, and tonic's as it comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::client::{Client, Config, Routing, StoreOptions, Target};
use larder::rpc::proto::v1;
use larder::rpc::proto::v1::cache_client::CacheClient;
use larder::rpc::proto::v1::pipeline_call::Operation;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use crate::loops::{Caller, Plan, Verb};

/// How long a call of a stock client may take; ours has the same by default.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What is called, the same for all callers.
struct Shared {
    plan: Plan,
    keys: Vec<String>,
    value: Bytes,
    token: String,
}

/// A caller of our client.
struct Ours {
    client: Client,
    shared: Arc<Shared>,
}

/// A caller on tonic's channel, with generated code.
struct Stock {
    client: CacheClient<Channel>,
    shared: Arc<Shared>,
}

/// A pipeline by hand, with generated code: a window of calls in one message, the next when all are answered.
struct ByHand {
    requests: mpsc::Sender<v1::PipelineRequest>,
    answers: Streaming<v1::PipelineResponse>,
    shared: Arc<Shared>,
}

/// Drives the client that is named.
#[expect(clippy::disallowed_methods, reason = "a token is no argument, which everybody on the machine can read")]
pub fn drive(kind: &str, words: impl Iterator<Item = String>) -> Result<String, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let plan = Plan::of(words)?;
    let token = std::env::var("LARDER_TOKEN").map_err(|_| "LARDER_TOKEN is missing".to_owned())?;
    let shared = Arc::new(Shared {
        keys: plan.all_keys(),
        value: Bytes::from(vec![b'x'; plan.bytes]),
        token,
        plan: plan.clone(),
    });
    runtime.block_on(async {
        match kind {
            "larder" | "larder-unary" => ours(kind == "larder-unary", plan, shared).await,
            "tonic" => {
                let mut callers = Vec::new();
                for number in 0..plan.connections {
                    let client = shared.stock(number).await?;
                    callers.extend(
                        (0..plan.window).map(|_| Stock { client: client.clone(), shared: Arc::clone(&shared) }),
                    );
                }
                plan.drive(callers).await
            }
            "tonic-pipeline" => {
                let mut callers = Vec::new();
                for number in 0..plan.connections {
                    callers.push(ByHand::open(&shared, number).await?);
                }
                plan.drive(callers).await
            }
            other => Err(format!("{other}: larder, larder-unary, tonic or tonic-pipeline")),
        }
    })
}

async fn ours(unary: bool, plan: Plan, shared: Arc<Shared>) -> Result<String, String> {
    let seeds: Result<Vec<Target>, String> =
        plan.address.split(',').map(|seed| seed.parse().map_err(|error| format!("{seed}: {error}"))).collect();
    let seeds = seeds?;
    let config = Config {
        token: Some(shared.token.parse().map_err(|error| format!("token: {error}"))?),
        connections: plan.connections,
        routing: if seeds.len() == 1 { Routing::Seeds } else { Routing::Owners },
        unary,
        ..Config::with_seeds(seeds)
    };
    let client = Client::new(config).map_err(|error| error.to_string())?;
    if plan.verb == Verb::Fill {
        for key in &shared.keys {
            let stored = client.store(key, shared.value.clone(), StoreOptions::default()).await;
            stored.map_err(|error| error.to_string())?;
        }
        return Ok("{}".to_owned());
    }
    let callers =
        (0..plan.connections * plan.window).map(|_| Ours { client: client.clone(), shared: Arc::clone(&shared) });
    let callers = callers.collect();
    plan.drive(callers).await
}

impl Shared {
    /// A channel as anybody makes one, to one server after the other.
    async fn stock(&self, number: usize) -> Result<CacheClient<Channel>, String> {
        let address = self.plan.address.split(',').cycle().nth(number).unwrap_or_default();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
        Ok(CacheClient::new(endpoint.connect().await.map_err(|error| error.to_string())?))
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, String> {
        let mut request = Request::new(message);
        let header = MetadataValue::try_from(format!("Bearer {}", self.token)).map_err(|error| error.to_string())?;
        request.metadata_mut().insert("authorization", header);
        Ok(request)
    }

    fn get(&self, index: usize) -> v1::GetRequest {
        v1::GetRequest { key: self.keys[index].clone() }
    }

    fn store(&self, index: usize) -> v1::StoreRequest {
        v1::StoreRequest { key: self.keys[index].clone(), val: self.value.clone(), ..Default::default() }
    }

    fn check(&self, bytes: usize) -> Result<(), String> {
        if bytes == self.value.len() { Ok(()) } else { Err(format!("a value of {bytes} bytes")) }
    }
}

impl Caller for Ours {
    async fn call(&mut self, index: usize) -> Result<usize, String> {
        let key = &self.shared.keys[index];
        if self.shared.plan.reads(index) {
            let got = self.client.get(key).await.map_err(|error| error.to_string())?.ok_or("a key is missing")?;
            self.shared.check(got.value.len())?;
        } else {
            let stored = self.client.store(key, self.shared.value.clone(), StoreOptions::default()).await;
            stored.map_err(|error| error.to_string())?;
        }
        Ok(1)
    }
}

impl Caller for Stock {
    async fn call(&mut self, index: usize) -> Result<usize, String> {
        if self.shared.plan.reads(index) {
            let mut request = self.shared.request(self.shared.get(index))?;
            request.set_timeout(TIMEOUT);
            let got = self.client.get(request).await.map_err(|error| error.to_string())?;
            self.shared.check(got.into_inner().val.len())?;
        } else {
            let mut request = self.shared.request(self.shared.store(index))?;
            request.set_timeout(TIMEOUT);
            self.client.store(request).await.map_err(|error| error.to_string())?;
        }
        Ok(1)
    }
}

impl ByHand {
    async fn open(shared: &Arc<Shared>, number: usize) -> Result<Self, String> {
        let mut client = shared.stock(number).await?;
        let (requests, sent) = mpsc::channel(1);
        let request = shared.request(ReceiverStream::new(sent))?;
        let answers = client.pipeline(request).await.map_err(|error| error.to_string())?.into_inner();
        Ok(Self { requests, answers, shared: Arc::clone(shared) })
    }
}

impl Caller for ByHand {
    async fn call(&mut self, index: usize) -> Result<usize, String> {
        let (shared, mut at) = (&self.shared, index);
        let context = Some(v1::CallContext { timeout_ms: 1_000, ..Default::default() });
        let mut calls = Vec::with_capacity(shared.plan.window);
        for id in 1..=shared.plan.window as u64 {
            let operation =
                if shared.plan.reads(at) { Operation::Get(shared.get(at)) } else { Operation::Store(shared.store(at)) };
            calls.push(v1::PipelineCall { id, context: context.clone(), operation: Some(operation) });
            at = shared.plan.next(at);
        }
        self.requests.send(v1::PipelineRequest { calls }).await.map_err(|error| error.to_string())?;
        let mut left = shared.plan.window;
        while left > 0 {
            let answer = self.answers.message().await.map_err(|error| error.to_string())?.ok_or("the stream ended")?;
            for result in &answer.results {
                match &result.result {
                    Some(v1::pipeline_result::Result::Get(got)) => shared.check(got.val.len())?,
                    Some(v1::pipeline_result::Result::Store(_)) => {}
                    other => return Err(format!("answered {other:?}")),
                }
            }
            left -= answer.results.len();
        }
        Ok(shared.plan.window)
    }
}
