//! One trace over every hop.

use larder::rpc::proto::v1;
use tonic::Request;

use crate::asking::{get, store};
use crate::collector::{Collector, Span};
use crate::entry::{at, key_of, with_flags};
use crate::support::eventually;

/// The caller's own trace and span.
pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub const CALLER: &str = "b7ad6b7169203331";

pub const SERVER: i32 = 2;
pub const CLIENT: i32 = 3;

/// A request of a caller who traces.
pub fn traced<T>(message: T, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{CALLER}-{flags}").parse().unwrap());
    request
}

/// The spans of a trace, once there are so many, by what they are children of: the caller's first.
pub async fn spans(collector: &Collector, trace: &str, count: usize) -> Vec<Span> {
    eventually(&format!("{count} spans came"), || collector.trace(trace).len() >= count).await;
    let mut left = collector.trace(trace);
    assert_eq!(left.len(), count, "{left:#?}");
    left.sort_by_key(|span| span.began);
    left
}

#[tokio::test]
async fn a_call_is_one_trace_from_its_caller_over_the_replica_that_took_it_to_the_owner() {
    let collector = Collector::start().await;
    let cluster = with_flags(3, &["--otlp-endpoint", &collector.url(), "--span-delay=10"]).await;
    let mut client = at(&cluster, "a").await;
    let key = key_of(&cluster, "b", "key");
    client.store(traced(store(&key, "value"), "01")).await.unwrap();

    let spans = spans(&collector, TRACE, 3).await;
    let [taken, way, owned] = &spans[..] else { unreachable!() };
    let places = [taken, way, owned].map(|span| (span.replica.as_str(), span.name.as_str(), span.kind));
    let (method, forward) = ("larder.v1.Cache/Store", "larder.peer.v1.Peer/Forward");
    assert_eq!(places, [("a", method, SERVER), ("a", forward, CLIENT), ("b", method, SERVER)]);
    let parents = [taken, way, owned].map(|span| span.parent.as_str());
    assert_eq!(parents, [CALLER, &taken.id, &way.id]);
    assert!(taken.began <= way.began && way.began <= owned.began && owned.ended <= taken.ended, "{spans:#?}");

    let address = cluster.replicas["b"].addresses.grpc.to_string();
    let digest = cluster.page_of("a").await["view"]["digest"].as_str().unwrap().to_owned();
    for (span, hop, result) in [(taken, "0", Some("forwarded")), (owned, "1", None)] {
        let its = |name: &str| span.attributes.get(name).map(String::as_str);
        assert_eq!(
            (its("larder.account.id"), its("larder.hop"), its("larder.result")),
            (Some("one"), Some(hop), result)
        );
        assert_eq!((its("rpc.system.name"), its("rpc.method")), (Some("grpc"), Some(method)));
        assert_eq!((its("rpc.response.status_code"), span.failed), (Some("OK"), false));
        assert_eq!((its("larder.owner"), its("larder.topology.digest")), (Some(&*address), Some(&*digest)));
    }
    assert_eq!(way.attributes["larder.owner"], address);
    assert_eq!(way.attributes["server.port"], cluster.replicas["b"].addresses.peer.unwrap().port().to_string());
    cluster.end().await;
}

#[tokio::test]
async fn a_read_says_whether_it_hit_and_a_miss_is_no_fault() {
    let collector = Collector::start().await;
    let cluster = with_flags(1, &["--otlp-endpoint", &collector.url(), "--span-delay=10"]).await;
    let mut client = at(&cluster, "a").await;
    client.store(store("k", "v")).await.unwrap();
    client.get(get("k")).await.unwrap();
    client.get(v1::GetRequest { key: "other".into() }).await.unwrap_err();
    eventually("all three came", || collector.spans().len() == 3).await;
    let told = |span: &Span, name: &str| span.attributes.get(name).cloned().unwrap_or_default();
    let spans = collector.spans();
    let all: Vec<_> =
        spans.iter().map(|span| (told(span, "larder.result"), told(span, "rpc.response.status_code"))).collect();
    let text = |pairs: [(&str, &str); 3]| pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec();
    assert_eq!(all, text([("", "OK"), ("hit", "OK"), ("miss", "NOT_FOUND")]));
    assert!(spans.iter().all(|span| !span.failed && span.parent.is_empty()), "{spans:#?}");
    cluster.end().await;
}
