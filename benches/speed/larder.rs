//! Larder as a peer: the release binary, `larder serve` with every layer on, and how long it takes to serve.
//!
//! "Every layer" is what a production configuration has: an accounts file with a hashed token, rate limits of the server and
//! the account, a quota in keys and bytes and a guarantee, metrics, the access log at its default level, deadlines. The
//! limits are set where they are checked on every call and never reached.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http::Request;
use larder::cache::key::AccountId;
use larder::server::accounts::file::{Access, File, FileAccount, FileToken};
use larder::server::accounts::hash::{Digest, new_token};
use prost::Message;
use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::cpu::Pinning;
use crate::grpc;
use crate::load::Protocol;
use crate::peers::{Peer, Running, free_address, spawn};

/// A rate that no load generator reaches; the bucket is asked all the same.
const RATE: u64 = 100_000_000;
const BURST: u64 = 1_000_000;

/// Memory for entries: far more than the values of the run.
const CAPACITY: &str = "1GiB";

/// How long Larder may take to serve before the run is given up.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Between two questions while it starts: a cold start is measured to this.
const POLL: Duration = Duration::from_micros(250);

/// Configuration in a directory of its own, removed with the run.
pub struct Larder {
    directory: TempDir,
    token: String,
    program: String,
}

impl Larder {
    /// Writes the accounts file.
    pub fn new(program: &str) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let token = new_token().to_string();
        let id = AccountId::new("speed").map_err(|error| error.to_string())?;
        let account = FileAccount {
            tokens: vec![FileToken { hash: Digest::of(&token), access: Access::ReadWrite }],
            max_cache_keys: 1_000_000,
            max_bytes: 1 << 30,
            requests_per_second: RATE,
            burst: BURST,
            guaranteed_bytes: 64 << 20,
            ..FileAccount::new(id)
        };
        let text = serde_json::to_string(&File { accounts: vec![account] }).map_err(|error| error.to_string())?;
        fs::write(directory.path().join("accounts.json"), text).map_err(|error| error.to_string())?;
        Ok(Self { directory, token, program: program.to_owned() })
    }

    /// Starts a replica and waits until its health says SERVING; how long that took, from before the process was there.
    pub fn start(&self, threads: usize, pinning: Option<&Pinning>) -> Result<(Running, Duration), String> {
        self.start_build(Peer::Larder, None, &[], threads, pinning)
    }

    /// The same for another build, or with more flags.
    pub fn start_build(
        &self,
        peer: Peer,
        program: Option<&str>,
        more: &[String],
        threads: usize,
        pinning: Option<&Pinning>,
    ) -> Result<(Running, Duration), String> {
        let (listen, health, admin) = (free_address()?, free_address()?, free_address()?);
        let mut command = Pinning::command(pinning, program.unwrap_or(&self.program));
        command.arg("serve").arg("--accounts").arg(self.directory.path().join("accounts.json"));
        for (flag, value) in [
            ("--listen", listen.to_string()),
            ("--health-listen", health.to_string()),
            ("--admin-listen", admin.to_string()),
            ("--workers", threads.to_string()),
            ("--capacity", CAPACITY.to_owned()),
            ("--requests-per-second", RATE.to_string()),
            ("--burst", BURST.to_string()),
        ] {
            command.args([flag, &value]);
        }
        self.launch(peer, command.args(more), listen)
    }

    fn launch(&self, peer: Peer, command: &mut Command, listen: SocketAddr) -> Result<(Running, Duration), String> {
        let log = fs::File::create(self.directory.path().join("log")).map_err(|error| error.to_string())?;
        let log_too = log.try_clone().map_err(|error| error.to_string())?;
        let started = Instant::now();
        let child = spawn(command.stdin(Stdio::null()).stdout(log).stderr(log_too), peer)?;
        let protocol = Protocol::Grpc { token: self.token.clone(), constant: false };
        let mut running = Running::new(peer, listen, protocol, child);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(self.wait_until_it_serves(&mut running, started))?;
        Ok((running, started.elapsed()))
    }

    async fn wait_until_it_serves(&self, running: &mut Running, started: Instant) -> Result<(), String> {
        let address = running.target.address;
        let request = grpc::request_to(address, "/grpc.health.v1.Health/Check", &self.token)?;
        while !serves(address, &request).await {
            if let Some(status) = running.ended() {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                return Err(format!("larder ended, {status}:\n{log}"));
            }
            if started.elapsed() > START_LIMIT {
                return Err(format!("larder did not serve within {} s", START_LIMIT.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// One question to the standard health service; false also while nobody listens.
async fn serves(address: SocketAddr, request: &Request<()>) -> bool {
    let Ok(connection) = grpc::connect(address).await else { return false };
    let question = grpc::framed(&HealthCheckRequest { service: String::new() }.encode_to_vec());
    let Ok(answer) = grpc::unary(&connection, request, question).await else { return false };
    HealthCheckResponse::decode(answer).is_ok_and(|answer| answer.status == i32::from(ServingStatus::Serving))
}
