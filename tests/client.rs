//! The client library: what its callers may rely on when things go wrong, and that it speaks the contract.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

mod support;

use std::time::Duration;

use larder::client::{
    Client, Condition, Config, EndedCall, Error, ErrorKind, IncrementOptions, Observer, Retries, Routing, Sent,
    StoreOptions, Touch, TraceContext,
};
use larder::rpc::failure::Failure;
use support::{TOKEN, TestServer, nobody};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

fn config(address: impl ToString) -> Config {
    Config { token: Some(TOKEN.parse().unwrap()), ..Config::new(address.to_string().parse().unwrap()) }
}

fn client(server: &TestServer) -> Client {
    Client::new(config(server.address)).unwrap()
}

fn failure(error: Error) -> Failure {
    match error.failure() {
        Some(failure) => failure.clone(),
        None => panic!("{error}"),
    }
}

#[tokio::test]
async fn each_method_says_what_the_server_answered() {
    let server = TestServer::start();
    let client = client(&server);
    let minute = Duration::from_mins(1);
    let options = StoreOptions { ttl: Some(minute), condition: Condition::IfAbsent };
    let version = client.store("k", "v", options).await.unwrap();
    let entry = client.get("k").await.unwrap().unwrap();
    assert_eq!((entry.value.as_ref(), entry.version), (b"v".as_slice(), version));
    assert!(entry.remaining_ttl.unwrap() <= minute);
    assert_eq!(failure(client.store("k", "w", options).await.unwrap_err()), Failure::AlreadyExists);
    assert!(client.touch("k", None, Touch::Overwrite).await.unwrap().changed);
    assert_eq!(client.increment("n", 41, IncrementOptions::default()).await.unwrap().value, 41);
    assert!(client.delete("k", None).await.unwrap());
    assert_eq!(client.get("k").await.unwrap(), None);
    let mut dump = client.dump("", bytes::Bytes::new()).await.unwrap();
    assert_eq!(dump.next().await.unwrap().unwrap().key, "n");
    assert_eq!(dump.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_dump_goes_on_from_a_cursor() {
    let server = TestServer::start();
    let client = client(&server);
    for n in 0..10 {
        client.store(&n.to_string(), "v", StoreOptions::default()).await.unwrap();
    }
    let mut keys = Vec::new();
    let mut cursor = bytes::Bytes::new();
    while let Some(entry) = client.dump("", cursor.clone()).await.unwrap().next().await.unwrap() {
        keys.push(entry.key);
        cursor = entry.cursor;
    }
    keys.sort();
    assert_eq!(keys.join(""), "0123456789");
}

#[tokio::test]
async fn a_server_that_is_not_there_was_surely_not_asked() {
    let (_taken, address) = nobody();
    let error = Client::new(config(address)).unwrap().get("k").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unreachable { .. }), "{error:?}");
    assert!(error.temporary());
}

#[tokio::test]
async fn the_deadline_holds_although_the_server_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config { timeout: Duration::from_millis(50), ..config(listener.local_addr().unwrap()) };
    let error = Client::new(config).unwrap().get("k").await.unwrap_err();
    assert_eq!(failure(error), Failure::DeadlineExceeded);
}

/// Takes the calls of a connection and dies with them.
async fn swallow(stream: tokio::net::TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let Some(Ok((request, _respond))) = connection.accept().await else { return };
    let mut body = request.into_body();
    // A connection is polled for its streams to get on.
    tokio::select! {
        _ = body.data() => {}
        _ = connection.accept() => {}
    }
}

#[tokio::test]
async fn a_lost_answer_may_be_asked_for_again_only_if_that_is_safe() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(listener.local_addr().unwrap());
    let client = Client::new(Config { retries: Retries::NONE, ..config }).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(swallow(stream));
        }
    });
    let error = client.get("k").await.unwrap_err();
    assert_eq!(error.failure(), Some(&Failure::AppliedUnknown { idempotent: true }));
    assert_eq!((error.sent(), error.may_be_retried(), error.key()), (Sent::Maybe, true, Some("k")));
    let error = client.increment("n", 1, IncrementOptions::default()).await.unwrap_err();
    assert_eq!(error.failure(), Some(&Failure::AppliedUnknown { idempotent: false }));
    assert_eq!((error.sent(), error.may_be_retried()), (Sent::Maybe, false));
    let named = IncrementOptions { request_id: "1".to_owned(), ..IncrementOptions::default() };
    assert!(client.increment("n", 1, named).await.unwrap_err().may_be_retried());
    let once = client.with_idempotence(false);
    assert!(!once.store("k", "v", StoreOptions::default()).await.unwrap_err().may_be_retried());
}

#[tokio::test]
async fn an_idempotent_call_is_made_again_and_the_error_says_how_often() {
    let (_taken, address) = nobody();
    let retries = Retries { attempts: 3, ..Retries::default() };
    let client = Client::new(Config { retries, ..config(address) }).unwrap();
    let error = client.increment("n", 1, IncrementOptions::default()).await.unwrap_err();
    assert_eq!((error.sent(), error.attempts()), (Sent::No, 3), "{error:?}");
}

#[tokio::test]
async fn whoever_is_no_larder_server_is_told_from_one_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(config(listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = client.increment("n", 1, IncrementOptions::default()).await.unwrap_err();
    assert_eq!(error.sent(), Sent::No, "{error:?}");
    assert!(error.to_string().contains("before it said anything"), "{error}");
}

#[tokio::test]
async fn large_values_and_many_at_once_come_back_whole_and_in_order() {
    let server = TestServer::start();
    let client = client(&server).with_timeout(Duration::from_secs(20));
    let entries: Vec<(String, Vec<u8>)> =
        (0..600_u32).map(|n| (n.to_string(), n.to_be_bytes().repeat(if n % 100 == 7 { 100_000 } else { 9 }))).collect();
    let stored = client.store_many(entries.clone(), StoreOptions::default()).await;
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    let got = client.get_many(entries.iter().map(|(key, _)| key)).await;
    for ((key, value), got) in entries.iter().zip(got) {
        assert!(got.unwrap().unwrap().value == *value, "{key}");
    }
    let missing = client.get_many(["no", "such"]).await;
    assert!(missing.iter().all(|got| matches!(got, Ok(None))), "{missing:?}");
}

#[tokio::test]
async fn calls_of_one_caller_on_one_key_take_effect_in_order_although_nobody_waits() {
    let server = TestServer::start();
    let client = client(&server);
    let options = StoreOptions::default;
    for round in 0..50 {
        let (first, second) = (format!("{round}-1"), format!("{round}-2"));
        let (one, two, got) = tokio::join!(
            client.store("k", first, options()),
            client.store("k", second.clone(), options()),
            client.get("k"),
        );
        assert!(one.unwrap() < two.unwrap());
        assert_eq!(got.unwrap().unwrap().value, second);
    }
}

#[tokio::test]
async fn a_token_file_that_changes_is_shown_without_a_failed_call() {
    let server = TestServer::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), support::OTHER).unwrap();
    let config = Config { token_file: Some(file.path().to_owned()), ..config(server.address) };
    let client = Client::new(config).unwrap();
    client.store("k", "of two", StoreOptions::default()).await.unwrap();
    std::fs::write(file.path(), TOKEN).unwrap();
    let until = tokio::time::Instant::now() + support::PATIENCE;
    while client.get("k").await.unwrap().is_some() {
        assert!(tokio::time::Instant::now() < until, "the token is the old one still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_observer_is_told_of_each_call_and_its_trace_travels_with_it() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[derive(Debug, Default)]
    struct Traced(larder::client::Counters);

    impl Observer for Traced {
        fn begin(&self, _method: &'static str) -> Option<TraceContext> {
            Some(TraceContext { traceparent: TRACE.to_owned(), tracestate: String::new() })
        }

        fn end(&self, call: &EndedCall<'_>) {
            assert_eq!(call.trace.map(|trace| trace.traceparent.as_str()), Some(TRACE));
            self.0.end(call);
        }
    }
    let server = TestServer::start();
    let observer = std::sync::Arc::new(Traced::default());
    let observed = Config { observer: Some(observer.clone()), ..config(server.address) };
    for unary in [false, true] {
        let client = Client::new(Config { unary, ..observed.clone() }).unwrap();
        client.store("k", "v", StoreOptions::default()).await.unwrap();
        assert!(client.get("k").await.unwrap().is_some() && client.get("none").await.unwrap().is_none());
        client.stats().await.unwrap();
    }
    let text = observer.0.text();
    for line in [
        r#"larder_client_calls_total{method="larder.v1.Cache/Get",code="Ok"} 2"#,
        r#"larder_client_calls_total{method="larder.v1.Cache/Get",code="NotFound"} 2"#,
        r#"larder_client_calls_total{method="larder.v1.Cache/Store",code="Ok"} 2"#,
        r#"larder_client_calls_total{method="larder.v1.Cache/Stats",code="Ok"} 2"#,
        r#"larder_client_retries_total{method="larder.v1.Cache/Get"} 0"#,
    ] {
        assert!(text.lines().any(|its| its == line), "no line {line} in:\n{text}");
    }
}

#[tokio::test]
async fn a_hedged_read_is_answered_by_another_when_the_first_is_slow() {
    let server = TestServer::start();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let seeds = [silent.local_addr().unwrap(), server.address].map(|address| address.to_string().parse().unwrap());
    let hedge = Some(Duration::from_millis(5));
    let config = Config { seeds: seeds.to_vec(), hedge, routing: Routing::Seeds, ..config(server.address) };
    let client = Client::new(config).unwrap();
    let began = std::time::Instant::now();
    // Half of the keys begin at the seed that says nothing.
    for number in 0..8 {
        assert_eq!(client.get(&number.to_string()).await.unwrap(), None);
    }
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_token_is_in_no_debug_print() {
    let client = Client::new(config("127.0.0.1:1")).unwrap();
    let printed = format!("{client:?} {:?}", client.config());
    assert!(!printed.contains(TOKEN), "{printed}");
}
