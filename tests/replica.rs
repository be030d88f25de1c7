//! A whole replica as `larder serve` builds it: its ports, what they say, and its end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use larder::client::{Client, Config as ClientConfig, StoreOptions};
use larder::rpc::token::Token;
use larder::server::app::{self, Bound};
use larder::server::clock::Clock;
use larder::server::config::Config;
use larder::server::drain::Outcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

mod support;

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Flags for a replica on free ports of the loopback, with the accounts of the test server.
fn flags(directory: &Path, more: &[&str]) -> Config {
    let accounts = directory.join("accounts.json");
    std::fs::write(&accounts, serde_json::to_string(&support::Builder::default().accounts).unwrap()).unwrap();
    let mut flags = vec![format!("--accounts={}", accounts.display())];
    for port in ["listen", "health-listen", "admin-listen"] {
        flags.push(format!("--{port}=127.0.0.1:0"));
    }
    flags.extend(["--workers=2", "--capacity=16MiB", "--drain-delay=0"].map(str::to_owned));
    flags.extend(more.iter().map(ToString::to_string));
    let config = Config::from_flags(flags).unwrap();
    config.check().unwrap();
    config
}

async fn start(directory: &Path, more: &[&str]) -> Bound {
    timeout(PATIENCE, app::build(&flags(directory, more), Clock::start())).await.unwrap().unwrap()
}

fn client(address: SocketAddr) -> Client {
    let mut config = ClientConfig::new(address.to_string().parse().unwrap());
    config.token = Some(Token::new(support::TOKEN).unwrap());
    Client::new(config).unwrap()
}

/// Status and body of a page of the admin port.
async fn page(admin: SocketAddr, path: &str) -> (u16, String) {
    let ask = async {
        let mut stream = TcpStream::connect(admin).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, ask).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn health(address: SocketAddr) -> ServingStatus {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest { service: String::new() }).await.unwrap();
    answer.into_inner().status()
}

#[tokio::test]
async fn every_port_says_that_it_serves_and_the_metrics_count_what_was_done() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready.json");
    let Bound { addresses, shutdown } = start(directory.path(), &[&format!("--ready-file={}", ready.display())]).await;
    let client = client(addresses.grpc);
    client.store("key", "value", StoreOptions::default()).await.unwrap();
    assert_eq!(health(addresses.grpc).await, ServingStatus::Serving);
    assert_eq!(health(addresses.health).await, ServingStatus::Serving);
    assert_eq!(page(addresses.admin, "/readyz").await, (200, "ok\n".to_owned()));

    let (status, metrics) = page(addresses.admin, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"larder_calls_total{method="larder.v1.Cache/Pipeline/Store",code="Ok"} 1"#,
        r#"larder_call_duration_seconds_bucket{le="+Inf",method="larder.v1.Cache/Pipeline/Store"} 1"#,
        r#"larder_account_keys{account="one"} 1"#,
        "larder_store_entries 1",
        "larder_accounts 2",
        "larder_accounts_tokens 3",
        "larder_accounts_current 1",
        r#"larder_connections_ended_total{reason="full"} 0"#,
        r#"larder_goaways_total{reason="age"} 0"#,
    ] {
        assert!(metrics.lines().any(|its| its == line), "no line {line} in:\n{metrics}");
    }
    let open = metrics.lines().find_map(|line| line.strip_prefix("larder_connections ")).unwrap();
    assert!(open.parse::<u64>().unwrap() >= 1, "{open}");

    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    assert_eq!(written["grpc"], addresses.grpc.to_string());
    drop(client);
    assert_eq!(timeout(PATIENCE, shutdown.now()).await.unwrap(), Outcome::Clean);
    assert!(!ready.exists(), "nobody finds the addresses of a replica that is gone");
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_with_the_flag_that_chooses_another() {
    let directory = tempfile::tempdir().unwrap();
    let Bound { addresses, shutdown } = start(directory.path(), &[]).await;
    for flag in ["--listen", "--health-listen", "--admin-listen"] {
        let taken = format!("{flag}={}", addresses.grpc);
        let error = app::build(&again(directory.path(), flag, &taken), Clock::start()).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains(flag) && said.contains(&addresses.grpc.to_string()), "{said}");
        assert!(error.is_configuration());
    }
    timeout(PATIENCE, shutdown.now()).await.unwrap();
}

/// The flags of a replica, with one of its addresses another.
fn again(directory: &Path, flag: &str, instead: &str) -> Config {
    let mut config = flags(directory, &[]);
    let address = instead.split_once('=').unwrap().1.parse().unwrap();
    match flag {
        "--listen" => config.listen = address,
        "--health-listen" => config.health_listen = address,
        _ => config.admin_listen = address,
    }
    config
}

#[tokio::test]
async fn no_account_may_ask_for_a_longer_ttl_than_the_operator_allows() {
    let directory = tempfile::tempdir().unwrap();
    let Bound { addresses, shutdown } = start(directory.path(), &["--max-ttl=1min"]).await;
    let client = client(addresses.grpc);
    let options = StoreOptions { ttl: Some(Duration::from_secs(61)), ..StoreOptions::default() };
    let error = client.store("key", "value", options).await.unwrap_err();
    assert!(error.to_string().contains("60000 ms"), "{error}");
    timeout(PATIENCE, shutdown.now()).await.unwrap();
}
