//! What calls hold of large messages is bounded, whatever clients do.

use bytes::Bytes;
use larder::rpc::proto::v1;
use larder::rpc::proto::v1::pipeline_result::Result as Answer;
use larder::server::method::Method;
use tonic::Code;

use crate::asking::{all, failure, get, store};
use crate::raw::{Raw, answer, frame};
use crate::support::{TOKEN, TestServer, eventually};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_and_given_back() {
    let server = TestServer::builder().wall(|wall| wall.max_held_bytes = 8 << 20).start();
    let mut good = server.client().await;
    good.store(store("large", vec![1; MIB])).await.unwrap();
    good.store(store("small", "v")).await.unwrap();
    let raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..20 {
        let (response, mut send) = raw.begin("larder.v1.Cache/Get", &[("authorization", &bearer)]).await;
        send.send_data(frame(&get("large")), true).unwrap();
        let response = response.await.unwrap();
        if response.headers().contains_key("grpc-status") {
            let refusal = answer(response).await;
            assert_eq!((refusal.reason(), refusal.field("grpc-retry-pushback-ms")), ("OVERLOADED", Some("100")));
            refused += 1;
        } else {
            unread.push(response);
        }
    }
    assert_eq!((unread.len(), refused), (7, 13));
    assert!(server.wall.held.bytes() <= 8 << 20);
    good.get(get("small")).await.unwrap();
    drop(unread);
    eventually("the answers are let go", || server.wall.held.bytes() == 0).await;
    assert_eq!(good.get(get("large")).await.unwrap().into_inner().val.len(), MIB);
    eventually("the calls end", || server.wall.metrics.in_progress(Method::Get) == 0).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_let_go_at_its_deadline() {
    let server = TestServer::start();
    server.client().await.store(store("large", vec![1; MIB])).await.unwrap();
    let raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("grpc-timeout", "50m")];
    let (response, mut send) = raw.begin("larder.v1.Cache/Get", &headers).await;
    send.send_data(frame(&get("large")), true).unwrap();
    let response = response.await.unwrap();
    eventually("the call ends", || server.wall.metrics.calls(Method::Get, Code::DeadlineExceeded) == 1).await;
    assert_eq!(server.wall.held.bytes(), 0);
    assert_eq!(answer(response).await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn requests_that_do_not_end_are_bounded_and_given_back() {
    let server = TestServer::builder().wall(|wall| wall.max_held_bytes = 4 << 20).start();
    let bearer = format!("Bearer {TOKEN}");
    let whole = frame(&store("large", vec![1; 2 * MIB]));
    let packed = {
        let noise: Vec<u8> = (0..2 * MIB as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
        let mut packed = vec![1];
        packed.extend_from_slice(&u32::try_from(2 * MIB).unwrap().to_be_bytes());
        packed.extend_from_slice(&noise);
        Bytes::from(packed)
    };
    for (encoding, wire) in [("identity", whole), ("gzip", packed)] {
        let raw = Raw::connect(&server).await;
        let mut open = Vec::new();
        let mut refused = 0;
        for _ in 0..6 {
            let headers = [("authorization", bearer.as_str()), ("grpc-encoding", encoding)];
            let (response, mut send) = raw.begin("larder.v1.Cache/Store", &headers).await;
            send.send_data(wire.slice(..MIB + MIB / 2), false).unwrap();
            let before = server.wall.held.bytes();
            let mut response = Box::pin(response);
            // Either it is held, or it is refused.
            loop {
                match tokio::time::timeout(std::time::Duration::from_millis(5), &mut response).await {
                    Ok(refusal) => {
                        assert_eq!(answer(refusal.unwrap()).await.reason(), "OVERLOADED", "{encoding}");
                        refused += 1;
                        break;
                    }
                    Err(_) if server.wall.held.bytes() >= before + (MIB + MIB / 2) as u64 => {
                        open.push((response, send));
                        break;
                    }
                    Err(_) => {}
                }
            }
        }
        assert_eq!((open.len(), refused), (2, 4), "{encoding}");
        drop(open);
        eventually("the requests are let go", || server.wall.held.bytes() == 0).await;
    }
}

#[tokio::test]
async fn streams_give_way_when_much_is_held_and_lose_nothing() {
    let server = TestServer::builder().wall(|wall| wall.max_held_bytes = 2 << 20).start();
    let mut good = server.client().await;
    for i in 0..4 {
        good.store(store(&format!("large-{i}"), vec![1; MIB])).await.unwrap();
    }
    good.store(store("small", "v")).await.unwrap();
    let raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    let (response, mut send) = raw.begin("larder.v1.Cache/Get", &[("authorization", &bearer)]).await;
    send.send_data(frame(&get("large-0")), true).unwrap();
    let unread = response.await.unwrap();
    eventually("an answer is held", || server.wall.held.bytes() > MIB as u64).await;
    // Items fail one by one, and say when to come again.
    let call = |id: u64, key: &str| v1::PipelineCall {
        id,
        context: None,
        operation: Some(v1::pipeline_call::Operation::Get(get(key))),
    };
    assert_eq!(failure(good.get(get("large-1")).await).reason(), "OVERLOADED");
    let calls = vec![call(1, "large-1"), call(2, "small")];
    let messages = tokio_stream::iter([v1::PipelineRequest { calls }]);
    let answers = all(good.pipeline(messages).await.unwrap().into_inner()).await;
    let results: Vec<_> = answers.into_iter().flat_map(|answer| answer.results).collect();
    assert!(matches!(&results[0].result, Some(Answer::Error(error)) if error.reason == "OVERLOADED"), "{results:?}");
    assert!(matches!(&results[1].result, Some(Answer::Get(got)) if got.val == "v"), "{results:?}");
    let items = ["small", "large-1"].map(|key| v1::BatchGetItem { get: Some(get(key)), context: None });
    let batch = all(good.batch_get(v1::BatchGetRequest { items: items.into() }).await.unwrap().into_inner()).await;
    let results: Vec<_> = batch.into_iter().flat_map(|answer| answer.results).collect();
    assert!(matches!(&results[0].result, Some(v1::batch_get_result::Result::Get(_))), "{results:?}");
    assert!(matches!(&results[1].result, Some(v1::batch_get_result::Result::Error(_))), "{results:?}");
    let mut dump = good.dump(v1::DumpRequest::default()).await.unwrap().into_inner();
    let ended = loop {
        match dump.message().await {
            Ok(Some(_)) => {}
            other => break failure(other),
        }
    };
    assert_eq!(ended.reason(), "OVERLOADED");
    // A pipeline that has been read holds nothing, though it stays open.
    drop((unread, send));
    let (calls, messages) = tokio::sync::mpsc::channel(1);
    let mut answers = good.pipeline(tokio_stream::wrappers::ReceiverStream::new(messages)).await.unwrap().into_inner();
    calls.send(v1::PipelineRequest { calls: vec![call(1, "large-1")] }).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().results.len(), 1);
    eventually("the answer is let go", || server.wall.held.bytes() == 0).await;
    assert_eq!(all(good.dump(v1::DumpRequest::default()).await.unwrap().into_inner()).await.len(), 5);
}

#[tokio::test]
async fn requests_whose_results_nobody_reads_are_bounded_and_given_back() {
    let server = TestServer::builder().wall(|wall| wall.max_held_bytes = 8 << 20).start();
    let bearer = format!("Bearer {TOKEN}");
    // 20 KB on the wire, and a hundred times as much when decoded.
    let batch = frame(&v1::BatchStoreRequest { items: vec![v1::BatchStoreItem::default(); 10_000] });
    let raw = Raw::connect_and_read_nothing(&server).await;
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..20 {
        let (response, mut send) = raw.begin("larder.v1.Cache/BatchStore", &[("authorization", bearer.as_str())]).await;
        send.send_data(batch.clone(), true).unwrap();
        let response = response.await.unwrap();
        if response.headers().contains_key("grpc-status") {
            assert_eq!(answer(response).await.reason(), "OVERLOADED");
            refused += 1;
        } else {
            unread.push((response, send));
        }
    }
    assert!(!unread.is_empty() && refused > 0, "{} unread, {refused} refused", unread.len());
    assert!(server.wall.held.bytes() > 4 << 20);
    drop(unread);
    eventually("the batches are let go", || server.wall.held.bytes() == 0).await;
}
