//! Abuse of `larder serve` itself, with its default limits: each kind is over in bounded time, a good client is served
//! meanwhile, and the process gives memory and file descriptors back. The server is a child process, so that its
//! numbers are its own.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails, in its helpers too")]

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use larder::cache::key::AccountId;
use larder::rpc::proto::v1;
use larder::rpc::proto::v1::cache_client::CacheClient;
use larder::server::accounts::file::{Access, File, FileAccount, FileToken};
use larder::server::accounts::hash::Digest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

const TOKEN: &str = "token-of-abuse";
/// Who misbehaves is closed within this time, on a machine that has other things to do.
const CLOSED_WITHIN: Duration = Duration::from_secs(12);
/// Memory and file descriptors are back within this time after that.
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// Memory that may stay: pools of the allocator, of which no kind of abuse makes more the second time.
const MAY_STAY_KB: u64 = 24 * 1024;

/// Streams that a connection may have open at a time.
const MAX_STREAMS: usize = larder::server::accept::config::MAX_STREAMS as usize;

/// Held by the test whose replica runs: beside others, bursts are larger and so are the allocator's pools.
static ALONE: Mutex<()> = Mutex::const_new(());

/// `larder serve`, and what it takes.
struct Replica {
    child: Child,
    address: SocketAddr,
    _alone: MutexGuard<'static, ()>,
    _directory: TempDir,
}

/// Memory (resident) and open file descriptors of the process.
#[derive(Clone, Copy, Debug)]
struct Taken {
    kb: u64,
    descriptors: usize,
}

impl Replica {
    async fn start(flags: &[&str]) -> Self {
        let alone = ALONE.lock().await;
        let directory = TempDir::new().unwrap();
        let mut account = FileAccount::new(AccountId::new("abuse").unwrap());
        account.tokens.push(FileToken { hash: Digest::of(TOKEN), access: Access::ReadWrite });
        let accounts = serde_json::to_string(&File { accounts: vec![account] }).unwrap();
        fs::write(directory.path().join("accounts.json"), accounts).unwrap();
        let ready = directory.path().join("ready.json");
        let child = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["serve", "--workers", "2", "--capacity", "64MiB", "--log", "error"])
            .args(["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--accounts")
            .arg(directory.path().join("accounts.json"))
            .arg("--ready-file")
            .arg(&ready)
            .args(flags)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut replica = Self { child, address: "127.0.0.1:0".parse().unwrap(), _alone: alone, _directory: directory };
        within(BACK_WITHIN, "the replica serves", || ready.exists()).await;
        let addresses: serde_json::Value = serde_json::from_slice(&fs::read(ready).unwrap()).unwrap();
        replica.address = addresses["grpc"].as_str().unwrap().parse().unwrap();
        replica
    }

    fn taken(&self) -> Taken {
        let process = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kb = resident.trim().trim_end_matches(" kB").parse().unwrap();
        Taken { kb, descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count() }
    }

    async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until all was given back.
    async fn gives_back(&self, before: Taken) {
        let given_back = || {
            let now = self.taken();
            now.kb <= before.kb + MAY_STAY_KB && now.descriptors <= before.descriptors
        };
        let began = Instant::now();
        while !given_back() {
            assert!(began.elapsed() < BACK_WITHIN, "{before:?} before, {:?} after", self.taken());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn good_client(&self) -> Good {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let mut good = Good(CacheClient::new(endpoint.connect().await.unwrap()));
        good.is_served().await;
        good
    }
}

impl Taken {
    /// With the pools that a first flood fills.
    fn with_pools(self) -> Self {
        Self { kb: self.kb + MAY_STAY_KB, ..self }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an HTTP/2 client says first: the preface and empty SETTINGS.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The head of a frame (RFC 9113 §4.1).
fn head(length: u8, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    [&[0, 0, length, kind, flags][..], &stream.to_be_bytes()].concat()
}

/// A client that does what clients do.
struct Good(CacheClient<Channel>);

impl Good {
    async fn is_served(&mut self) {
        let mut request =
            tonic::Request::new(v1::StoreRequest { key: "k".into(), val: "v".into(), ..Default::default() });
        request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        let stored = timeout(Duration::from_secs(2), self.0.store(request)).await;
        stored.expect("other clients are served").unwrap();
    }
}

async fn within(limit: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !so() {
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn all_closed(sockets: Vec<TcpStream>) {
    let began = Instant::now();
    for mut socket in sockets {
        let left = CLOSED_WITHIN.saturating_sub(began.elapsed());
        let mut sent = Vec::new();
        // A reset is a close too.
        let _ = timeout(left, socket.read_to_end(&mut sent)).await.expect("the server closes it");
    }
}

#[tokio::test]
async fn silent_connections_are_closed_and_give_everything_back() {
    let replica = Replica::start(&[]).await;
    let mut good = replica.good_client().await;
    let before = replica.taken();
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(replica.socket().await);
    }
    good.is_served().await;
    within(CLOSED_WITHIN, "256 stay", || replica.taken().descriptors <= before.descriptors + 256).await;
    replica.good_client().await;
    all_closed(silent).await;
    replica.gives_back(before).await;
    good.is_served().await;
}

#[tokio::test]
async fn half_a_preface_half_a_request_and_no_reading_are_closed_and_give_everything_back() {
    let replica = Replica::start(&[]).await;
    let mut good = replica.good_client().await;
    let before = replica.taken();
    let mut sockets = Vec::new();
    for index in 0..300 {
        let mut socket = replica.socket().await;
        let said: &[u8] = match index % 3 {
            0 => b"PRI * HTTP/2.0\r\n",
            // SETTINGS, then HEADERS of 100 bytes of which 3 come.
            1 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x64\x01\x04\0\0\0\x01\x83\x86\x84",
            // SETTINGS, and not even an acknowledgement of the server's.
            _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        };
        socket.write_all(said).await.unwrap();
        sockets.push(socket);
    }
    good.is_served().await;
    // Only the client's own kernel reads: nobody acknowledges or answers.
    all_closed(sockets).await;
    replica.gives_back(before).await;
    good.is_served().await;
}

#[tokio::test]
async fn half_open_tls_hellos_are_closed_and_give_everything_back() {
    let files = TempDir::new().unwrap();
    let (certificate, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&certificate, signed.cert.pem()).unwrap();
    fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let replica = Replica::start(&["--tls-cert", certificate, "--tls-key", key]).await;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(signed.cert.pem())).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", replica.address)).unwrap().tls_config(tls).unwrap();
    let mut good = Good(CacheClient::new(endpoint.connect().await.unwrap()));
    good.is_served().await;
    let before = replica.taken();
    let mut halves = Vec::new();
    for _ in 0..500 {
        let mut socket = replica.socket().await;
        // The record header of a ClientHello of 512 bytes, and its first bytes.
        socket.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
        halves.push(socket);
    }
    good.is_served().await;
    within(CLOSED_WITHIN, "256 stay", || replica.taken().descriptors <= before.descriptors + 256).await;
    Good(CacheClient::new(endpoint.connect().await.unwrap())).is_served().await;
    all_closed(halves).await;
    replica.gives_back(before).await;
    good.is_served().await;
}

#[tokio::test]
async fn an_idle_connection_costs_at_most_64_kib() {
    let replica = Replica::start(&[]).await;
    let before = replica.taken();
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(replica.good_client().await);
    }
    // 33 KiB of it are hyper's; a release build takes 46 in all.
    let each = (replica.taken().kb - before.kb) / 500;
    assert!(each <= 64, "{each} KiB each");
    idle[0].is_served().await;
}

#[tokio::test]
async fn twenty_thousand_streams_on_one_connection_give_everything_back() {
    let replica = Replica::start(&[]).await;
    let mut good = replica.good_client().await;
    let before = replica.taken();
    for _ in 0..3 {
        let (mut requests, connection) = h2::client::handshake(replica.socket().await).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = || {
            http::Request::post("http://larder/larder.v1.Cache/Pipeline")
                .header("content-type", "application/grpc")
                .header("authorization", format!("Bearer {TOKEN}"))
                .body(())
                .unwrap()
        };
        // An answer, if only to say what is wrong with the call, comes after the server's SETTINGS.
        requests.send_request(request(), true).unwrap().0.await.unwrap();
        let (mut streams, mut open) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            streams.push(requests.send_request(request(), false).unwrap());
            requests = requests.ready().await.unwrap();
        }
        // The limit is open; the others wait in the client, or are refused.
        for (response, _) in streams.drain(..MAX_STREAMS) {
            open.push(timeout(CLOSED_WITHIN, response).await.expect("it is begun").unwrap());
        }
        assert!(timeout(Duration::from_millis(200), streams.remove(0).0).await.is_err(), "the limit holds");
        good.is_served().await;
        let meanwhile = replica.taken();
        // 1,024 open pipelines: their state, not 20,000 of them (which took 174 MB without the limit).
        assert!(meanwhile.kb <= before.kb + 80 * 1024, "{before:?} before, {meanwhile:?} meanwhile");
        drop((streams, open));
        drop(requests);
        connection.abort();
        replica.gives_back(before).await;
    }
    good.is_served().await;
}

#[tokio::test]
async fn large_answers_that_nobody_reads_take_bounded_memory_and_give_it_back() {
    let replica = Replica::start(&["--max-held", "16MiB"]).await;
    let mut good = replica.good_client().await;
    let key = "large";
    let large = v1::StoreRequest { key: key.into(), val: vec![1; 1 << 20].into(), ..Default::default() };
    let mut large = tonic::Request::new(large);
    large.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    good.0.store(large).await.unwrap();
    let before = replica.taken();
    let mut builder = h2::client::Builder::new();
    let (mut requests, connection) =
        builder.initial_window_size(0).handshake::<_, bytes::Bytes>(replica.socket().await).await.unwrap();
    let connection = tokio::spawn(connection);
    let message = [&[0, 0, 0, 0, 7, 10, 5], key.as_bytes()].concat();
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..800 {
        requests = requests.ready().await.unwrap();
        let request = http::Request::post("http://larder/larder.v1.Cache/Get")
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {TOKEN}"));
        let (response, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(message.clone().into(), true).unwrap();
        let response = response.await.unwrap();
        // What comes without a message is the refusal.
        if response.headers().contains_key("grpc-status") {
            refused += 1;
        } else {
            unread.push((response, body));
        }
    }
    assert_eq!((unread.len(), refused), (15, 785));
    good.is_served().await;
    let meanwhile = replica.taken();
    // Not the 800 MiB that were asked for.
    assert!(meanwhile.kb <= before.kb + 40 * 1024, "{before:?} before, {meanwhile:?} meanwhile");
    drop((unread, requests));
    connection.abort();
    replica.gives_back(before).await;
    good.is_served().await;
}

#[tokio::test]
async fn floods_of_resets_and_of_malformed_streams_are_ended_and_give_everything_back() {
    let replica = Replica::start(&[]).await;
    let mut good = replica.good_client().await;
    let mut before = replica.taken();
    for (round, is_reset) in [true, false].repeat(5).into_iter().enumerate() {
        if round == 2 {
            // Each kind has filled its pools once; from here on nothing more may stay.
            replica.gives_back(before.with_pools()).await;
            before = replica.taken();
        }
        let mut bytes = BEGIN.to_vec();
        for stream in (1..20_000).step_by(2) {
            if is_reset {
                bytes.extend([&head(6, 1, 5, stream), b"\x83\x86\x84\x01\x01l".as_slice()].concat());
                bytes.extend([&head(4, 3, 0, stream), b"\0\0\0\x08".as_slice()].concat());
            } else {
                // No `:path`.
                bytes.extend([&head(2, 1, 5, stream), b"\x83\x86".as_slice()].concat());
            }
        }
        let (mut reader, mut writer) = replica.socket().await.into_split();
        let writing = tokio::spawn(async move { drop(writer.write_all(&bytes).await) });
        let mut sent = Vec::new();
        let _ = timeout(Duration::from_secs(2), reader.read_to_end(&mut sent)).await.expect("it is ended");
        writing.abort();
        good.is_served().await;
    }
    replica.gives_back(before).await;
}

#[tokio::test]
async fn a_terminated_replica_ends_in_time_with_silent_and_stuck_clients_present() {
    let mut replica = Replica::start(&["--drain-delay", "100ms", "--drain-timeout", "1s"]).await;
    let _silent = replica.socket().await;
    let mut stuck = replica.socket().await;
    stuck.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let _good = replica.good_client().await;
    let status = Command::new("kill").args(["-TERM", &replica.child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let mut exit = None;
    within(Duration::from_secs(6), "it exits", || {
        exit = replica.child.try_wait().unwrap();
        exit.is_some()
    })
    .await;
    assert!(exit.unwrap().success(), "{exit:?}");
}

#[tokio::test]
async fn floods_of_pings_settings_and_empty_data_take_no_memory_and_harm_nobody() {
    let replica = Replica::start(&[]).await;
    let mut good = replica.good_client().await;
    let before = replica.taken();
    let ping = [head(8, 6, 0, 0), vec![1; 8]].concat();
    let settings = head(0, 4, 0, 0);
    let empty = head(0, 0, 0, 1);
    let request = [head(6, 1, 4, 1), b"\x83\x86\x84\x01\x01l".to_vec()].concat();
    for reads in [true, false] {
        let mut floods = Vec::new();
        for (first, frame) in [(&[][..], &ping), (&[], &settings), (&request, &empty)] {
            let (mut reader, mut writer) = replica.socket().await.into_split();
            let bytes = [BEGIN, first].concat();
            let frames = frame.repeat(1000);
            floods.push(tokio::spawn(async move {
                writer.write_all(&bytes).await?;
                for _ in 0..500 {
                    writer.write_all(&frames).await?;
                }
                Ok::<_, std::io::Error>(writer)
            }));
            floods.push(tokio::spawn(async move {
                if reads {
                    // A reset is an end too.
                    let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
                }
                std::future::pending().await
            }));
        }
        for _ in 0..20 {
            good.is_served().await;
            let meanwhile = replica.taken();
            assert!(meanwhile.kb <= before.kb + 20 * 1024, "{before:?} before, {meanwhile:?} meanwhile");
        }
        for flood in floods {
            flood.abort();
        }
        replica.gives_back(before).await;
    }
    good.is_served().await;
}
