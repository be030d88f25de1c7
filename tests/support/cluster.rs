//! Replicas of one cluster in the test's own process, each as `larder serve` builds it, on free ports of the loopback. The test
//! writes the members file, as an orchestrator does: it alone says who serves.

#![allow(dead_code, reason = "each test binary uses the part that it needs")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use larder::client::{Client, Config as ClientConfig, Routing};
use larder::cluster::members::{Member, Members};
use larder::rpc::token::Token;
use larder::server::app::{self, Bound};
use larder::server::clock::Clock;
use larder::server::config::Config;
use larder::server::drain::Outcome;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::support::{self, TOKEN};

/// How long anything in a cluster may take: a lost member is declared after four seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Replicas, and the file that lists them.
pub struct TestCluster {
    directory: TempDir,
    members: Members,
    pub replicas: BTreeMap<String, Bound>,
    flags: Vec<String>,
}

impl TestCluster {
    /// No replica yet.
    pub fn empty(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let accounts = support::Builder::default().accounts;
        std::fs::write(directory.path().join("accounts.json"), serde_json::to_string(&accounts).unwrap()).unwrap();
        let flags = flags.iter().map(ToString::to_string).collect();
        let mut cluster = Self { directory, members: Members::default(), replicas: BTreeMap::new(), flags };
        cluster.write();
        cluster
    }

    /// So many replicas, named `a`, `b` and so on, serving and settled.
    pub async fn of(count: usize) -> Self {
        let mut cluster = Self::empty(&[]);
        for uid in ["a", "b", "c", "d", "e", "f"].iter().take(count) {
            cluster.join(uid).await;
        }
        cluster.settled().await;
        cluster
    }

    pub fn members_file(&self) -> PathBuf {
        self.directory.path().join("members.json")
    }

    /// The flags of a replica, for one in a process of its own too.
    pub fn flags(&self, uid: &str) -> Vec<String> {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let mut flags = vec![
            format!("--accounts={}", path("accounts.json")),
            format!("--members-file={}", path("members.json")),
            format!("--uid={uid}"),
        ];
        for port in ["listen", "peer-listen", "health-listen", "admin-listen"] {
            flags.push(format!("--{port}=127.0.0.1:0"));
        }
        flags.extend(
            ["--workers=1", "--capacity=64MiB", "--drain-delay=0", "--linger=200ms", "--log=warn"].map(str::to_owned),
        );
        flags.extend(self.flags.iter().cloned());
        flags
    }

    /// Starts a replica and lists it as not serving yet.
    pub async fn start(&mut self, uid: &str, more: &[&str]) -> &Bound {
        let mut flags = self.flags(uid);
        flags.extend(more.iter().map(ToString::to_string));
        let config = Config::from_flags(flags).unwrap();
        config.check().unwrap();
        let bound = timeout(PATIENCE, app::build(&config, Clock::start())).await.unwrap().unwrap();
        let peer = bound.addresses.peer.unwrap();
        self.list(uid, bound.addresses.grpc, peer);
        self.replicas.insert(uid.to_owned(), bound);
        &self.replicas[uid]
    }

    /// Starts a replica, and says that it serves once it does.
    pub async fn join(&mut self, uid: &str) {
        self.start(uid, &[]).await;
        let admin = self.replicas[uid].addresses.admin;
        self.serves(uid, admin).await;
    }

    pub fn list(&mut self, uid: &str, grpc: SocketAddr, peer: SocketAddr) {
        let (address, peer) = (grpc.to_string(), peer.to_string());
        let member = Member { address, peer, uid: uid.to_owned(), ready: Some(false), ..Member::default() };
        self.members.endpoints.push(member);
        self.write();
    }

    /// Waits until a replica is ready, and lists it as serving.
    pub async fn serves(&mut self, uid: &str, admin: SocketAddr) {
        wait(&format!("{uid} is ready"), async || page(admin, "/readyz").await.0 == 200).await;
        self.change(uid, |member| member.ready = Some(true));
    }

    pub fn change(&mut self, uid: &str, change: impl FnOnce(&mut Member)) {
        change(self.members.endpoints.iter_mut().find(|member| member.uid == uid).unwrap());
        self.write();
    }

    /// A replica ends as Kubernetes ends a pod: marked, signalled, and removed when its process is gone.
    pub async fn leave(&mut self, uid: &str) -> Outcome {
        self.change(uid, |member| member.terminating = Some(true));
        let bound = self.replicas.remove(uid).unwrap();
        let outcome = timeout(PATIENCE, bound.shutdown.now()).await.unwrap();
        self.members.endpoints.retain(|member| member.uid != uid);
        self.write();
        outcome
    }

    fn write(&mut self) {
        self.members.version += 1;
        self.members.write(&self.members_file()).unwrap();
    }

    /// A client of one replica, which knows nothing of the others.
    pub fn client(&self, uid: &str) -> Client {
        client(self.replicas[uid].addresses.grpc)
    }

    /// The page of the members, as a replica has it.
    pub async fn page_of(&self, uid: &str) -> Value {
        let (_, body) = page(self.replicas[uid].addresses.admin, "/members").await;
        serde_json::from_str(&body).unwrap()
    }

    /// A metric of a replica, by the beginning of its line.
    pub async fn metric(&self, uid: &str, name: &str) -> u64 {
        let (_, metrics) = page(self.replicas[uid].addresses.admin, "/metrics").await;
        metric(&metrics, name)
    }

    /// Waits until all replicas see all of them on the ring, and no hand-off is under way.
    pub async fn settled(&self) {
        self.settled_as(self.replicas.len()).await;
    }

    /// The same, with so many on the ring.
    pub async fn settled_as(&self, ring: usize) {
        wait(&format!("{ring} replicas are on the ring and settled"), async || {
            let mut digests = Vec::new();
            for uid in self.replicas.keys() {
                let page = self.page_of(uid).await;
                if page["settled"] != true || on_ring(&page) != ring {
                    return false;
                }
                digests.push(page["view"]["digest"].clone());
            }
            digests.dedup();
            digests.len() == 1
        })
        .await;
    }

    /// Ends them all.
    pub async fn end(mut self) {
        let replicas = std::mem::take(&mut self.replicas);
        for uid in replicas.keys() {
            self.change(uid, |member| member.terminating = Some(true));
        }
        let ends = replicas.into_values().map(|bound| bound.shutdown.now());
        timeout(PATIENCE, futures::future::join_all(ends)).await.unwrap();
    }
}

pub fn client(address: SocketAddr) -> Client {
    let mut config = ClientConfig::new(address.to_string().parse().unwrap());
    config.routing = Routing::Seeds;
    config.token = Some(Token::new(TOKEN).unwrap());
    Client::new(config).unwrap()
}

/// How many members own keys, by a page.
pub fn on_ring(page: &Value) -> usize {
    page["members"].as_array().map_or(0, |all| all.iter().filter(|member| member["state"] == "ring").count())
}

/// What a page says of a member.
pub fn member<'a>(page: &'a Value, uid: &str) -> Option<&'a Value> {
    page["members"].as_array()?.iter().find(|member| member["uid"] == uid)
}

pub fn metric(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no metric {name} in:\n{metrics}")).parse().unwrap()
}

/// Waits, in bounded time, until something is so.
pub async fn wait(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < until, "it did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Status and body of a page of an admin port; status 0 when nobody answers.
pub async fn page(admin: SocketAddr, path: &str) -> (u16, String) {
    let ask = async {
        let mut stream = TcpStream::connect(admin).await.ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    };
    timeout(PATIENCE, ask).await.unwrap().unwrap_or_default()
}
