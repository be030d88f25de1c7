//! A replica in a process of its own, which can be stopped, killed and ended as the kubelet does it.

#![allow(dead_code, reason = "each test binary uses the part that it needs")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::test_cluster::{TestCluster, metric, on_ring, page, wait};

/// A process that is killed with its test.
pub struct Process {
    pub child: Child,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    /// Starts one, and lists it as not serving yet.
    pub async fn start(cluster: &mut TestCluster, uid: &str, more: &[String]) -> Self {
        let ready = cluster.members_file().with_file_name(format!("{uid}.json"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.arg("serve").args(cluster.flags(uid)).args(more).arg(format!("--ready-file={}", ready.display()));
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        wait(&format!("{uid} listens"), async || ready.exists()).await;
        let addresses: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        cluster.list(uid, address("grpc"), address("peer"));
        Self { child, grpc: address("grpc"), admin: address("admin") }
    }

    /// The same, and waits until it is ready and listed as serving.
    pub async fn join(cluster: &mut TestCluster, uid: &str, more: &[String]) -> Self {
        let process = Self::start(cluster, uid, more).await;
        cluster.serves(uid, process.admin).await;
        process
    }

    /// Waits until it sees so many on the ring, and no hand-off is under way there.
    pub async fn settled(&self, ring: usize) {
        wait(&format!("{ring} are on the ring and settled"), async || {
            let page: Value = serde_json::from_str(&page(self.admin, "/members").await.1).unwrap();
            page["settled"] == true && on_ring(&page) == ring
        })
        .await;
    }

    pub async fn metric(&self, name: &str) -> u64 {
        metric(&page(self.admin, "/metrics").await.1, name)
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM; answers whether it ended with status 0.
    pub async fn end(mut self, cluster: &mut TestCluster, uid: &str) -> bool {
        cluster.change(uid, |member| member.terminating = Some(true));
        self.signal("TERM");
        let mut status = None;
        wait(&format!("{uid} ends"), async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
