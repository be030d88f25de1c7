//! What the wall refuses, and that it does so before it reads.

use std::time::Duration;

use bytes::Bytes;
use larder::rpc::failure::Failure;
use larder::rpc::proto::v1;
use larder::server::metrics::Refusal;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

use crate::asking::{all, delete, failure, get, increment, store, touch};
use crate::raw::{Raw, answer, frame, framed};
use crate::support::{OTHER, READ_ONLY, TOKEN, TestServer, client};

const GET: &str = "larder.v1.Cache/Get";

#[tokio::test]
async fn who_calls_must_be_known() {
    let server = TestServer::start();
    let channel = server.channel().await;
    assert_eq!(failure(client(channel.clone(), None).get(get("k")).await), Failure::TokenMissing);
    for wrong in ["token-of-on", "token-of-onf", "token-of-one2", "x"] {
        assert_eq!(failure(client(channel.clone(), Some(wrong)).get(get("k")).await), Failure::TokenUnknown);
    }
    // On one connection tokens of two accounts take turns.
    client(channel.clone(), Some(TOKEN)).store(store("k", "one")).await.unwrap();
    client(channel.clone(), Some(OTHER)).store(store("k", "two")).await.unwrap();
    for (token, value) in [(TOKEN, "one"), (OTHER, "two"), (TOKEN, "one")] {
        let got = client(channel.clone(), Some(token)).get(get("k")).await.unwrap().into_inner();
        assert_eq!(got.val, value);
    }
    assert_eq!(server.wall.metrics.refused(Refusal::Token), 5);
}

#[tokio::test]
async fn a_store_may_carry_its_token_in_the_message_but_metadata_wins() {
    let server = TestServer::start();
    let channel = server.channel().await;
    let with = |token: &str| v1::StoreRequest { account_token: token.into(), ..store("k", "v") };
    client(channel.clone(), None).store(with(OTHER)).await.unwrap();
    assert!(server.client_with(OTHER).await.get(get("k")).await.is_ok());
    assert_eq!(failure(client(channel.clone(), None).store(with("x")).await), Failure::TokenUnknown);
    assert_eq!(failure(client(channel.clone(), None).store(with("")).await), Failure::TokenMissing);
    assert_eq!(failure(client(channel.clone(), None).store(with(READ_ONLY)).await), Failure::TokenReadOnly);
    client(channel, Some(TOKEN)).store(with("x")).await.unwrap();
}

#[tokio::test]
async fn a_token_that_was_withdrawn_is_refused_on_an_open_connection() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.store(store("k", "v")).await.unwrap();
    server.replace_accounts(&larder::server::accounts::file::File::default());
    assert_eq!(failure(client.get(get("k")).await), Failure::TokenUnknown);
}

#[tokio::test]
async fn a_read_only_token_reads_everything_and_changes_nothing() {
    let server = TestServer::start();
    server.client().await.store(store("k", "v")).await.unwrap();
    let mut client = server.client_with(READ_ONLY).await;
    client.get(get("k")).await.unwrap();
    client.stats(v1::StatsRequest {}).await.unwrap();
    assert_eq!(all(client.dump(v1::DumpRequest::default()).await.unwrap().into_inner()).await.len(), 1);
    let item = v1::BatchGetItem { get: Some(get("k")), context: None };
    all(client.batch_get(v1::BatchGetRequest { items: vec![item] }).await.unwrap().into_inner()).await;
    let refused = [
        failure(client.store(store("k", "w")).await),
        failure(client.delete(delete("k")).await),
        failure(client.touch(touch("k", 1, v1::TouchMode::Overwrite)).await),
        failure(client.increment(increment("n", 1, "")).await),
        failure(client.batch_store(v1::BatchStoreRequest::default()).await),
        failure(client.batch_delete(v1::BatchDeleteRequest::default()).await),
        failure(client.clear(v1::ClearRequest {}).await),
        failure(client.delete_prefix(v1::DeletePrefixRequest::default()).await),
    ];
    assert!(refused.iter().all(|one| *one == Failure::TokenReadOnly), "{refused:?}");
    assert_eq!(server.wall.metrics.refused(Refusal::ReadOnly), 8);
}

#[tokio::test]
async fn a_refused_call_is_answered_although_its_message_never_comes() {
    let server = TestServer::builder()
        .account(|account| {
            account.requests_per_second = 1;
            account.burst = 1;
        })
        .manual_clock()
        .start();
    let raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    let authorized = [("authorization", bearer.as_str())];
    // Without a token; then over the account's rate, which the first call that is let in uses up.
    let (response, _body) = raw.begin(GET, &[]).await;
    assert_eq!(answer(response.await.unwrap()).await.reason(), "TOKEN_MISSING");
    assert_eq!(raw.call(GET, &[], frame(&get("k"))).await.code(), Code::NotFound);
    let (response, _body) = raw.begin(GET, &authorized).await;
    let refused = answer(response.await.unwrap()).await;
    assert_eq!(refused.reason(), "ACCOUNT_RATE");
    assert_eq!(refused.field("grpc-retry-pushback-ms"), Some("1000"));
    // A call that is let in waits for its message: the check above can fail.
    server.advance(Duration::from_secs(1));
    let (mut response, mut body) = raw.begin(GET, &authorized).await;
    let waits = tokio::time::timeout(Duration::from_millis(50), &mut response).await;
    assert!(waits.is_err(), "an answer came before the message");
    body.send_data(frame(&get("k")), true).unwrap();
    assert_eq!(answer(response.await.unwrap()).await.code(), Code::NotFound);
}

#[tokio::test]
async fn the_servers_rate_holds_for_all_accounts_together() {
    let server = TestServer::builder()
        .wall(|wall| {
            wall.requests_per_second = Some(150);
            wall.burst = 5;
        })
        .manual_clock()
        .start();
    let mut clients = [server.client().await, server.client_with(OTHER).await];
    let mut outcomes = Vec::new();
    for i in 0..20 {
        outcomes.push(failure(clients[i % 2].get(get("k")).await));
    }
    assert_eq!(outcomes.iter().filter(|one| **one == Failure::NotFound).count(), 5);
    assert!(outcomes[5..].iter().all(|one| matches!(one, Failure::ServerRate { limit: 150, .. })), "{outcomes:?}");
    assert_eq!(server.wall.metrics.refused(Refusal::ServerRate), 15);
    server.advance(Duration::from_secs(1));
    assert_eq!(failure(clients[0].get(get("k")).await), Failure::NotFound);
}

#[tokio::test]
async fn a_new_rate_holds_on_open_connections() {
    let server = TestServer::builder().manual_clock().start();
    let mut client = server.client().await;
    for _ in 0..50 {
        assert_eq!(failure(client.get(get("k")).await), Failure::NotFound);
    }
    let mut file = TestServer::builder().accounts;
    file.accounts[0].requests_per_second = 1;
    file.accounts[0].burst = 1;
    server.replace_accounts(&file);
    assert_eq!(failure(client.get(get("k")).await), Failure::NotFound);
    assert!(matches!(failure(client.get(get("k")).await), Failure::AccountRate { limit: 1, .. }));
}

#[tokio::test]
async fn calls_over_the_bound_are_shed() {
    let server = TestServer::builder().wall(|wall| wall.max_calls_per_worker = 3).start();
    let raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(raw.begin(GET, &[("authorization", &bearer)]).await);
    }
    let shed = raw.call(GET, &[], frame(&get("k"))).await;
    assert_eq!((shed.code(), shed.reason()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(shed.field("grpc-retry-pushback-ms").is_some());
    // Probes hear the truth all the same.
    assert_eq!(raw.call("grpc.health.v1.Health/Check", &[], framed(0, b"")).await.code(), Code::Ok);
    drop(held);
    crate::support::eventually("held calls end", || {
        server.wall.metrics.in_progress(larder::server::method::Method::Get) == 0
    })
    .await;
    assert_eq!(raw.call(GET, &[], frame(&get("k"))).await.code(), Code::NotFound);
}

#[tokio::test]
async fn callers_without_a_token_cannot_take_every_place() {
    let server = TestServer::builder().wall(|wall| wall.max_calls_per_worker = 6).start();
    let raw = Raw::connect(&server).await;
    let mut held = Vec::new();
    for method in ["larder.v1.Cache/Store", "rpc.Cache/Get", "larder.v1.Accounts/GetByToken"] {
        held.push(raw.begin(method, &[]).await);
    }
    for _ in 0..8 {
        held.push(raw.begin("grpc.health.v1.Health/Check", &[]).await);
    }
    for method in ["larder.v1.Cache/Store", "rpc.Cache/Get"] {
        let (response, _body) = raw.begin(method, &[]).await;
        assert_eq!(answer(response.await.unwrap()).await.reason(), "OVERLOADED", "{method}");
    }
    assert_eq!(raw.call(GET, &[], frame(&get("k"))).await.code(), Code::NotFound);
}

#[tokio::test]
async fn a_replica_that_starts_says_so() {
    let mut builder = TestServer::builder();
    builder.serving = false;
    let server = builder.start();
    let mut client = server.client().await;
    assert_eq!(failure(client.get(get("k")).await), Failure::Starting);
    server.health.set_serving();
    assert_eq!(failure(client.get(get("k")).await), Failure::NotFound);
}

#[tokio::test]
async fn what_is_no_call_of_ours_is_refused_by_its_right_code() {
    let server = TestServer::start();
    let raw = Raw::connect(&server).await;
    let request = frame(&get("k"));
    let long = "x".repeat(17 * 1024);
    let large = [framed(0, &[])].concat();
    for (method, headers, body, code, reason) in [
        ("larder.v1.Cache/Nonsense", vec![], request.clone(), Code::Unimplemented, "METHOD_UNKNOWN"),
        (GET, vec![("x-long", long.as_str())], request.clone(), Code::ResourceExhausted, "METADATA_TOO_LARGE"),
        (GET, vec![("grpc-timeout", "soon")], request.clone(), Code::InvalidArgument, "METADATA_INVALID"),
        (GET, vec![("dry-run", "maybe")], request.clone(), Code::InvalidArgument, "METADATA_INVALID"),
        (GET, vec![("grpc-encoding", "br")], request.clone(), Code::Unimplemented, "ENCODING_UNSUPPORTED"),
        (GET, vec![], framed(1, b"x"), Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (GET, vec![], framed(0, b"\xff\xff\xff"), Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (GET, vec![], Bytes::from_static(b"\0\0\0\0\x09k"), Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (GET, vec![], Bytes::new(), Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (GET, vec![], [&request[..], &request[..]].concat().into(), Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (GET, vec![], Bytes::from_static(b"\0\xff\xff\xff\xff"), Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
        (GET, vec![("grpc-encoding", "gzip")], framed(1, b"no gzip"), Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (GET, vec![], large.into(), Code::InvalidArgument, "KEY_INVALID"),
    ] {
        let refused = raw.call(method, &headers, body).await;
        assert_eq!((refused.code(), refused.reason()), (code, reason), "{method} {refused:?}");
    }
    assert_eq!(raw.call(GET, &[], request).await.code(), Code::NotFound);
}

#[tokio::test]
async fn what_does_not_speak_grpc_gets_an_http_status() {
    let server = TestServer::start();
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    for (request, status) in [
        (http::Request::post("http://larder/larder.v1.Cache/Get").header("content-type", "application/json"), 415),
        (http::Request::get("http://larder/").header("content-type", "application/grpc"), 405),
    ] {
        let mut send = send.clone().ready().await.unwrap();
        let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(answer(response.await.unwrap()).await.http, status);
    }
}

#[tokio::test]
async fn requests_may_be_compressed() {
    let server = TestServer::start();
    let value = vec![5; 100_000];
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = server.client().await.send_compressed(encoding).accept_compressed(encoding);
        client.store(store("k", value.clone())).await.unwrap();
        assert_eq!(client.get(get("k")).await.unwrap().into_inner().val, value);
        let items = vec![v1::BatchGetItem { get: Some(get("k")), context: None }];
        let batch = client.batch_get(v1::BatchGetRequest { items }).await.unwrap().into_inner();
        assert_eq!(all(batch).await[0].results.len(), 1);
    }
}

#[tokio::test]
async fn a_message_that_unpacks_to_more_than_the_limit_is_stopped() {
    let server = TestServer::start();
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = server.client().await.send_compressed(encoding).max_encoding_message_size(usize::MAX);
        let bomb = Request::new(store("k", vec![0; 64 * 1024 * 1024]));
        assert_eq!(failure(client.store(bomb).await).reason(), "MESSAGE_TOO_LARGE", "{encoding:?}");
        assert_eq!(failure(client.get(get("k")).await), Failure::NotFound);
    }
}
