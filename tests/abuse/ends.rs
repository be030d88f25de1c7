//! How connections end: by age, by idleness, by a drain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::server::accept::{Ended, WireConfig};
use larder::server::drain::Outcome;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::harness::{Client, PATIENCE, Server, eventually, post, until_closed};

/// Calls until the connection is sent away; answers how many calls it had. No call fails: one that a GOAWAY finds
/// unsent is not a call.
async fn until_sent_away(client: Client) -> usize {
    let mut calls = 0;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        // Once a GOAWAY has come no new stream can be opened.
        let Ok(mut requests) = client.requests.clone().ready().await else { return calls };
        let Ok((response, mut sender)) = requests.send_request(post("/echo"), false) else { return calls };
        sender.send_data(Bytes::from_static(b"hello"), true).unwrap();
        match response.await {
            Ok(response) => {
                let mut body = response.into_body();
                while let Some(chunk) = body.data().await {
                    chunk.expect("an answer that has begun comes to its end");
                }
                calls += 1;
            }
            // REFUSED_STREAM and a GOAWAY with a smaller last stream both say "not begun, try elsewhere".
            Err(error) => {
                let is_safe = error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
                assert!(is_safe, "a call failed: {error:?}");
                return calls;
            }
        }
    }
    panic!("no GOAWAY in {PATIENCE:?}");
}

#[tokio::test]
async fn an_old_connection_gets_a_goaway_and_no_call_fails() {
    let config = WireConfig { connection_age: Duration::from_millis(300), ..WireConfig::default() };
    let server = Server::start(config);
    let mut tasks = Vec::new();
    for _ in 0..20 {
        tasks.push(tokio::spawn(until_sent_away(server.client().await)));
    }
    for task in tasks {
        assert!(task.await.unwrap() > 0);
    }
    assert_eq!(server.wire.stats().goaways_for_age(), 20);
    server.ended(Ended::Normally, 20).await;
}

#[tokio::test]
async fn a_call_that_outlives_the_age_is_answered_within_the_grace() {
    let config = WireConfig { connection_age: Duration::from_millis(100), ..WireConfig::default() };
    let server = Server::start(config);
    let client = server.client().await;
    let mut requests = client.requests.clone();
    let (response, mut sender) = requests.send_request(post("/echo"), false).unwrap();
    sender.send_data(Bytes::from_static(b"first, "), false).unwrap();
    eventually("a GOAWAY", || server.wire.stats().goaways_for_age() == 1).await;
    sender.send_data(Bytes::from_static(b"second"), true).unwrap();
    let body = response.await.unwrap().into_body();
    assert_eq!(collect(body).await, b"first, second");
    server.ended(Ended::Normally, 1).await;
}

async fn collect(mut body: h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = timeout(PATIENCE, body.data()).await.unwrap() {
        all.extend_from_slice(&chunk.unwrap());
    }
    all
}

#[tokio::test]
async fn a_call_that_outlives_the_grace_too_is_cut() {
    let config = WireConfig {
        connection_age: Duration::from_millis(100),
        connection_age_grace: Duration::from_millis(200),
        ..WireConfig::default()
    };
    let server = Server::start(config);
    let client = server.client().await;
    assert!(timeout(PATIENCE, client.call("/hang", Bytes::new())).await.unwrap().is_err());
    server.ended(Ended::Grace, 1).await;
}

#[tokio::test]
async fn an_idle_connection_gets_a_goaway_and_a_busy_one_does_not() {
    let config = WireConfig { idle_timeout: Duration::from_millis(200), ..WireConfig::default() };
    let server = Server::start(config);
    let idle = server.client().await;
    let busy = server.client().await;
    let call = busy.requests.clone().send_request(post("/hang"), true).unwrap();
    idle.echo("hello").await.unwrap();
    timeout(PATIENCE, idle.connection).await.expect("it is closed").unwrap().unwrap();
    assert_eq!(server.wire.stats().goaways_for_idleness(), 1);
    assert_eq!(busy.echo("hello").await.unwrap(), "hello");
    drop(call);
}

#[tokio::test]
async fn a_drain_lets_calls_in_flight_end_and_takes_no_new_ones() {
    let server = Arc::new(Server::start(WireConfig::default()));
    let client = server.client().await;
    let mut requests = client.requests.clone();
    let (response, mut sender) = requests.send_request(post("/echo"), false).unwrap();
    sender.send_data(Bytes::from_static(b"first, "), false).unwrap();
    let calls = || server.calls.load(std::sync::atomic::Ordering::Relaxed);
    eventually("the call is in flight", || calls() == 1).await;
    let drained = {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.trigger.drain(PATIENCE).await })
    };
    // The listener is closed.
    let mut refused = false;
    for _ in 0..1_000 {
        refused = tokio::net::TcpStream::connect(server.address()).await.is_err();
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(refused, "the listener is closed");
    sender.send_data(Bytes::from_static(b"second"), true).unwrap();
    assert_eq!(collect(response.await.unwrap().into_body()).await, b"first, second");
    assert_eq!(timeout(PATIENCE, drained).await.unwrap().unwrap(), Outcome::Clean);
}

/// Keeps the worker that accepts busy until the answer is dropped.
async fn busy(server: &Server) -> std::sync::mpsc::SyncSender<()> {
    let (release, released) = std::sync::mpsc::sync_channel::<()>(0);
    let (begin, begun) = tokio::sync::oneshot::channel();
    server.workers.handle(0).spawn(async move {
        begin.send(()).unwrap();
        released.recv().unwrap_err();
    });
    begun.await.unwrap();
    release
}

/// A client sends its first calls along with the preface, and takes them for lost if the connection is reset.
#[tokio::test]
async fn who_has_come_when_a_drain_begins_is_answered() {
    let server = Server::start(WireConfig::default());
    let release = busy(&server).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        let client = server.client().await;
        let (response, mut sender) = client.requests.clone().send_request(post("/echo"), false).unwrap();
        sender.send_data(Bytes::from_static(b"hello"), true).unwrap();
        answers.push((response, client));
    }
    // Each connection's task has its turn, and so writes.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    server.trigger.start(PATIENCE);
    drop(release);
    for (response, _client) in answers {
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        assert_eq!(collect(response.into_body()).await, b"hello");
    }
    assert_eq!(server.trigger.drain(PATIENCE).await, Outcome::Clean);
    assert!(tokio::net::TcpStream::connect(server.address()).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn a_drain_under_load_fails_no_call() {
    let server = Server::start(WireConfig::default());
    let mut tasks = Vec::new();
    for _ in 0..50 {
        let client = server.client().await;
        for _ in 0..4 {
            let connection = tokio::spawn(std::future::pending());
            tasks.push(tokio::spawn(until_sent_away(Client { requests: client.requests.clone(), connection })));
        }
        tasks.push(tokio::spawn(until_sent_away(client)));
    }
    let calls = || server.calls.load(std::sync::atomic::Ordering::Relaxed);
    eventually("calls are in flight", || calls() > 1000).await;
    assert_eq!(server.trigger.drain(PATIENCE).await, Outcome::Clean);
    for task in tasks {
        task.await.unwrap();
    }
    server.ended(Ended::Normally, 50).await;
}

#[tokio::test]
async fn a_drain_ends_in_bounded_time_with_silent_and_stuck_clients_present() {
    let server = Server::start(WireConfig::default());
    let mut never_spoke = server.socket().await;
    let mut only_preface = server.socket().await;
    only_preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let stuck = server.client().await;
    let stuck_call = stuck.requests.clone().send_request(post("/hang"), true).unwrap();
    let _good = server.client().await;
    let calls = || server.calls.load(std::sync::atomic::Ordering::Relaxed);
    eventually("the call is stuck", || calls() == 1).await;
    eventually("all are in", || server.wire.connections() == 3 && server.wire.stats().handshaking() == 1).await;
    let within = Duration::from_millis(500);
    let began = Instant::now();
    let outcome = server.trigger.drain(within).await;
    assert!(matches!(outcome, Outcome::Forced { cut: 2, stuck: 0 }), "{outcome:?}");
    let took = began.elapsed();
    assert!(took >= within && took < within + Duration::from_secs(1), "{took:?}");
    assert!(until_closed(&mut never_spoke).await.is_empty());
    until_closed(&mut only_preface).await;
    assert!(stuck_call.0.await.is_err());
    server.ended(Ended::Drained, 3).await;
}

#[tokio::test]
async fn connections_go_on_when_only_the_listener_is_closed() {
    let server = Server::start(WireConfig::default());
    let client = server.client().await;
    client.echo("hello").await.unwrap();
    server.wire.stop_accepting();
    let deadline = Instant::now() + PATIENCE;
    while tokio::net::TcpStream::connect(server.address()).await.is_ok() {
        assert!(Instant::now() < deadline, "the listener is closed");
    }
    assert_eq!(client.echo("hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn few_connections_spread_evenly_over_the_workers() {
    let server = Server::start(WireConfig::default());
    let mut clients = Vec::new();
    for _ in 0..6 {
        let client = server.client().await;
        client.echo("it is in").await.unwrap();
        clients.push(client);
    }
    assert_eq!(server.workers.loads(), [3, 3]);
}
