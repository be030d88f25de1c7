//! Write coalescing on both sides of real sockets.

use std::time::Duration;

use larder::rpc::coalesce::Coalesce;
use larder::server::accept::WireConfig;
use tokio::time::timeout;

use crate::harness::{Client, PATIENCE, Server};

/// A value whose every byte depends on who sent it and where it stands.
fn value(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 31 + seed * 7 + index / 251) % 256).unwrap()).collect()
}

async fn stress(server: &Server, callers: usize, calls: usize, lengths: &[usize]) {
    let mut connections = Vec::new();
    let mut tasks = Vec::new();
    for connection in 0..4 {
        let socket = server.socket().await;
        let client = std::sync::Arc::new(Client::over(Coalesce::new(socket)).await.unwrap());
        for caller in 0..callers {
            let client = std::sync::Arc::clone(&client);
            let lengths = lengths.to_vec();
            tasks.push(tokio::spawn(async move {
                for call in 0..calls {
                    let seed = connection * 1_000 + caller * 10 + call;
                    let sent = value(seed, lengths[seed % lengths.len()] + seed % 97);
                    assert!(client.echo(sent.clone()).await.unwrap() == sent, "the answer differs");
                }
            }));
        }
        connections.push(client);
    }
    for task in tasks {
        timeout(PATIENCE, task).await.expect("nothing stalls").unwrap();
    }
}

#[tokio::test]
async fn values_of_0_to_300_kb_come_back_whole_on_one_thread() {
    let server = Server::start(WireConfig::default());
    stress(&server, 16, 4, &[0, 1, 300, 5_000, 65_000, 300_000]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn values_of_0_to_300_kb_come_back_whole_across_threads() {
    let server = Server::start(WireConfig::default());
    stress(&server, 16, 4, &[0, 1, 300, 5_000, 65_000, 300_000]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_small_answers_come_back_whole() {
    let server = Server::start(WireConfig::default());
    stress(&server, 64, 20, &[0, 40, 200, 1_000]).await;
}

#[tokio::test]
async fn a_lone_call_waits_for_no_timer() {
    let server = Server::start(WireConfig::default());
    let client = Client::over(Coalesce::new(server.socket().await)).await.unwrap();
    client.echo("first").await.unwrap();
    let began = std::time::Instant::now();
    for _ in 0..200 {
        client.echo("hello").await.unwrap();
    }
    // A timer's tick is 1 ms; a call over loopback takes a tenth of it.
    assert!(began.elapsed() < Duration::from_millis(200) * 10, "{:?}", began.elapsed());
}
