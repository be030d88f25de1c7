//! Too many streams, broken ones, and clients that do not read.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use larder::server::accept::{Ended, WireConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Client, PATIENCE, Server, eventually, post, until_closed};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `:method POST`, `:scheme http`, `:path /`, `:authority l` by HPACK's static table and one literal.
const REQUEST: &[u8] = b"\x83\x86\x84\x01\x01l";

async fn raw(server: &Server) -> TcpStream {
    let mut socket = server.socket().await;
    socket.write_all(PREFACE).await.unwrap();
    socket.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    socket
}

/// The error code of the GOAWAY in what the server sent, if there is one.
fn goaway(mut sent: &[u8]) -> Option<u32> {
    while sent.len() >= 9 {
        let length = usize::from(sent[0]) << 16 | usize::from(sent[1]) << 8 | usize::from(sent[2]);
        let (head, rest) = sent.split_at(9);
        let payload = rest.get(..length)?;
        if head[3] == GOAWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        sent = &rest[length..];
    }
    None
}

/// Writes until the server closes, and reads beside it; answers the GOAWAY's error code.
async fn flood(socket: TcpStream, bytes: Vec<u8>) -> Option<u32> {
    let (mut reader, mut writer) = socket.into_split();
    let write = tokio::spawn(async move {
        let _ = writer.write_all(&bytes).await; // the server may close before everything is sent
        writer
    });
    let sent = until_closed(&mut reader).await;
    write.abort();
    goaway(&sent)
}

/// A good client is answered within a second.
async fn is_unharmed(client: &Client) {
    let answer = timeout(Duration::from_secs(1), client.echo("hello")).await;
    assert_eq!(answer.expect("other clients are unharmed").unwrap(), "hello");
}

#[tokio::test]
async fn of_20000_streams_on_one_connection_1024_are_open_at_a_time() {
    let server = Server::start(WireConfig::default());
    let good = server.client().await;
    let client = server.client().await;
    good.echo("hello").await.unwrap();
    client.echo("the SETTINGS have come").await.unwrap();
    let calls = server.calls.load(std::sync::atomic::Ordering::Relaxed);
    let mut requests = client.requests.clone();
    let mut open = Vec::new();
    for _ in 0..20_000 {
        // A client that keeps to the limit queues the rest by itself.
        open.push(requests.send_request(post("/hang"), true).unwrap());
        if let Ok(next) = timeout(Duration::from_millis(10), requests.clone().ready()).await {
            requests = next.unwrap();
        } else {
            break;
        }
    }
    let begun = || server.calls.load(std::sync::atomic::Ordering::Relaxed) - calls;
    eventually("1,024 streams are open", || begun() == 1024).await;
    is_unharmed(&good).await;
    assert_eq!(begun(), 1025, "the good client's and no more");
    drop(open);
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_to_a_client_that_ignores_it() {
    let server = Server::start(WireConfig { max_streams: 64, ..WireConfig::default() });
    let good = server.client().await;
    let mut bytes = Vec::new();
    for stream in 0..20_000_u32 {
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * stream + 1, REQUEST));
    }
    // Each is reset with REFUSED_STREAM, and resets by our side are counted.
    assert_eq!(flood(raw(&server).await, bytes).await, Some(Reason::ENHANCE_YOUR_CALM.into()));
    is_unharmed(&good).await;
    assert!(server.calls.load(std::sync::atomic::Ordering::Relaxed) <= 65);
}

#[tokio::test]
async fn rapid_reset_ends_with_a_goaway() {
    let server = Server::start(WireConfig::default());
    let good = server.client().await;
    let mut bytes = Vec::new();
    for stream in 0..20_000_u32 {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, REQUEST));
        bytes.extend(frame(RST_STREAM, 0, 2 * stream + 1, &8_u32.to_be_bytes()));
    }
    assert_eq!(flood(raw(&server).await, bytes).await, Some(Reason::ENHANCE_YOUR_CALM.into()));
    is_unharmed(&good).await;
}

#[tokio::test]
async fn a_flood_of_malformed_streams_ends_with_a_goaway() {
    let server = Server::start(WireConfig::default());
    let good = server.client().await;
    let mut bytes = Vec::new();
    for stream in 0..5_000_u32 {
        // A request without `:path`: a stream error for each.
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, b"\x83\x86"));
    }
    assert_eq!(flood(raw(&server).await, bytes).await, Some(Reason::ENHANCE_YOUR_CALM.into()));
    is_unharmed(&good).await;
}

#[tokio::test]
async fn a_continuation_flood_ends_with_a_goaway() {
    let server = Server::start(WireConfig::default());
    let good = server.client().await;
    let mut bytes = frame(HEADERS, 0, 1, REQUEST);
    let header = [b"\x00\x04name\x7f\x81\x07".as_slice(), &[b'v'; 256]].concat();
    let payload = header.repeat(50);
    for _ in 0..2_000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &payload));
    }
    assert!(flood(raw(&server).await, bytes).await.is_some(), "a GOAWAY");
    is_unharmed(&good).await;
}

#[tokio::test]
async fn headers_at_a_byte_a_moment_are_cut_by_the_header_timeout() {
    let config = WireConfig { header_timeout: Duration::from_millis(200), ..WireConfig::default() };
    let server = Server::start(config);
    let (mut reader, mut writer) = raw(&server).await.into_split();
    let drip = tokio::spawn(async move {
        for byte in frame(HEADERS, END_HEADERS, 1, &[REQUEST; 20].concat()).iter().cycle() {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    until_closed(&mut reader).await;
    server.ended(Ended::SlowHeaders, 1).await;
    drip.abort();
}

#[tokio::test]
async fn a_client_that_never_reads_its_answer_is_cut_and_a_slow_one_is_not() {
    let config = WireConfig {
        stall_timeout: Duration::from_millis(700),
        silence_timeout: Duration::from_mins(1),
        ..WireConfig::default()
    };
    let server = Server::start(config);
    let mut never = raw(&server).await;
    // Windows of 2^31-1 bytes: only the socket holds the server back.
    never.write_all(&frame(SETTINGS, 0, 0, b"\0\x04\x7f\xff\xff\xff")).await.unwrap();
    never.write_all(&frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes())).await.unwrap();
    never.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x83\x86\x04\x04/big\x01\x01l")).await.unwrap();

    let slow = server.client().await;
    let mut requests = slow.requests.clone();
    let (response, _) = requests.send_request(post("/big"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut read = 0;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let chunk = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        read += chunk.len();
        tokio::time::sleep(Duration::from_millis(5)).await;
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    server.ended(Ended::Stalled, 1).await;
    while read < crate::harness::BIG {
        let chunk = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        read += chunk.len();
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    drop(never);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_cut_and_an_idle_one_that_does_is_not() {
    let config = WireConfig {
        keepalive_interval: Duration::from_millis(100),
        silence_timeout: Duration::from_millis(400),
        ..WireConfig::default()
    };
    let server = Server::start(config);
    let idle = server.client().await;
    let mut deaf = raw(&server).await;
    let mut sent = Vec::new();
    timeout(PATIENCE, deaf.read_to_end(&mut sent)).await.expect("the server closes it").ok();
    server.ended(Ended::Silent, 1).await;
    is_unharmed(&idle).await;
    assert_eq!(server.wire.connections(), 1);
}

#[tokio::test]
async fn an_oversized_header_list_is_refused_and_the_connection_lives() {
    let server = Server::start(WireConfig::default());
    let client = server.client().await;
    let mut request = post("/echo");
    request.headers_mut().insert("x-large", "y".repeat(40_000).parse().unwrap());
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    let refused = response.await.map(|response| response.status().as_u16());
    assert!(matches!(refused, Ok(431) | Err(_)), "{refused:?}");
    assert_eq!(client.echo(Bytes::from_static(b"hello")).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_client_that_takes_its_time_with_an_answer_is_not_cut_while_it_answers_pings() {
    let config = WireConfig {
        keepalive_interval: Duration::from_millis(100),
        silence_timeout: Duration::from_millis(400),
        stall_timeout: Duration::from_millis(300),
        ..WireConfig::default()
    };
    let server = Server::start(config);
    let client = server.client().await;
    let (response, _) = client.requests.clone().send_request(post("/big"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    // Its window is full meanwhile: nothing is sent but PINGs.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut read = 0;
    while read < crate::harness::BIG {
        let chunk = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        read += chunk.len();
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
}

#[tokio::test]
async fn a_goaway_reaches_a_client_that_goes_on_sending() {
    let server = Server::start(WireConfig::default());
    let mut socket = raw(&server).await;
    // A header name in upper case: h2 says GOAWAY at the first, and the others are never read by it.
    let malformed = [REQUEST, b"\0\x01A\x01b"].concat();
    for stream in 0..3_000_u32 {
        socket.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &malformed)).await.unwrap();
    }
    let mut sent = Vec::new();
    // No reset: the end is a plain close, and everything before it is read.
    timeout(PATIENCE, socket.read_to_end(&mut sent)).await.unwrap().expect("a close without a reset");
    assert_eq!(goaway(&sent), Some(Reason::PROTOCOL_ERROR.into()));
    socket.write_all(b"still talking").await.expect("the server has not reset the connection");
}
