//! The client library: what its callers may rely on when things go wrong, and that it speaks the contract.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

mod support;

use std::time::Duration;

use larder::client::{Client, Condition, Config, Error, ErrorKind, IncrementOptions, StoreOptions, Touch};
use larder::rpc::failure::Failure;
use support::{TOKEN, TestServer, nobody};
use tokio::io::AsyncReadExt as _;
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

#[tokio::test]
async fn a_lost_answer_may_be_asked_for_again_only_if_that_is_safe() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(config(listener.local_addr().unwrap())).unwrap();
    // Takes the call and dies: preface, settings and headers are more than 100 bytes.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read_exact(&mut [0; 100]).await;
        }
    });
    let error = failure(client.get("k").await.unwrap_err());
    assert_eq!(error, Failure::AppliedUnknown { idempotent: true });
    assert!(error.temporary());
    let error = failure(client.increment("n", 1, IncrementOptions::default()).await.unwrap_err());
    assert_eq!(error, Failure::AppliedUnknown { idempotent: false });
    assert!(!error.temporary());
}

#[tokio::test]
async fn a_token_is_in_no_debug_print() {
    let client = Client::new(config("127.0.0.1:1")).unwrap();
    let printed = format!("{client:?} {:?}", client.config());
    assert!(!printed.contains(TOKEN), "{printed}");
}
