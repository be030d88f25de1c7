//! The standard services, and what is counted.

use std::time::Duration;

use larder::server::method::Method;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::asking::{get, store};
use crate::support::TestServer;

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn health_says_not_serving_until_the_replica_serves_and_when_it_drains() {
    let mut builder = TestServer::builder();
    builder.serving = false;
    let server = builder.start();
    let mut health = HealthClient::new(server.channel().await);
    let services = ["", "larder.v1.Cache", "rpc.Cache"];
    for service in services {
        let status = health.check(check(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::NotServing, "{service}");
    }
    let mut watch = health.watch(check("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    server.health.set_serving();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    for service in services {
        let status = health.check(check(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    assert_eq!(health.check(check("other")).await.unwrap_err().code(), Code::NotFound);
    server.health.set_draining();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    server.trigger.start(Duration::from_secs(10));
    assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn reflection_knows_every_service() {
    let server = TestServer::start();
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "larder.v1.Accounts",
            "larder.v1.Cache",
            "larder.v1.Topology",
            "rpc.Accounts",
            "rpc.Cache",
        ]
    );
}

#[tokio::test]
async fn every_call_is_counted_once_and_no_secret_is_shown() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.store(store("secret-key", "secret-value")).await.unwrap();
    client.get(get("secret-key")).await.unwrap();
    client.get(get("missing")).await.unwrap_err();
    let metrics = &server.wall.metrics;
    assert_eq!((metrics.calls(Method::Get, Code::Ok), metrics.calls(Method::Get, Code::NotFound)), (1, 1));
    let text = server.wall.sources().render();
    for line in [
        r#"larder_calls_total{method="larder.v1.Cache/Get",code="Ok"} 1"#,
        r#"larder_calls_total{method="larder.v1.Cache/Get",code="NotFound"} 1"#,
        r#"larder_call_duration_seconds_count{method="larder.v1.Cache/Store"} 1"#,
        r#"larder_account_calls_total{account="one"} 3"#,
        r#"larder_account_keys{account="one"} 1"#,
        "larder_held_bytes 0",
        "larder_store_entries 1",
        "larder_store_misses_total 1",
        "larder_connections 1",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    assert!(!text.contains("secret") && !text.contains("token-of"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}
