//! Replicas as processes, and the file that lists them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use larder::cache::key::{AccountId, Key};
use larder::cache::route::route_hash;
use larder::cluster::members::{Member, Members};
use larder::ring::Ring;
use larder::server::accounts::file::{Access, File, FileAccount, FileToken};
use larder::server::accounts::hash::{Digest, new_token};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Builder;

use crate::cpu::CpuClock;
use crate::grpc;
use crate::value::Values;

const ACCOUNT: &str = "speed";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Running replicas. Dropping it ends them.
pub struct Replicas {
    directory: TempDir,
    program: String,
    token: String,
    flags: Vec<String>,
    members: Members,
    running: BTreeMap<String, Running>,
    started: usize,
}

struct Running {
    child: Child,
    grpc: SocketAddr,
    admin: SocketAddr,
}

impl Replicas {
    /// Starts so many, and waits until all of them own keys.
    pub fn start(program: &str, count: usize, flags: &[&str]) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(said)?;
        let token = new_token().to_string();
        let id = AccountId::new(ACCOUNT).map_err(said)?;
        let account = FileAccount {
            tokens: vec![FileToken { hash: Digest::of(&token), access: Access::ReadWrite }],
            max_cache_keys: 10_000_000,
            requests_per_second: 100_000_000,
            burst: 1_000_000,
            ..FileAccount::new(id)
        };
        let accounts = serde_json::to_string(&File { accounts: vec![account] }).map_err(said)?;
        fs::write(directory.path().join("accounts.json"), accounts).map_err(said)?;
        let linger = if flags.contains(&"--linger") { &[][..] } else { &["--linger", "200ms"] };
        let flags = flags.iter().chain(linger).map(ToString::to_string).collect();
        let (program, members) = (program.to_owned(), Members::default());
        let mut replicas = Self { directory, program, token, flags, members, running: BTreeMap::new(), started: 0 };
        replicas.write()?;
        for _ in 0..count {
            replicas.join()?;
            replicas.settle()?;
        }
        Ok(replicas)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.running.keys().map(String::as_str)
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.running[name].grpc
    }

    /// Starts one more, lists it as serving once it is ready, and waits until it holds its arcs; its name.
    pub fn join(&mut self) -> Result<String, String> {
        let name = self.start_one()?;
        self.serve(&name)?;
        let alone = self.running.len() == 1;
        wait(&format!("{name} holds its arcs"), || {
            self.gain_of(&name).is_ok_and(|(_, gains)| gains > 0.0) || (alone && self.is_settled())
        })?;
        Ok(name)
    }

    /// Lists one as serving.
    pub fn serve(&mut self, name: &str) -> Result<(), String> {
        self.list(name, |member| member.ready = Some(true))
    }

    /// Lists one as leaving, and tells it so.
    pub fn terminate(&mut self, name: &str) -> Result<(), String> {
        self.list(name, |member| member.terminating = Some(true))?;
        let pid = self.running[name].child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().map(drop).map_err(said)
    }

    fn list(&mut self, name: &str, change: impl FnOnce(&mut Member)) -> Result<(), String> {
        change(self.members.endpoints.iter_mut().find(|member| member.uid == name).ok_or("there is no such replica")?);
        self.write()
    }

    /// Starts one more, which is listed as not ready, and waits until it is.
    pub fn start_one(&mut self) -> Result<String, String> {
        let name = format!("replica-{}", self.started);
        self.started += 1;
        let [grpc, peer, health, admin] = [free()?, free()?, free()?, free()?];
        let path = |file: &str| self.directory.path().join(file);
        let log = fs::File::create(path(&format!("{name}.log"))).map_err(said)?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--accounts").arg(path("accounts.json")).arg("--members-file").arg(self.file());
        command.args(["--uid", &name, "--workers", "1", "--capacity", "4GiB", "--drain-delay", "0"]);
        for (flag, address) in
            [("--listen", grpc), ("--peer-listen", peer), ("--health-listen", health), ("--admin-listen", admin)]
        {
            command.args([flag, &address.to_string()]);
        }
        command.args(&self.flags).stdin(Stdio::null()).stdout(log.try_clone().map_err(said)?).stderr(log);
        let child = command.spawn().map_err(said)?;
        self.running.insert(name.clone(), Running { child, grpc, admin });
        self.members.endpoints.push(Member {
            address: grpc.to_string(),
            peer: peer.to_string(),
            uid: name.clone(),
            ready: Some(false),
            ..Member::default()
        });
        self.write()?;
        wait(&format!("{name} is ready"), || {
            page(admin, "/readyz").is_some_and(|page| page.starts_with("HTTP/1.1 200"))
        })?;
        Ok(name)
    }

    /// Ends one in good order.
    pub fn leave(&mut self, name: &str) -> Result<(), String> {
        self.terminate(name)?;
        let mut running = self.running.remove(name).ok_or("there is no such replica")?;
        wait(&format!("{name} ended"), || running.child.try_wait().is_ok_and(|ended| ended.is_some()))?;
        self.members.endpoints.retain(|member| member.uid != name);
        self.write()?;
        self.settle()
    }

    /// Waits until no hand-off is under way anywhere.
    pub fn settle(&self) -> Result<(), String> {
        wait("all are settled", || self.is_settled())
    }

    fn is_settled(&self) -> bool {
        self.running.keys().all(|name| {
            let Some(page) = self.members_page(name) else { return false };
            let ring =
                page["members"].as_array().map_or(0, |all| all.iter().filter(|one| one["state"] == "ring").count());
            page["settled"] == true && ring == self.running.len()
        })
    }

    /// Stores every value once.
    pub fn fill(&self, values: Values) -> Result<(), String> {
        let address = self.running.values().next().ok_or("there is no replica")?.grpc;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(said)?;
        runtime.block_on(grpc::fill(address, &self.token, values))
    }

    /// The keys that a replica owns, and the others, by index.
    pub fn split(&self, values: Values, name: &str) -> (Vec<usize>, Vec<usize>) {
        let ring = Ring::new(self.running.values().map(|running| running.grpc.to_string()));
        let own = self.address(name).to_string();
        (0..values.keys).partition(|index| ring.owner_of(Self::hash(values, *index)) == Some(own.as_str()))
    }

    pub fn hash(values: Values, index: usize) -> u64 {
        let key = values.key(index);
        match (AccountId::new(ACCOUNT), Key::new(&key)) {
            (Ok(account), Ok(key)) => route_hash(&account, key),
            _ => 0,
        }
    }

    /// Waits until so many entries came to one, and it has no hand-off under way.
    pub fn took(&self, name: &str, entries: usize) -> Result<(), String> {
        wait(&format!("{name} took {entries} entries over"), || {
            let came = self.metric(name, "larder_handoff_keys_in_total").unwrap_or_default();
            came >= entries as f64 && self.members_page(name).is_some_and(|page| page["settled"] == true)
        })
        .map_err(|error| format!("{error}\n{}", self.complaints()))
    }

    /// What the replicas warned of.
    fn complaints(&self) -> String {
        let text = |name: &String| fs::read_to_string(self.directory.path().join(format!("{name}.log"))).ok();
        let texts: Vec<String> = self.running.keys().filter_map(text).collect();
        let warnings = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.contains("INFO"));
        warnings.collect::<Vec<_>>().join("\n")
    }

    /// CPU of one so far.
    pub fn cpu_of(&self, name: &str) -> Result<Duration, String> {
        CpuClock { pid: self.running[name].child.id() }.read()
    }

    /// CPU of all of them so far.
    pub fn cpu(&self) -> Result<Duration, String> {
        self.running.values().map(|running| CpuClock { pid: running.child.id() }.read()).sum()
    }

    /// Seconds from view changes to all arcs HELD, and how many such changes there were.
    pub fn gain_of(&self, name: &str) -> Result<(f64, f64), String> {
        Ok((self.metric(name, "larder_handoff_gain_seconds_total")?, self.metric(name, "larder_handoff_gains_total")?))
    }

    pub fn gains(&self) -> Result<Vec<(String, f64, f64)>, String> {
        self.names().map(|name| self.gain_of(name).map(|(seconds, gains)| (name.to_owned(), seconds, gains))).collect()
    }

    pub fn mean_gain(&self, name: &str) -> Result<f64, String> {
        self.gain_of(name).map(|(seconds, gains)| seconds / gains)
    }

    pub fn metric(&self, name: &str, metric: &str) -> Result<f64, String> {
        let page = page(self.running[name].admin, "/metrics").ok_or("a replica has no metrics page")?;
        let line = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        line.ok_or(format!("there is no metric {metric}"))?.parse().map_err(said)
    }

    fn members_page(&self, name: &str) -> Option<Value> {
        let page = page(self.running[name].admin, "/members")?;
        serde_json::from_str(page.split_once("\r\n\r\n")?.1).ok()
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("members.json")
    }

    fn write(&mut self) -> Result<(), String> {
        self.members.version += 1;
        self.members.write(&self.file()).map_err(said)
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        for running in self.running.values_mut() {
            // One that has ended is as good.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// An address that was free a moment ago.
fn free() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(said)
}

fn page(admin: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

fn wait(what: &str, mut so: impl FnMut() -> bool) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    while !so() {
        if Instant::now() > until {
            return Err(format!("it did not happen: {what}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
