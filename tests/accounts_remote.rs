//! A remote Accounts service on the wire: a real gRPC server that records what it is asked. What needs paused time (TTLs,
//! back-off, staleness) is tested beside the code.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use http::HeaderMap;
use hyper::body::Incoming;
use larder::rpc::failure::Failure;
use larder::rpc::metadata::timeout;
use larder::rpc::proto::{tutorial, v1};
use larder::rpc::trace::Trace;
use larder::server::accounts::remote::{Policy, RemoteConfig, RemoteService};
use larder::server::accounts::{Accounts, Asking, Grant};
use larder::server::trace::Traced;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tower::ServiceExt as _;

#[path = "support/fake.rs"]
mod fake;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// An Accounts service that serves one API, or neither, and remembers the path and the metadata of each call.
#[derive(Clone)]
struct Service {
    serves: &'static str,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

/// What is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

/// The log of all tests. One for all, and before anything is logged: `tracing` remembers who wanted a line.
fn log() -> &'static Lines {
    static LOG: OnceLock<Lines> = OnceLock::new();
    LOG.get_or_init(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing_subscriber::fmt().with_writer(move || writer.clone()).init();
        lines
    })
}

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the tokens of this service mean.
fn account(token: &str) -> Result<v1::Account, Status> {
    match token {
        "good" => Ok(v1::Account { id: "team-a".into(), max_cache_keys: 7, read_only: true, ..Default::default() }),
        "unknown" => Err(Status::unauthenticated("no such token")),
        "nowhere" => Err(Status::not_found("no such token")),
        "denied" => Err(Status::permission_denied("RBAC: access denied")),
        "negative" => Ok(v1::Account { id: "team-a".into(), max_bytes: -1, ..Default::default() }),
        _ => Err(Status::unavailable(format!("no luck with {token}"))),
    }
}

#[tonic::async_trait]
impl v1::accounts_server::Accounts for Service {
    async fn get_by_token(
        &self,
        request: Request<v1::GetByTokenRequest>,
    ) -> Result<Response<v1::GetByTokenResponse>, Status> {
        let token = request.into_inner().token;
        if token == "hang" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(v1::GetByTokenResponse { account: Some(account(&token)?) }))
    }
}

#[tonic::async_trait]
impl tutorial::accounts_server::Accounts for Service {
    async fn get_by_token(
        &self,
        request: Request<tutorial::GetByTokenReq>,
    ) -> Result<Response<tutorial::GetByTokenResp>, Status> {
        let max_cache_keys = account(&request.into_inner().token)?.max_cache_keys;
        Ok(Response::new(tutorial::GetByTokenResp { account: Some(tutorial::Account { max_cache_keys }) }))
    }
}

impl Service {
    /// Starts it; `serves` begins the paths that it knows.
    async fn start(serves: &'static str) -> (Self, SocketAddr) {
        log();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Self { serves, seen: Arc::default() };
        let serving = service.clone();
        fake::serve(listener, move |request| serving.clone().answer(request));
        (service, address)
    }

    async fn answer(self, request: http::Request<Incoming>) -> Result<http::Response<tonic::body::Body>, Infallible> {
        let path = request.uri().path().to_owned();
        self.seen.lock().push((path.clone(), request.headers().clone()));
        match path.as_str() {
            path if !path.starts_with(self.serves) => Ok(Status::unimplemented("no such service").into_http()),
            path if path.starts_with("/rpc.") => {
                tutorial::accounts_server::AccountsServer::new(self).oneshot(request).await
            }
            _ => v1::accounts_server::AccountsServer::new(self).oneshot(request).await,
        }
    }

    fn paths(&self) -> Vec<String> {
        self.seen.lock().iter().map(|(path, _)| path.clone()).collect()
    }
}

fn accounts(address: SocketAddr, service: RemoteService) -> Accounts {
    let url = format!("http://{address}");
    let config = RemoteConfig { url, service, ca: None, policy: Policy::default(), timeout: Duration::from_secs(5) };
    Accounts::remote(&config, &Handle::current()).unwrap()
}

async fn ask(accounts: &Accounts, token: &str) -> Result<Grant, Failure> {
    accounts.grant(token, &Asking::default()).await
}

#[tokio::test]
async fn the_service_hears_the_remaining_deadline_the_trace_and_the_dry_run() {
    let (service, address) = Service::start("/larder.v1.").await;
    let trace = Traced::from(Trace::of_texts(TRACEPARENT, "vendor=1"));
    let deadline = Some(Instant::now() + Duration::from_secs(2));
    let accounts = accounts(address, RemoteService::Auto);
    accounts.grant("good", &Asking { deadline, trace, dry_run: true }).await.unwrap();
    accounts.grant("unknown", &Asking::default()).await.unwrap_err();
    let seen = service.seen.lock();
    let remaining = timeout(&seen[0].1).unwrap().unwrap();
    assert!(remaining <= Duration::from_secs(2) && remaining > Duration::from_millis(500), "{remaining:?}");
    let headers = ["traceparent", "tracestate", "dry-run"];
    assert_eq!(headers.map(|name| &seen[0].1[name]), [TRACEPARENT, "vendor=1", "1"]);
    assert_eq!(headers.map(|name| seen[1].1.get(name)), [None; 3]);
}

#[tokio::test]
async fn a_server_of_larder_v1_tells_the_whole_account() {
    let (_, address) = Service::start("/larder.v1.").await;
    let grant = ask(&accounts(address, RemoteService::Auto), "good").await.unwrap();
    assert_eq!((grant.account.id.as_str(), grant.account.limits.max_keys, grant.read_only), ("team-a", Some(7), true));
}

#[tokio::test]
async fn a_server_of_the_tutorial_is_found_and_remembered() {
    let (service, address) = Service::start("/rpc.").await;
    let accounts = accounts(address, RemoteService::Auto);
    let grant = ask(&accounts, "good").await.unwrap();
    assert_eq!((grant.account.id.as_str(), grant.account.limits.max_keys), ("t-770e607624d68926", Some(7)));
    assert_eq!(ask(&accounts, "unknown").await.unwrap_err(), Failure::TokenUnknown);
    let [larder, rpc] = ["/larder.v1.Accounts/GetByToken", "/rpc.Accounts/GetByToken"];
    assert_eq!(service.paths(), [larder, rpc, rpc]);
}

#[tokio::test]
async fn the_service_that_is_named_is_the_only_one_that_is_asked() {
    for (name, serves) in [(RemoteService::Larder, "/rpc."), (RemoteService::Tutorial, "/larder.v1.")] {
        let (service, address) = Service::start(serves).await;
        let failure = ask(&accounts(address, name), "good").await.unwrap_err();
        assert_eq!((failure, service.paths().len()), (Failure::AccountsUnavailable, 1), "{name:?}");
    }
    let (service, address) = Service::start("/neither").await;
    let failure = ask(&accounts(address, RemoteService::Auto), "good").await.unwrap_err();
    assert_eq!((failure, service.paths().len()), (Failure::AccountsUnavailable, 2));
}

#[tokio::test]
async fn only_unauthenticated_and_not_found_mean_that_a_token_is_unknown() {
    let (_, address) = Service::start("/larder.v1.").await;
    let accounts = accounts(address, RemoteService::Auto);
    for (token, failure) in [
        ("unknown", Failure::TokenUnknown),
        ("nowhere", Failure::TokenUnknown),
        ("denied", Failure::AccountsUnavailable),
        ("negative", Failure::AccountsUnavailable),
        ("other", Failure::AccountsUnavailable),
    ] {
        assert_eq!(ask(&accounts, token).await.unwrap_err(), failure, "{token}");
    }
}

#[tokio::test]
async fn a_hundred_callers_with_one_token_make_one_call() {
    let (service, address) = Service::start("/larder.v1.").await;
    let accounts = accounts(address, RemoteService::Auto);
    let grants = join_all((0..100).map(|_| ask(&accounts, "good"))).await;
    assert!(grants.iter().all(Result::is_ok));
    assert_eq!(service.paths().len(), 1);
    assert!(accounts.cached("good").is_some_and(|grant| grant.is_ok()));
}

#[tokio::test]
async fn a_service_that_hangs_or_is_not_there_costs_no_more_than_the_deadline() {
    let (_, address) = Service::start("/larder.v1.").await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asking = || Asking { deadline: Some(Instant::now() + Duration::from_millis(50)), ..Asking::default() };
    for (address, token) in [(address, "hang"), (nobody.local_addr().unwrap(), "good")] {
        let begun = Instant::now();
        let grant = accounts(address, RemoteService::Auto).grant(token, &asking()).await;
        assert_eq!(grant.unwrap_err(), Failure::DeadlineExceeded, "{token}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
    let closed = nobody.local_addr().unwrap();
    drop(nobody);
    assert_eq!(ask(&accounts(closed, RemoteService::Auto), "good").await.unwrap_err(), Failure::AccountsUnavailable);
}

#[tokio::test]
async fn a_token_that_the_service_repeats_in_its_message_is_not_logged() {
    let (_, address) = Service::start("/larder.v1.").await;
    ask(&accounts(address, RemoteService::Auto), "larder_secret").await.unwrap_err();
    let text = String::from_utf8(log().0.lock().clone()).unwrap();
    assert!(text.contains("no luck with (token)") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_url_that_leads_nowhere_is_refused_at_the_start() {
    for url in ["", "ftp://accounts:1", "https://accounts/path", "accounts:port"] {
        let config = RemoteConfig {
            url: url.into(),
            service: RemoteService::Auto,
            ca: None,
            policy: Policy::default(),
            timeout: Duration::from_secs(5),
        };
        assert!(Accounts::remote(&config, &Handle::current()).is_err(), "{url}");
    }
}
