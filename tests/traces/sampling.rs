//! What is recorded, and what is not.

use crate::asking::get;
use crate::collector::Collector;
use crate::entry::{at, key_of, with_flags};
use crate::hops::{TRACE, spans, traced};
use crate::support::eventually;

#[tokio::test]
async fn the_callers_word_counts_on_every_hop_and_without_one_the_ratio_does() {
    let collector = Collector::start().await;
    let endpoint = collector.url();
    let flags = ["--otlp-endpoint", &endpoint, "--span-delay=10", "--traces-sampler=parentbased_traceidratio"];
    let cluster = with_flags(2, &[&flags[..], &["--traces-sampler-arg=0"]].concat()).await;
    let mut client = at(&cluster, "a").await;
    let key = key_of(&cluster, "b", "key");
    for _ in 0..20 {
        client.get(get(&key)).await.unwrap_err();
        client.get(traced(get(&key), "00")).await.unwrap_err();
    }
    client.get(traced(get(&key), "01")).await.unwrap_err();
    spans(&collector, TRACE, 3).await;
    assert_eq!(collector.spans().len(), 3, "nothing else was recorded");
    cluster.end().await;
}

#[tokio::test]
async fn a_call_without_a_trace_begins_one_and_its_owner_goes_on_in_it() {
    let collector = Collector::start().await;
    let endpoint = collector.url();
    let flags = ["--otlp-endpoint", &endpoint, "--span-delay=10", "--traces-sampler=traceidratio"];
    let cluster = with_flags(2, &[&flags[..], &["--traces-sampler-arg=1"]].concat()).await;
    let key = key_of(&cluster, "b", "key");
    at(&cluster, "a").await.get(get(&key)).await.unwrap_err();
    eventually("all three came", || collector.spans().len() == 3).await;
    let root = collector.spans().into_iter().find(|span| span.parent.is_empty()).unwrap();
    assert_eq!(root.replica, "a");
    spans(&collector, &root.trace, 3).await;
    cluster.end().await;
}
