//! A server that is busy, or goes away in the middle: the bulk commands bear with it. The server here follows a script.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use larder::rpc::failure::Failure;
use larder::rpc::proto::v1;
use larder::rpc::proto::v1::cache_server::{Cache, CacheServer};
use larder::rpc::proto::v1::pipeline_result;
use larder::rpc::status::{to_error, to_status};
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};

use super::Larder;

/// Refuses the first two stores, and ends the first dump after two entries of four.
#[derive(Clone, Default)]
struct Busy {
    stores: Arc<AtomicUsize>,
    dumps: Arc<AtomicUsize>,
}

type Stream<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;
type Answer<T> = Result<Response<T>, Status>;

fn unscripted<T>() -> Answer<T> {
    Err(to_status(&Failure::Internal))
}

#[tonic::async_trait]
impl Cache for Busy {
    type BatchGetStream = Stream<v1::BatchGetResponse>;
    type BatchStoreStream = Stream<v1::BatchStoreResponse>;
    type BatchDeleteStream = Stream<v1::BatchDeleteResponse>;
    type ClearStream = Stream<v1::ClearResponse>;
    type DeletePrefixStream = Stream<v1::DeletePrefixResponse>;
    type DumpStream = Stream<v1::DumpItem>;
    type PipelineStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::PipelineResponse, Status>> + Send>>;

    async fn store(&self, _: Request<v1::StoreRequest>) -> Answer<v1::StoreResponse> {
        if self.stores.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(to_status(&Failure::Overloaded { retry_after: Duration::from_millis(5) }));
        }
        Ok(Response::new(v1::StoreResponse { version: 1 }))
    }

    async fn dump(&self, request: Request<v1::DumpRequest>) -> Answer<Self::DumpStream> {
        let from = request.get_ref().cursor.first().copied().unwrap_or(0);
        let item = |n: u8| v1::DumpItem { key: n.to_string(), cursor: vec![n].into(), ..Default::default() };
        let mut items: Vec<_> = (from + 1..=4).map(|n| Ok(item(n))).collect();
        if self.dumps.fetch_add(1, Ordering::Relaxed) == 0 {
            items.truncate(2);
            items.push(Err(to_status(&Failure::Draining)));
        }
        Ok(Response::new(tokio_stream::iter(items)))
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Answer<v1::GetResponse> {
        unscripted()
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Answer<v1::DeleteResponse> {
        unscripted()
    }

    async fn touch(&self, _: Request<v1::TouchRequest>) -> Answer<v1::TouchResponse> {
        unscripted()
    }

    async fn increment(&self, _: Request<v1::IncrementRequest>) -> Answer<v1::IncrementResponse> {
        unscripted()
    }

    async fn batch_get(&self, _: Request<v1::BatchGetRequest>) -> Answer<Self::BatchGetStream> {
        unscripted()
    }

    async fn batch_store(&self, _: Request<v1::BatchStoreRequest>) -> Answer<Self::BatchStoreStream> {
        unscripted()
    }

    async fn batch_delete(&self, _: Request<v1::BatchDeleteRequest>) -> Answer<Self::BatchDeleteStream> {
        unscripted()
    }

    async fn clear(&self, _: Request<v1::ClearRequest>) -> Answer<Self::ClearStream> {
        unscripted()
    }

    async fn delete_prefix(&self, _: Request<v1::DeletePrefixRequest>) -> Answer<Self::DeletePrefixStream> {
        unscripted()
    }

    async fn pipeline(&self, request: Request<tonic::Streaming<v1::PipelineRequest>>) -> Answer<Self::PipelineStream> {
        let stores = Arc::clone(&self.stores);
        let result = move |call: v1::PipelineCall| {
            let result = if stores.fetch_add(1, Ordering::Relaxed) < 2 {
                let busy = Failure::Overloaded { retry_after: Duration::from_millis(5) };
                pipeline_result::Result::Error(to_error(&busy))
            } else {
                pipeline_result::Result::Store(v1::StoreResponse { version: 1 })
            };
            v1::PipelineResult { id: call.id, result: Some(result) }
        };
        let answers = request.into_inner().map(move |message| {
            let results = message?.calls.into_iter().map(&result).collect();
            Ok(v1::PipelineResponse { results, ..Default::default() })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn stats(&self, _: Request<v1::StatsRequest>) -> Answer<v1::StatsResponse> {
        unscripted()
    }
}

async fn start(busy: Busy) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(CacheServer::new(busy.clone()));
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http2.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn run(address: SocketAddr, arguments: &'static [&'static str], input: &'static [u8]) -> super::Said {
    tokio::task::spawn_blocking(move || Larder::at(address).run_with(arguments, input)).await.unwrap()
}

#[tokio::test]
async fn a_load_waits_for_a_busy_server() {
    let busy = Busy::default();
    let address = start(busy.clone()).await;
    let said = run(address, &["load", "-"], b"{\"key\":\"k\",\"value\":\"v\"}").await;
    assert_eq!(said.status, 0, "{}", said.err);
    assert_eq!(busy.stores.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_dump_goes_on_where_it_broke_off() {
    let busy = Busy::default();
    let address = start(busy.clone()).await;
    let said = run(address, &["dump"], b"").await;
    assert_eq!(said.status, 0, "{}", said.err);
    let lines = String::from_utf8(said.out).unwrap();
    let keys: Vec<&str> = lines.lines().map(|line| &line[8..9]).collect();
    assert_eq!(keys, ["1", "2", "3", "4"]);
    assert_eq!(busy.dumps.load(Ordering::Relaxed), 2);
}
