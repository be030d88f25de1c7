//! What calls hold of large messages is bounded, whatever clients do.

use bytes::Bytes;
use larder::server::method::Method;
use tonic::Code;

use crate::asking::{get, store};
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
