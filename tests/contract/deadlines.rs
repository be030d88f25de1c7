//! Deadlines are said as such, and hold to the end of a stream.

use std::time::Duration;

use larder::rpc::proto::v1;
use larder::server::method::Method;
use tonic::{Code, Request};

use crate::asking::{get, store};
use crate::raw::{Raw, answer, frame, framed};
use crate::support::{TOKEN, TestServer, eventually};

#[tokio::test]
async fn a_unary_call_whose_message_does_not_come_ends_at_its_deadline() {
    let server = TestServer::start();
    let raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("grpc-timeout", "50m")];
    let began = tokio::time::Instant::now();
    let (response, _body) = raw.begin("larder.v1.Cache/Get", &headers).await;
    assert_eq!(answer(response.await.unwrap()).await.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() >= Duration::from_millis(50));
    assert_eq!(server.wall.metrics.calls(Method::Get, Code::DeadlineExceeded), 1);
}

#[tokio::test]
async fn the_server_has_a_longest_deadline_of_its_own() {
    let server = TestServer::builder().wall(|wall| wall.max_unary_time = Duration::from_millis(40)).start();
    let raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    for headers in [vec![("authorization", bearer.as_str())], vec![("authorization", &bearer), ("grpc-timeout", "9H")]]
    {
        let (response, _body) = raw.begin("larder.v1.Cache/Get", &headers).await;
        assert_eq!(answer(response.await.unwrap()).await.code(), Code::DeadlineExceeded);
    }
}

#[tokio::test]
async fn no_time_is_too_little() {
    let server = TestServer::start();
    let raw = Raw::connect(&server).await;
    let late = raw.call("larder.v1.Cache/Get", &[("grpc-timeout", "0n")], frame(&get("k"))).await;
    assert_eq!(late.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_dump_that_nobody_reads_ends_at_its_deadline() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for i in 0..64 {
        client.store(store(&format!("k{i}"), vec![1; 1_000_000])).await.unwrap();
    }
    let mut request = Request::new(v1::DumpRequest::default());
    request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let mut dump = client.dump(request).await.unwrap().into_inner();
    // Not read: the call ends on the server all the same.
    eventually("the dump ends", || server.wall.metrics.calls(Method::Dump, Code::DeadlineExceeded) == 1).await;
    assert_eq!(server.wall.metrics.in_progress(Method::Dump), 0);
    // Read late: what was under way, and then the code.
    let ended = loop {
        match dump.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the dump ended as if it were whole"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_pipeline_that_is_silent_ends_at_its_deadline() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let mut request = Request::new(tokio_stream::pending::<v1::PipelineRequest>());
    request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let mut answers = client.pipeline(request).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_call_that_its_caller_drops_is_counted_as_cancelled() {
    let server = TestServer::start();
    let raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    for (name, method) in [("Pipeline", Method::Pipeline), ("Get", Method::Get)] {
        let path = format!("larder.v1.Cache/{name}");
        let begun = raw.begin(&path, &[("authorization", bearer.as_str())]).await;
        eventually("the call begins", || server.wall.metrics.in_progress(method) == 1).await;
        drop(begun);
        eventually("the call ends", || server.wall.metrics.calls(method, Code::Cancelled) == 1).await;
        assert_eq!(server.wall.metrics.in_progress(method), 0);
    }
}

#[tokio::test]
async fn a_call_without_a_deadline_does_not_wait_for_its_message_for_ever() {
    let server = TestServer::builder().wall(|wall| wall.max_unary_time = Duration::from_millis(40)).start();
    let raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    for method in [
        "larder.v1.Cache/Dump",
        "larder.v1.Cache/BatchGet",
        "rpc.Cache/Dump",
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
    ] {
        let (response, _body) = raw.begin(method, &[("authorization", bearer.as_str())]).await;
        let ended = tokio::time::timeout(Duration::from_secs(5), response).await;
        let ended = ended.unwrap_or_else(|_| panic!("{method} waits")).unwrap();
        assert_eq!(answer(ended).await.code(), Code::DeadlineExceeded, "{method}");
    }
}

#[tokio::test]
async fn a_watch_of_health_ends_at_its_deadline() {
    let server = TestServer::start();
    let raw = Raw::connect(&server).await;
    let watch = raw.call("grpc.health.v1.Health/Watch", &[("grpc-timeout", "50m")], framed(0, b""));
    let ended = tokio::time::timeout(Duration::from_secs(5), watch).await.expect("the watch goes on");
    assert_eq!(ended.code(), Code::DeadlineExceeded);
}
