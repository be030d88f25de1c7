//! Connections that say nothing, too little, or the wrong thing.

use std::time::Duration;

use larder::server::accept::{Ended, WireConfig};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Server, eventually, until_closed};

#[tokio::test]
async fn a_call_is_answered() {
    let server = Server::start(WireConfig::default());
    let client = server.client().await;
    assert_eq!(client.echo("hello").await.unwrap(), "hello");
    assert_eq!(server.wire.connections(), 1);
}

#[tokio::test]
async fn of_200_silent_connections_the_oldest_go_first_and_a_good_client_gets_in() {
    let config = WireConfig { max_handshaking: 50, preface_timeout: Duration::from_mins(1), ..WireConfig::default() };
    let server = Server::start(config);
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(server.socket().await);
    }
    server.ended(Ended::Displaced, 150).await;
    assert_eq!(server.wire.stats().handshaking(), 50);
    for socket in &mut silent[..150] {
        assert!(until_closed(socket).await.is_empty());
    }
    let client = server.client().await;
    assert_eq!(client.echo("hello").await.unwrap(), "hello");
    server.ended(Ended::Displaced, 151).await;
}

#[tokio::test]
async fn a_connection_that_never_speaks_is_closed_by_the_preface_timeout() {
    let config = WireConfig { preface_timeout: Duration::from_millis(100), ..WireConfig::default() };
    let server = Server::start(config);
    let mut silent = server.socket().await;
    let mut slow = server.socket().await;
    slow.write_all(b"PRI * HTT").await.unwrap();
    assert!(until_closed(&mut silent).await.is_empty());
    assert!(until_closed(&mut slow).await.is_empty());
    server.ended(Ended::PrefaceTimeout, 2).await;
}

#[tokio::test]
async fn the_connection_limit_closes_one_more_at_once() {
    let server = Server::start(WireConfig { max_connections: 2, ..WireConfig::default() });
    let clients = [server.client().await, server.client().await];
    for client in &clients {
        assert_eq!(client.echo("hello").await.unwrap(), "hello");
    }
    let mut refused = server.socket().await;
    assert!(until_closed(&mut refused).await.is_empty());
    server.ended(Ended::Full, 1).await;
    drop(clients);
    eventually("the places are free", || server.wire.connections() == 0).await;
    assert_eq!(server.client().await.echo("hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn an_http1_client_is_told_what_this_port_speaks() {
    let server = Server::start(WireConfig::default());
    let mut socket = server.socket().await;
    // More than the server reads before it answers: an early close would reset the answer away.
    let request = format!("POST / HTTP/1.1\r\nhost: larder\r\nx: {}\r\n\r\n", "y".repeat(4000));
    socket.write_all(request.as_bytes()).await.unwrap();
    let answer = String::from_utf8(until_closed(&mut socket).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
}
