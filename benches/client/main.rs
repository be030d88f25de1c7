//! What a call costs its client: ours with shared pipelines and with a stream per call, and tonic's channel on the same socket
//! wrapper. `cargo bench --bench client -- --bench [seconds per line]`. It also drives the gRPC clients of `benches/compare`. All clients run on one thread, whose CPU time is the
//! figure; the replica is a process of its own. What the numbers mean: `benches/README.md`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "what it is for")]

mod drive;
mod loops;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder::cache::key::AccountId;
use larder::client::{Client, Config, Routing, StoreOptions, Target};
use larder::rpc::channels;
use larder::rpc::proto::v1;
use larder::rpc::proto::v1::cache_client::CacheClient;
use larder::server::accounts::file::{Access, File, FileAccount, FileToken};
use larder::server::accounts::hash::Digest;
use larder::server::app;
use larder::server::clock::Clock;
use larder::server::config::Config as ServerConfig;
use tonic::Request;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOKEN: &str = "token-of-the-bench";
const VALUE_BYTES: [usize; 2] = [64, 1024];
const CONNECTIONS: usize = 4;
/// Callers in all, a quarter on each connection.
const CALLERS: [usize; 2] = [64, 4];

/// Ends the replica with the bench.
struct Replica(Child);

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(),
        Some("drive") => println!("{}", drive::drive(&arguments[1], arguments[2..].iter().cloned()).unwrap()),
        Some("--bench") => measure(arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(2.0)),
        _ => println!("nothing is measured without --bench; run `cargo bench --bench client`"),
    }
}

/// The replica, until it is killed.
fn serve() {
    let directory = tempfile::tempdir().unwrap();
    let accounts = directory.path().join("accounts.json");
    let mut account = FileAccount::new(AccountId::new("bench").unwrap());
    account.tokens.push(FileToken { hash: Digest::of(TOKEN), access: Access::ReadWrite });
    std::fs::write(&accounts, serde_json::to_string(&File { accounts: vec![account] }).unwrap()).unwrap();
    let mut flags = vec![format!("--accounts={}", accounts.display())];
    flags.extend(["listen", "health-listen", "admin-listen"].map(|port| format!("--{port}=127.0.0.1:0")));
    flags.extend(["--workers=1", "--capacity=256MiB", "--log=warn"].map(str::to_owned));
    let config = ServerConfig::from_flags(flags).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bound = app::build(&config, Clock::start()).await.unwrap();
        println!("{}", bound.addresses.grpc);
        std::future::pending::<()>().await;
    });
}

fn measure(seconds: f64) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let mut child = child.arg("serve").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _replica = Replica(child);
    let target: Target = line.trim().parse().unwrap();
    println!(
        "| value | callers | client | calls/s | client CPU per call, us | x of tonic |\n|---|---|---|---|---|---|"
    );
    for bytes in VALUE_BYTES {
        for callers in CALLERS {
            let mut tonics = 0.0;
            for kind in ["tonic", "larder, unary", "larder, pipeline"] {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let (rate, cost) = runtime.block_on(one(kind, &target, bytes, callers, seconds));
                tonics = if kind == "tonic" { cost } else { tonics };
                println!("| {bytes} B | {callers} | {kind} | {rate:.0} | {cost:.2} | {:.2} |", cost / tonics);
            }
        }
    }
}

/// Calls per second, and microseconds of CPU per call.
async fn one(kind: &str, target: &Target, bytes: usize, callers: usize, seconds: f64) -> (f64, f64) {
    let config = Config {
        token: Some(TOKEN.parse().unwrap()),
        connections: CONNECTIONS,
        routing: Routing::Seeds,
        unary: kind == "larder, unary",
        ..Config::new(target.clone())
    };
    let tls = config.tls.clone();
    let client = Client::new(config).unwrap();
    let keys: Vec<String> = (0..callers).map(|caller| format!("key-{caller}")).collect();
    for key in &keys {
        client.store(key, vec![b'x'; bytes], StoreOptions::default()).await.unwrap();
    }
    let channels: Vec<_> = (0..CONNECTIONS).map(|_| channels::connect(target, &tls).unwrap()).collect();
    let (ends, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for (caller, key) in keys.into_iter().enumerate() {
        let (ends, calls) = (Arc::clone(&ends), Arc::clone(&calls));
        let (client, channel) = (client.clone(), channels[caller % CONNECTIONS].clone());
        let is_tonic = kind == "tonic";
        tasks.spawn(async move {
            let mut tonic = CacheClient::new(channel);
            while !ends.load(Ordering::Relaxed) {
                if is_tonic {
                    let mut request = Request::new(v1::GetRequest { key: key.clone() });
                    request.set_timeout(Duration::from_secs(1));
                    request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
                    assert_eq!(tonic.get(request).await.unwrap().into_inner().val.len(), bytes);
                } else {
                    assert_eq!(client.get(&key).await.unwrap().unwrap().value.len(), bytes);
                }
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, cpu, began) = (calls.load(Ordering::Relaxed), cpu_seconds(), std::time::Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (made, cpu, time) = (calls.load(Ordering::Relaxed) - before, cpu_seconds() - cpu, began.elapsed());
    ends.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    #[expect(clippy::cast_precision_loss, reason = "figures are rounded anyway")]
    let made = made as f64;
    (made / time.as_secs_f64(), cpu / made * 1e6)
}

/// CPU time of this thread.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
