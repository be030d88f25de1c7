//! The client against clusters of real replicas: calls go straight to the owner, and nothing fails while members come and go.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

mod support;
#[path = "support/cluster.rs"]
mod test_cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder::client::{Client, Config, StoreOptions, Target};
use larder::server::drain::Outcome;
use support::TOKEN;
use test_cluster::{TestCluster, wait};

const KEYS: usize = 300;

fn config(seed: impl ToString) -> Config {
    Config {
        token: Some(TOKEN.parse().unwrap()),
        timeout: Duration::from_secs(10),
        ..Config::new(seed.to_string().parse().unwrap())
    }
}

fn address(cluster: &TestCluster, uid: &str) -> String {
    cluster.replicas[uid].addresses.grpc.to_string()
}

fn client(cluster: &TestCluster, uid: &str) -> Client {
    Client::new(config(address(cluster, uid))).unwrap()
}

async fn forwards(cluster: &TestCluster) -> u64 {
    let mut sent = 0;
    for uid in cluster.replicas.keys() {
        for outcome in ["answered", "moved", "refused", "unknown"] {
            let name = format!("larder_forwards_total{{outcome=\"{outcome}\"}}");
            sent += cluster.metric(uid, &name).await;
        }
    }
    sent
}

/// Calls that go on until they are told to end.
struct Load {
    ends: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<Vec<String>>,
}

impl Load {
    fn start(client: &Client, callers: usize) -> Self {
        let (ends, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..callers {
            let (client, ends, calls) = (client.clone(), Arc::clone(&ends), Arc::clone(&calls));
            tasks.spawn(async move {
                let mut failed = Vec::new();
                let mut round = 0_u64;
                while !ends.load(Ordering::Relaxed) {
                    let key = format!("{caller}-{}", round % 40);
                    let value = format!("{key} {round}");
                    match client.store(&key, value.clone(), StoreOptions::default()).await {
                        Ok(_) => match client.get(&key).await {
                            Ok(Some(got)) if got.value == value => {}
                            got => failed.push(format!("{key}: stored {value}, got {got:?}")),
                        },
                        Err(error) => failed.push(format!("{key}: {error:?}")),
                    }
                    calls.fetch_add(2, Ordering::Relaxed);
                    round += 1;
                }
                failed
            });
        }
        Self { ends, calls, tasks }
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Waits until there were so many calls more.
    async fn go_on(&self, more: u64) {
        let until = self.calls() + more;
        wait("the load goes on", async || self.calls() >= until).await;
    }

    async fn end(self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        let failed: Vec<String> = self.tasks.join_all().await.into_iter().flatten().collect();
        let calls = self.calls.load(Ordering::Relaxed);
        assert!(failed.is_empty(), "{} of {calls} calls failed, for instance {}", failed.len(), failed[0]);
        calls
    }
}

#[tokio::test]
async fn calls_go_straight_to_the_owner() {
    let cluster = TestCluster::of(3).await;
    let client = client(&cluster, "a");
    client.ready().await.unwrap();
    let before = forwards(&cluster).await;
    let entries = (0..KEYS).map(|number| (format!("key {number}"), format!("value {number}")));
    let stored = client.store_many(entries, StoreOptions::default()).await;
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    for number in 0..KEYS {
        let got = client.get(&format!("key {number}")).await.unwrap().unwrap();
        assert_eq!(got.value, format!("value {number}"));
    }
    assert_eq!(forwards(&cluster).await, before);
    let topology = client.topology().await.unwrap();
    let shares: f64 = topology.members().iter().map(|member| topology.share(member)).sum();
    assert!((shares - 1.0).abs() < 1e-9 && topology.account() == "one", "{topology:?}");
    for member in topology.members() {
        assert!(client.stats_of(&member.address).await.unwrap().replica.unwrap().entries > 0);
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_dump_lists_the_whole_cluster() {
    use std::collections::BTreeSet;

    let cluster = TestCluster::of(3).await;
    let client = client(&cluster, "b");
    let names: BTreeSet<String> = (0..KEYS).map(|number| format!("key {number}")).collect();
    let stored = client.store_many(names.iter().map(|name| (name, "v")), StoreOptions::default()).await;
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    let mut dump = client.dump("key", bytes::Bytes::new()).await.unwrap();
    let mut dumped = BTreeSet::new();
    while let Some(entry) = std::future::poll_fn(|cx| {
        use tokio_stream::Stream as _;
        std::pin::Pin::new(&mut dump).poll_next(cx)
    })
    .await
    {
        assert!(dumped.insert(entry.unwrap().key));
    }
    assert_eq!(dumped, names);
    cluster.end().await;
}

#[tokio::test]
async fn members_that_come_and_go_under_load_fail_no_call() {
    let mut cluster = TestCluster::of(3).await;
    let client = client(&cluster, "a");
    client.ready().await.unwrap();
    let load = Load::start(&client, 8);
    load.go_on(500).await;
    cluster.join("d").await;
    cluster.settled().await;
    load.go_on(500).await;
    // The seed goes too: the client knows others by now.
    for uid in ["a", "c"] {
        assert_eq!(cluster.leave(uid).await, Outcome::Clean);
        load.go_on(500).await;
    }
    cluster.settled().await;
    let topology = client.topology().await.unwrap();
    assert_eq!(topology.members().iter().filter(|member| member.in_ring).count(), 2, "{topology:?}");
    let before = forwards(&cluster).await;
    load.go_on(500).await;
    assert_eq!(forwards(&cluster).await, before, "calls go straight to the owner again");
    load.end().await;
    cluster.end().await;
}

/// Makes so many calls, at least, while every connection ends for its age again and again.
async fn calls_over_connections_that_end(calls: u64, unary: bool) {
    let mut cluster = TestCluster::empty(&["--connection-age=200ms"]);
    for uid in ["a", "b", "c"] {
        cluster.join(uid).await;
    }
    cluster.settled().await;
    let client = Client::new(Config { unary, ..config(address(&cluster, "a")) }).unwrap();
    let load = Load::start(&client, 16);
    wait("connections have ended for their age often", async || {
        let mut ended = 0;
        for uid in ["a", "b", "c"] {
            ended += cluster.metric(uid, "larder_goaways_total{reason=\"age\"}").await;
        }
        ended >= 30
    })
    .await;
    let most = Duration::from_secs(600);
    let enough = async {
        while load.calls() < calls {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(most, enough).await.unwrap();
    let (began, made) = (tokio::time::Instant::now(), load.end().await);
    eprintln!("0 of {made} calls failed; the last were over after {:?}", began.elapsed());
    cluster.end().await;
}

#[tokio::test]
async fn connections_that_end_for_their_age_under_load_fail_no_call() {
    // A debug build takes ten times the CPU.
    let calls = if cfg!(debug_assertions) { 10_000 } else { 50_000 };
    calls_over_connections_that_end(calls, false).await;
}

#[tokio::test]
async fn connections_that_end_for_their_age_fail_no_unary_call() {
    calls_over_connections_that_end(2_000, true).await;
}

#[tokio::test]
#[ignore = "full size: cargo test --release --test client_cluster -- --ignored"]
async fn full_size_connections_that_end_for_their_age_under_load_fail_no_call() {
    calls_over_connections_that_end(1_000_000, false).await;
}

/// Passes bytes on between a client and a replica, until it is told to pass none.
async fn proxy(to: String, hole: Arc<AtomicBool>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    async fn pass(
        mut from: impl tokio::io::AsyncRead + Unpin,
        mut to: impl tokio::io::AsyncWrite + Unpin,
        hole: Arc<AtomicBool>,
    ) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if hole.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(replica) = TcpStream::connect(&to).await else { return };
            let ((client_in, client_out), (replica_in, replica_out)) = (client.into_split(), replica.into_split());
            tokio::spawn(pass(client_in, replica_out, Arc::clone(&hole)));
            tokio::spawn(pass(replica_in, client_out, Arc::clone(&hole)));
        }
    });
    address
}

#[tokio::test]
async fn a_replica_that_falls_silent_is_noticed_and_others_answer() {
    let cluster = TestCluster::of(2).await;
    let hole = Arc::new(AtomicBool::new(false));
    let silent: Target = proxy(address(&cluster, "a"), Arc::clone(&hole)).await.parse().unwrap();
    let other: Target = address(&cluster, "b").parse().unwrap();
    // Only seeds: the client reaches `a` by the proxy alone.
    let config = Config { routing: larder::client::Routing::Seeds, ..config(&silent) };
    let config = Config { seeds: vec![silent, other], timeout: Duration::from_secs(4), ..config };
    let client = Client::new(config).unwrap();
    let get = |number: usize| {
        let client = client.clone();
        async move { client.get(&format!("key {number}")).await }
    };
    for number in 0..20 {
        get(number).await.unwrap();
    }
    hole.store(true, Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    let calls: tokio::task::JoinSet<_> = (0..20)
        .map(|number| {
            let call = get(number);
            async move { call.await.map(|_| began.elapsed()) }
        })
        .collect();
    let mut times: Vec<Duration> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
    times.sort();
    assert!(times[19] <= Duration::from_secs(3), "noticed after {:?}", times[19]);
    assert!(times[19] >= Duration::from_secs(1), "nothing went to the silent one: {times:?}");
    assert!(times[4] <= Duration::from_millis(500), "calls to the other waited: {times:?}");
    let began = tokio::time::Instant::now();
    for number in 0..20 {
        get(number).await.unwrap();
    }
    assert!(began.elapsed() <= Duration::from_secs(1), "calls went to the silent one: {:?}", began.elapsed());
    cluster.end().await;
}
