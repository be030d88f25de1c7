use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tonic::Code;

use super::*;
use crate::cache::store::{Store, StoreConfig};
use crate::server::accounts::{Accounts, Book};
use crate::server::clock::Clock;
use crate::server::health::Health;
use crate::server::metrics::Metrics;
use crate::server::wall::{Parts, Wall, WallConfig};

/// Does as it is told.
struct Puppet(fn() -> Poll<Option<Result<Bytes, Failure>>>);

impl Produce for Puppet {
    fn poll_next(&mut self, _call: &mut Call, _cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        (self.0)()
    }
}

fn call() -> (Arc<Wall>, Call) {
    let wall = Wall::new(Parts {
        cluster: None,
        store: Arc::new(Store::new(StoreConfig { capacity_bytes: 1 << 20, shards: 1, replica: 0 })),
        accounts: Accounts::fixed(Book::default()),
        config: WallConfig::default(),
        clock: Clock::start(),
        health: Health::default(),
        metrics: Arc::new(Metrics::new(1)),
        tracer: None,
    });
    let connection = wall.connection("127.0.0.1:1".parse().unwrap(), 0);
    (wall, Call::begin(connection, Method::Dump))
}

async fn status(body: Body) -> String {
    let trailers = body.collect().await.unwrap().trailers().unwrap().clone();
    trailers["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_producer_that_panics_ends_its_own_stream_and_is_answered_internal() {
    let (wall, call) = call();
    let body = Body::stream(call, Box::new(Puppet(|| panic!("on purpose"))));
    assert_eq!(status(body).await, (Code::Internal as i32).to_string());
    assert_eq!(wall.metrics.calls(Method::Dump, Code::Internal), 1);
}

#[tokio::test]
async fn a_large_chunk_is_handed_over_in_pieces() {
    let (_, call) = call();
    let mut asked = 0;
    let chunk = Bytes::from(vec![1; 3 * PIECE_BYTES + 1]);
    let mut body =
        Body::stream(call, Box::new(Puppet(|| Poll::Ready(Some(Ok(Bytes::from(vec![1; 3 * PIECE_BYTES + 1])))))));
    while asked < chunk.len() {
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(data.len() <= PIECE_BYTES);
        asked += data.len();
    }
    assert_eq!(asked, chunk.len());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_deadline_though_nobody_polls_it() {
    let (wall, mut call) = call();
    call.deadline = Some(call.started + Duration::from_millis(50));
    let body = Body::stream(call, Box::new(Puppet(|| Poll::Pending)));
    tokio::time::sleep(Duration::from_millis(49)).await;
    assert_eq!(wall.metrics.in_progress(Method::Dump), 1);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(wall.metrics.calls(Method::Dump, Code::DeadlineExceeded), 1);
    assert_eq!(wall.metrics.in_progress(Method::Dump), 0);
    assert_eq!(status(body).await, (Code::DeadlineExceeded as i32).to_string());
}
