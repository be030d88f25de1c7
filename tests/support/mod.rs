//! A server in the test's own process: every layer of the real one, listeners on port 0 of the loopback, accounts made for
//! the test, and a clock that the test may hold in its hand.

#![allow(dead_code, reason = "each test binary uses the part that it needs")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::cache::key::AccountId;
use larder::cache::store::{Store, StoreConfig};
use larder::rpc::proto::tutorial;
use larder::rpc::proto::v1::cache_client::CacheClient;
use larder::server::accept::{Wire, WireConfig, bind};
use larder::server::accounts::file::{Access, File, FileAccount, FileToken};
use larder::server::accounts::hash::Digest;
use larder::server::accounts::remote::{Policy, RemoteConfig, RemoteService};
use larder::server::accounts::{Accounts, Embedded};
use larder::server::clock::Clock;
use larder::server::drain;
use larder::server::health::Health;
use larder::server::metrics::Metrics;
use larder::server::stack::Stack;
use larder::server::wall::{Parts, Wall, WallConfig};
use larder::server::workers::Workers;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// The token of account `one`, which may do everything.
pub const TOKEN: &str = "token-of-one";
/// A token of account `one` that may only read.
pub const READ_ONLY: &str = "token-of-one-to-read";
/// The token of account `two`.
pub const OTHER: &str = "token-of-two";

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A running server. Dropping it ends it.
pub struct TestServer {
    pub address: SocketAddr,
    pub wall: Arc<Wall>,
    pub health: Health,
    pub trigger: drain::Trigger,
    embedded: Embedded,
    manual: Option<Arc<AtomicU64>>,
    workers: Workers,
}

/// What a test wants to be different.
pub struct Builder {
    pub wall: WallConfig,
    pub wire: WireConfig,
    pub accounts: File,
    /// Another server whose accounts are asked instead.
    pub remote: Option<SocketAddr>,
    pub capacity_bytes: u64,
    pub manual_clock: bool,
    pub serving: bool,
}

/// Adds a token to every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

pub type Client = CacheClient<InterceptedService<Channel, Bearer>>;

impl Default for Builder {
    fn default() -> Self {
        let mut one = account("one", TOKEN);
        one.tokens.push(FileToken { hash: Digest::of(READ_ONLY), access: Access::ReadOnly });
        Self {
            wall: WallConfig { tutorial_api: true, ..WallConfig::default() },
            wire: WireConfig::default(),
            accounts: File { accounts: vec![one, account("two", OTHER)] },
            remote: None,
            capacity_bytes: 256 * 1024 * 1024,
            manual_clock: false,
            serving: true,
        }
    }
}

impl Builder {
    pub fn wall(mut self, change: impl FnOnce(&mut WallConfig)) -> Self {
        change(&mut self.wall);
        self
    }

    /// Changes account `one`.
    pub fn account(mut self, change: impl FnOnce(&mut FileAccount)) -> Self {
        change(&mut self.accounts.accounts[0]);
        self
    }

    pub fn manual_clock(mut self) -> Self {
        self.manual_clock = true;
        self
    }

    pub fn start(self) -> TestServer {
        let embedded = Embedded::new(self.accounts.book().unwrap());
        let manual = self.manual_clock.then(|| Arc::new(AtomicU64::new(1_000_000_000)));
        let clock = manual.clone().map_or_else(Clock::start, Clock::manual);
        let store = Store::new(StoreConfig { capacity_bytes: self.capacity_bytes, shards: 16, replica: 1 });
        let health = Health::default();
        if self.serving {
            health.set_serving();
        }
        let (trigger, watch) = drain::channel();
        let workers = Workers::start(2).unwrap();
        let accounts = match self.remote {
            None => Accounts::Embedded(embedded.clone()),
            Some(address) => Accounts::remote(&remote(address), workers.handle(0)).unwrap(),
        };
        let parts = Parts {
            cluster: None,
            store: Arc::new(store),
            accounts,
            config: self.wall,
            clock,
            health: health.clone(),
            metrics: Arc::new(Metrics::new(2)),
            tracer: None,
        };
        let stack = Stack::new(parts, watch.clone());
        let wall = stack.wall().clone();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let handle = Wire::start(&workers, listener, self.wire, None, stack, watch).unwrap();
        wall.metrics.attach(Arc::clone(handle.stats()), None);
        TestServer { address: handle.address(), wall, health, trigger, embedded, manual, workers }
    }
}

impl TestServer {
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A new connection.
    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// A client of account `one` on a connection of its own.
    pub async fn client(&self) -> Client {
        self.client_with(TOKEN).await
    }

    pub async fn client_with(&self, token: &str) -> Client {
        client(self.channel().await, Some(token))
    }

    pub async fn tutorial(&self) -> tutorial::cache_client::CacheClient<Channel> {
        tutorial::cache_client::CacheClient::new(self.channel().await)
    }

    /// Moves the manual clock.
    pub fn advance(&self, by: Duration) {
        let us = self.manual.as_ref().expect("the builder said `manual_clock`");
        us.fetch_add(u64::try_from(by.as_micros()).unwrap(), Ordering::AcqRel);
    }

    /// Replaces the accounts, as a reload of their file does.
    pub fn replace_accounts(&self, file: &File) {
        self.embedded.replace(file.book().unwrap());
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.trigger.force();
        self.workers.stop();
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A client on a connection, with a token or without.
pub fn client(channel: Channel, token: Option<&str>) -> Client {
    let bearer = Bearer(token.map(|token| format!("Bearer {token}").parse().unwrap()));
    CacheClient::with_interceptor(channel, bearer)
}

/// An account without limits and with one token.
pub fn account(id: &str, token: &str) -> FileAccount {
    let mut account = FileAccount::new(AccountId::new(id).unwrap());
    account.tokens.push(FileToken { hash: Digest::of(token), access: Access::ReadWrite });
    account
}

/// How to ask another server for its accounts.
fn remote(address: SocketAddr) -> RemoteConfig {
    let policy = Policy::default();
    let url = format!("http://{address}");
    RemoteConfig { url, service: RemoteService::Larder, ca: None, policy, timeout: PATIENCE }
}

/// A request with `dry-run: 1`.
pub fn dry_run<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("dry-run", MetadataValue::from_static("1"));
    request
}

/// An address that is taken, so that no other test gets it, and where nobody listens.
pub fn nobody() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Waits, in bounded time, until something is so.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !so() {
        assert!(tokio::time::Instant::now() < until, "it did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
