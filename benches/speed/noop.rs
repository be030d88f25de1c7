//! The peers that Larder is held against: tonic servers of the same contract that look nothing up. Every `Get` is answered
//! with one constant value, so what is measured is gRPC itself.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::thread;

use bytes::Bytes;
use larder::rpc::coalesce::Coalesce;
use larder::rpc::proto::v1;
use larder::rpc::proto::v1::cache_server::{Cache, CacheServer};
use larder::rpc::proto::v1::pipeline_call::Operation;
use larder::rpc::proto::v1::pipeline_result::Result as PipelineAnswer;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::value::Values;

/// New connections that wait for a worker.
const HAND_OVER: usize = 64;

/// What the server runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// A `current_thread` runtime per worker and write-coalescing IO: what Larder runs on.
    PerCore,
    /// The `multi_thread` runtime of `#[tokio::main]`, and the socket itself: what one gets by default.
    Default,
}

struct Noop {
    value: Bytes,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves until standard input ends, which it does when the parent is gone. The first line of output is the address.
pub fn serve(runtime: Runtime, threads: usize, values: Values) -> io::Result<()> {
    let noop = move || CacheServer::new(Noop { value: values.value(0) });
    match runtime {
        Runtime::PerCore => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            announce(listener.local_addr()?)?;
            let workers = (0..threads).map(|_| per_core_worker(noop())).collect::<io::Result<Vec<_>>>()?;
            thread::spawn(move || hand_over(&listener, &workers));
        }
        Runtime::Default => {
            let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
            let incoming = {
                let _guard = runtime.enter();
                TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?.with_nodelay(Some(true))
            };
            announce(incoming.local_addr()?)?;
            thread::spawn(move || runtime.block_on(Server::builder().serve_with_incoming(noop(), incoming)));
        }
    }
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

fn announce(address: SocketAddr) -> io::Result<()> {
    writeln!(io::stdout(), "{address}")?;
    io::stdout().flush()
}

/// Accepts, and gives the connections to the workers in turn.
fn hand_over(listener: &TcpListener, workers: &[mpsc::Sender<TcpStream>]) -> io::Result<()> {
    for worker in workers.iter().cycle() {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        worker.blocking_send(socket).map_err(io::Error::other)?;
    }
    Ok(())
}

fn per_core_worker(noop: CacheServer<Noop>) -> io::Result<mpsc::Sender<TcpStream>> {
    let (sender, receiver) = mpsc::channel(HAND_OVER);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        let incoming =
            ReceiverStream::new(receiver).map(|socket| tokio::net::TcpStream::from_std(socket).map(Coalesce::new));
        runtime.block_on(Server::builder().serve_with_incoming(noop, incoming))
    });
    Ok(sender)
}

#[async_trait]
impl Cache for Noop {
    type BatchGetStream = Answers<v1::BatchGetResponse>;
    type BatchStoreStream = Answers<v1::BatchStoreResponse>;
    type BatchDeleteStream = Answers<v1::BatchDeleteResponse>;
    type ClearStream = Answers<v1::ClearResponse>;
    type DeletePrefixStream = Answers<v1::DeletePrefixResponse>;
    type DumpStream = Answers<v1::DumpItem>;
    type PipelineStream = Answers<v1::PipelineResponse>;

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        Ok(Response::new(v1::GetResponse { val: self.value.clone(), version: 1, remaining_ttl_ms: 0 }))
    }

    async fn store(&self, _: Request<v1::StoreRequest>) -> Result<Response<v1::StoreResponse>, Status> {
        Ok(Response::new(v1::StoreResponse { version: 1 }))
    }

    async fn pipeline(
        &self,
        request: Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let value = self.value.clone();
        let answer = move |call: v1::PipelineCall| v1::PipelineResult {
            id: call.id,
            result: matches!(call.operation, Some(Operation::Get(_)))
                .then(|| PipelineAnswer::Get(v1::GetResponse { val: value.clone(), version: 1, remaining_ttl_ms: 0 })),
        };
        let answers = request.into_inner().map(move |window| {
            let results = window?.calls.into_iter().map(&answer).collect();
            Ok(v1::PipelineResponse { results, ..Default::default() })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        not_measured()
    }

    async fn touch(&self, _: Request<v1::TouchRequest>) -> Result<Response<v1::TouchResponse>, Status> {
        not_measured()
    }

    async fn increment(&self, _: Request<v1::IncrementRequest>) -> Result<Response<v1::IncrementResponse>, Status> {
        not_measured()
    }

    async fn batch_get(&self, _: Request<v1::BatchGetRequest>) -> Result<Response<Self::BatchGetStream>, Status> {
        not_measured()
    }

    async fn batch_store(&self, _: Request<v1::BatchStoreRequest>) -> Result<Response<Self::BatchStoreStream>, Status> {
        not_measured()
    }

    async fn batch_delete(
        &self,
        _: Request<v1::BatchDeleteRequest>,
    ) -> Result<Response<Self::BatchDeleteStream>, Status> {
        not_measured()
    }

    async fn clear(&self, _: Request<v1::ClearRequest>) -> Result<Response<Self::ClearStream>, Status> {
        not_measured()
    }

    async fn delete_prefix(
        &self,
        _: Request<v1::DeletePrefixRequest>,
    ) -> Result<Response<Self::DeletePrefixStream>, Status> {
        not_measured()
    }

    async fn dump(&self, _: Request<v1::DumpRequest>) -> Result<Response<Self::DumpStream>, Status> {
        not_measured()
    }

    async fn stats(&self, _: Request<v1::StatsRequest>) -> Result<Response<v1::StatsResponse>, Status> {
        not_measured()
    }
}

fn not_measured<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this peer answers Get, Store and Pipeline only"))
}
