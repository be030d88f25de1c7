//! The Accounts service is a hop too. Here it is another replica, which records what it is asked.

use larder::server::app::{self, Bound};
use larder::server::clock::Clock;
use larder::server::config::Config;

use crate::asking::get;
use crate::collector::Collector;
use crate::hops::{CALLER, CLIENT, SERVER, TRACE, spans, traced};
use crate::support::{Builder, TOKEN, client};

async fn replica(collector: &Collector, more: &[&str]) -> Bound {
    let addresses = ["listen", "health-listen", "admin-listen"].map(|name| format!("--{name}=127.0.0.1:0"));
    let endpoint = format!("--otlp-endpoint={}", collector.url());
    let flags = ["--workers=1", "--capacity=64MiB", "--drain-delay=0", "--span-delay=10", &endpoint];
    let flags = flags.into_iter().chain(addresses.iter().map(String::as_str)).chain(more.iter().copied());
    app::build(&Config::from_flags(flags).unwrap(), Clock::start()).await.unwrap()
}

#[tokio::test]
async fn a_question_to_the_accounts_is_a_part_of_the_call_that_caused_it() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("accounts.json");
    std::fs::write(&file, serde_json::to_string(&Builder::default().accounts).unwrap()).unwrap();
    let accounts = replica(&collector, &["--service-name=accounts", &format!("--accounts={}", file.display())]).await;
    let url = format!("--accounts-url=http://{}", accounts.addresses.grpc);
    let server = replica(&collector, &[&url, "--otlp-headers=api-key=se%20cret", "--otlp-compression=gzip"]).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.addresses.grpc)).unwrap();
    let mut one = client(endpoint.connect().await.unwrap(), Some(TOKEN));
    one.get(traced(get("k"), "01")).await.unwrap_err();

    let spans = spans(&collector, TRACE, 3).await;
    let [call, way, answer] = &spans[..] else { unreachable!() };
    let ask = "larder.v1.Accounts/GetByToken";
    let told = [call, way, answer].map(|span| (span.resource["service.name"].as_str(), span.name.as_str(), span.kind));
    assert_eq!(told, [("larder", "larder.v1.Cache/Get", SERVER), ("larder", ask, CLIENT), ("accounts", ask, SERVER)]);
    assert_eq!([call, way, answer].map(|span| span.parent.as_str()), [CALLER, &call.id, &way.id]);
    assert_eq!(way.attributes["rpc.response.status_code"], "OK");
    assert!(collector.headers().iter().any(|headers| headers.get("api-key").is_some_and(|value| value == "se cret")));
    server.shutdown.now().await;
    accounts.shutdown.now().await;
}
