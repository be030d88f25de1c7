//! The watcher against an API server that says what a test wants, in paused time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::api_server::{Answer, ApiServer, Step};
use super::follow::{CALL_TIMEOUT, END_MARGIN, WATCH_SECONDS};
use super::*;
use crate::cluster::Family;
use crate::kubernetes::backoff::MAX_WAIT;
use crate::kubernetes::slices::PortNames;

mod api_server;
mod faults;
mod recorded;

const HOUR: Duration = Duration::from_secs(3600);

fn selection() -> Selection {
    Selection { service: "larder".into(), family: Family::Ipv4, ports: PortNames::default() }
}

/// The slice `s` at a version, with pods named by their addresses' last number.
fn slice(version: u64, pods: &[u8]) -> Value {
    let pod = |number: &u8| json!({"addresses": [format!("10.0.0.{number}")], "targetRef": {"kind": "Pod", "uid": number.to_string()}});
    json!({
        "metadata": {
            "name": "s", "resourceVersion": version.to_string(), "labels": {"kubernetes.io/service-name": "larder"},
        },
        "addressType": "IPv4",
        "endpoints": pods.iter().map(pod).collect::<Vec<_>>(),
        "ports": [{"name": "grpc", "port": 7070}, {"name": "peer", "port": 7071}],
    })
}

fn list(version: u64, slices: &[Value]) -> Answer {
    Answer::json(&json!({
        "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"resourceVersion": version.to_string()},
        "items": slices,
    }))
}

fn event(kind: &str, object: &Value) -> Step {
    Step::line(&json!({"type": kind, "object": object}))
}

fn bookmark(version: u64) -> Step {
    let metadata = json!({"resourceVersion": version.to_string()});
    event("BOOKMARK", &json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata}))
}

fn error(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "because", "reason": "R", "code": code})
}

/// The members' uids, once they are these.
async fn wait_for(views: &mut watch::Receiver<Option<Arc<View>>>, uids: &[&str]) {
    let is_it = |view: &Option<Arc<View>>| view.as_ref().is_some_and(|view| uids_of(view) == uids);
    let waited = tokio::time::timeout(HOUR, views.wait_for(is_it)).await;
    waited.expect("the view comes within an hour").expect("the source is followed");
}

fn uids_of(view: &View) -> Vec<String> {
    view.endpoints().into_keys().map(|uid| uid.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_are_quorum_reads_and_watches_go_on_from_them_for_less_than_a_minute() {
    let (server, mut views) = ApiServer::start(vec![list(7, &[slice(5, &[1])]), Answer::watch(vec![Step::Hang])]);
    wait_for(&mut views, &["1"]).await;
    let calls = server.calls(2).await;
    assert_eq!(calls[0].path, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices");
    assert_eq!(calls[0].get("labelSelector"), Some("kubernetes.io/service-name=larder"));
    for parameter in ["resourceVersion", "resourceVersionMatch", "watch", "limit"] {
        assert_eq!(calls[0].get(parameter), None, "a quorum read, whole");
    }
    assert_eq!(calls[1].get("watch"), Some("true"));
    assert_eq!(calls[1].get("resourceVersion"), Some("7"));
    assert_eq!(calls[1].get("labelSelector"), Some("kubernetes.io/service-name=larder"));
    assert_eq!(calls[1].get("allowWatchBookmarks"), Some("true"));
    let seconds: u32 = calls[1].get("timeoutSeconds").unwrap().parse().unwrap();
    assert!(WATCH_SECONDS.contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_before_the_first_list_is_complete() {
    let wrong = Answer::text(r#"{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "items": [{"met"#);
    let answers = vec![Answer::Never, Answer::status(500), wrong, Answer::status(403), list(1, &[slice(1, &[1])])];
    let (server, mut views) = ApiServer::start(answers);
    let calls = server.calls(4).await;
    assert!(calls.iter().all(|call| call.get("watch").is_none()));
    assert_eq!(*views.borrow(), None);
    wait_for(&mut views, &["1"]).await;
}

#[tokio::test(start_paused = true)]
async fn each_event_changes_the_view_and_a_deletion_ends_it() {
    let events = vec![
        Step::Pause(Duration::from_secs(1)),
        event("ADDED", &slice(2, &[1])),
        Step::Pause(Duration::from_secs(1)),
        event("MODIFIED", &slice(3, &[1, 2])),
        Step::Pause(Duration::from_secs(1)),
        event("MODIFIED", &slice(2, &[9])),
        event("DELETED", &slice(4, &[1, 2])),
        Step::Hang,
    ];
    let (_server, mut views) = ApiServer::start(vec![list(1, &[]), Answer::watch(events)]);
    for uids in [&[][..], &["1"], &["1", "2"], &[]] {
        wait_for(&mut views, uids).await;
    }
    assert_eq!(views.borrow().as_ref().unwrap().source_version(), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_from_the_newest_version_without_a_list() {
    let pause = || Step::Pause(Duration::from_secs(30));
    let (server, _views) = ApiServer::start(vec![
        list(1, &[]),
        Answer::watch(vec![event("ADDED", &slice(2, &[1])), pause()]),
        Answer::watch(vec![bookmark(50), pause()]),
        Answer::watch(vec![pause()]),
        Answer::watch(vec![event("DELETED", &slice(60, &[1])), Step::Break]),
        Answer::watch(vec![Step::Hang]),
    ]);
    let calls = server.calls(6).await;
    let from: Vec<_> = calls[1..].iter().map(|call| call.get("resourceVersion").unwrap()).collect();
    assert_eq!(from, ["1", "2", "50", "50", "60"]);
}

#[tokio::test(start_paused = true)]
async fn the_source_is_followed_until_nobody_listens() {
    let (server, views) = ApiServer::start(vec![list(1, &[]), Answer::watch(vec![Step::Hang])]);
    server.calls(2).await;
    drop(views);
    server.ended().await;
}

#[tokio::test]
async fn an_api_server_over_tls_that_refuses_connections_is_a_complaint() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    let source = Slices::with(config, Some("shop"), selection()).unwrap();
    let error = source.api.list(&kube::api::ListParams::default()).await.unwrap_err();
    let trouble = complaint::Trouble::of(error, &source.namespace);
    assert!(trouble.may_resume() && trouble.to_string().contains("Connection refused"), "{trouble}");
}

#[test]
fn outside_of_kubernetes_the_error_says_what_else_there_is() {
    let Err(error) = Slices::in_cluster(None, selection()) else { panic!("no service account is here") };
    assert!(error.to_string().contains("members file"), "{error}");
}
