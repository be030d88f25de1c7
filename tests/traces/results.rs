//! What came of a call, where that is no plain hit or miss.

use bytes::Bytes;

use crate::asking::{get, store};
use crate::collector::{Collector, Span};
use crate::entry::{at, key_of, with_flags};
use crate::support::eventually;
use crate::test_cluster::{on_ring, wait};

fn result(span: &Span) -> Option<&str> {
    span.attributes.get("larder.result").map(String::as_str)
}

fn value(bytes: usize) -> Bytes {
    vec![7; bytes].into()
}

#[tokio::test]
async fn a_store_for_which_others_had_to_go_says_evicted() {
    let collector = Collector::start().await;
    let cluster = with_flags(1, &["--otlp-endpoint", &collector.url(), "--span-delay=10"]).await;
    let mut client = at(&cluster, "a").await;
    client.store(store("first", value(1 << 20))).await.unwrap();
    // Into 64 MiB.
    for number in 0..80 {
        client.store(store(&format!("k{number}"), value(1 << 20))).await.unwrap();
    }
    eventually("all came", || collector.spans().len() == 81).await;
    let mut spans = collector.spans();
    spans.sort_by_key(|span| span.began);
    assert_eq!((result(&spans[0]), result(&spans[80])), (None, Some("evicted")));
    cluster.end().await;
}

#[tokio::test]
async fn a_key_that_is_touched_before_its_page_came_says_fetched_and_how_long_that_took() {
    let collector = Collector::start().await;
    let flags = ["--otlp-endpoint", &collector.url(), "--span-delay=10", "--handoff-rate=4MiB"];
    let mut cluster = with_flags(1, &flags).await;
    let mut client = at(&cluster, "a").await;
    let keys: Vec<String> = (0..60).map(|number| format!("key {number}")).collect();
    for key in &keys {
        client.store(store(key, value(512 * 1024))).await.unwrap();
    }
    // What moves takes seconds at that pace.
    cluster.join("b").await;
    wait("b is on the ring", async || on_ring(&cluster.page_of("b").await) == 2).await;
    let mine = key_of(&cluster, "b", "any");
    let mut client = at(&cluster, "b").await;
    client.get(get(&mine)).await.unwrap_err();
    for key in &keys {
        client.get(get(key)).await.unwrap();
    }
    let fetched =
        |span: &Span| span.name == "larder.v1.Cache/Get" && span.replica == "b" && result(span) == Some("fetched");
    eventually("one was fetched", || collector.spans().iter().any(fetched)).await;
    let call = collector.spans().into_iter().find(fetched).unwrap();
    eventually("and it waited", || {
        let waits = |span: &Span| {
            span.name == "larder.handoff.wait" && span.parent == call.id && result(span) == Some("fetched")
        };
        collector.spans().iter().any(waits)
    })
    .await;
    cluster.end().await;
}
