//! F16: a replica whose packets are dropped, as when its machine is gone or a rule of a firewall changed. Nothing is refused and
//! nothing reset, so only silence tells. The network namespace in which it happens is the test's own; it takes root, `ip`, and
//! `nft` or `iptables`, and says that it is skipped where they are missing.

use std::env;
use std::process::{Command, Output};
use std::time::Duration;

use larder::client::{Client, Config, StoreOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cluster::{Dev, TOKEN};

/// Set for the process that runs inside of the namespace.
const INSIDE: &str = "LARDER_TEST_INSIDE";

/// The test that is run there.
const INNER: &str = "black_hole::inside_of_the_namespace";

/// Within this time a client notices that a replica is silent; in a debug build, as with [`super::load::DEADLINE`], it has more.
const NOTICED: Duration = Duration::from_secs(if cfg!(debug_assertions) { 6 } else { 3 });

/// A call to somebody else may take this long, on a busy machine too: far less than what it takes to notice.
const UNAFFECTED: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 500 });

/// How long calls are made before the fault, and after it.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(5);

const KEYS: usize = 300;

/// Callers of the silent replica's keys, and of all others'.
const CALLERS: usize = 8;

/// A network namespace, removed with this.
struct Namespace(String);

impl Namespace {
    /// Why there is none, if there is none.
    fn new() -> Result<Self, String> {
        run("nft", &["--version"]).or_else(|_| run("iptables", &["--version"]))?;
        let name = format!("larder-test-{:08x}", rand::random::<u32>());
        run("ip", &["netns", "add", &name])?;
        let namespace = Self(name);
        run("ip", &["-n", &namespace.0, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run("ip", &["netns", "delete", &self.0]);
    }
}

/// Drops what is sent to a port of this machine, and what is sent from it.
fn drop_packets(port: &str) -> Result<(), String> {
    let sides = ["dport", "sport"];
    if run("nft", &["--version"]).is_err() {
        for side in sides {
            run("iptables", &["-A", "INPUT", "-p", "tcp", &format!("--{side}"), port, "-j", "DROP"])?;
        }
        return Ok(());
    }
    run("nft", &["add", "table", "inet", "hole"])?;
    run("nft", &["add chain inet hole input { type filter hook input priority 0; }"])?;
    for side in sides {
        run("nft", &["add", "rule", "inet", "hole", "input", "tcp", side, port, "drop"])?;
    }
    Ok(())
}

/// Runs a command that must succeed.
fn run(program: &str, arguments: &[&str]) -> Result<Output, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let said = || format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(output) } else { Err(said()) }
}

#[test]
fn a_replica_whose_packets_are_dropped_is_noticed_and_calls_to_others_do_not_wait() {
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(why) => {
            eprintln!("skipped: no network namespace with a firewall can be made here ({why})");
            return;
        }
    };
    let itself = env::current_exe().unwrap();
    let arguments = ["--exact", INNER, "--ignored", "--nocapture"];
    let output = Command::new("ip")
        .args(["netns", "exec", &namespace.0])
        .arg(itself)
        .args(arguments)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "it failed inside of the namespace");
}

/// Calls on some keys, each caller's one after the other. None fails; answers how long they took, sorted.
async fn callers(client: &Client, keys: Vec<String>, until: Instant) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        let (client, keys) = (client.clone(), keys.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            for key in keys.iter().cycle().skip(number) {
                let began = Instant::now();
                if began >= until {
                    break;
                }
                let got = client.get(key).await.unwrap_or_else(|error| panic!("{key}: {error}"));
                assert!(got.is_some(), "{key} is lost");
                took.push(began.elapsed());
            }
            took
        });
    }
    let mut all = tasks.join_all().await.concat();
    all.sort_unstable();
    all
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs inside of the namespace that the test above makes"]
#[expect(
    clippy::disallowed_methods,
    reason = "a test that starts itself anew has nothing but its environment to know it by"
)]
async fn inside_of_the_namespace() {
    if env::var_os(INSIDE).is_none() {
        return;
    }
    let dev = Dev::alone(3).await;
    let rows = dev.ring().await;
    let config = Config::new(rows[0].address.parse().unwrap());
    let config = Config { token: Some(TOKEN.parse().unwrap()), timeout: 2 * NOTICED, ..config };
    let client = Client::new(config).unwrap();
    client.ready().await.unwrap();
    let names: Vec<String> = (0..KEYS).map(|number| format!("key {number}")).collect();
    let stored = client.store_many(names.iter().map(|name| (name, "v")), StoreOptions::default()).await;
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    let (topology, silent) = (client.topology().await.unwrap(), &rows[1].address);
    let (its, others): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| topology.owner(name).is_some_and(|owner| owner.address == *silent));
    assert!(its.len() > 20 && others.len() > 20, "{} and {}", its.len(), others.len());
    let before = callers(&client, others.clone(), Instant::now() + BEFORE).await;

    // Between the client and the replica only: the other replicas reach it, so no key is lost.
    let port = silent.rsplit_once(':').unwrap().1;
    drop_packets(port).unwrap();
    let until = Instant::now() + AFTER;
    let (its, others) = tokio::join!(callers(&client, its, until), callers(&client, others, until));

    let told = |what: &str, took: &[Duration]| {
        let (p50, p99, most) = (quantile(took, 50), quantile(took, 99), took[took.len() - 1]);
        eprintln!("{what}: {} calls, p50 {p50:?}, p99 {p99:?}, slowest {most:?}", took.len());
    };
    told("to others, before", &before);
    told("to others, after", &others);
    told("to the silent one's keys, after", &its);
    assert!(its[its.len() - 1] <= NOTICED, "noticed late");
    assert!(its[its.len() - 1] > UNAFFECTED, "nothing waited: the packets were not dropped");
    let late = its.iter().filter(|took| **took > UNAFFECTED).count();
    assert!(late <= CALLERS, "calls went to the silent one again, {late} of them");
    assert!(quantile(&others, 99) <= UNAFFECTED, "calls to others waited");
}
