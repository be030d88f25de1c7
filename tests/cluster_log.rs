//! What travels with a forwarded call, as the owner's log has it. A binary of its own, because a subscriber for all threads can
//! be set only once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "contract/asking.rs"]
mod asking;
#[path = "cluster_operations/entry.rs"]
mod entry;
mod support;
#[path = "support/cluster.rs"]
mod test_cluster;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use entry::{at, key_of};
use larder::rpc::proto::v1;
use parking_lot::Mutex;
use serde_json::Value;
use support::{TOKEN, eventually};
use test_cluster::TestCluster;
use tonic::Request;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    /// The lines of owners.
    fn carried_out(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["fields"]["message"] == "carried out for another replica").collect()
    }
}

#[tokio::test]
async fn trace_deadline_and_dry_run_come_to_the_owner_and_no_token_does() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const ITEM_TRACE: &str = "1bf7651916cd43dd8448eb211c80319c";
    let kept = Kept::default();
    let filter: Targets = "info,larder::access=debug".parse().unwrap();
    let lines = tracing_subscriber::fmt::layer().json().with_writer(kept.clone()).with_filter(filter);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines)).unwrap();
    let cluster = TestCluster::of(2).await;
    let mut client = at(&cluster, "a").await;
    let key = key_of(&cluster, "b", "key");

    let store = |token: &str| {
        let message = v1::StoreRequest { account_token: token.into(), ..asking::store(&key, "value") };
        let mut request = Request::new(message);
        request.metadata_mut().insert("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01").parse().unwrap());
        request.metadata_mut().insert("dry-run", "1".parse().unwrap());
        request.set_timeout(Duration::from_secs(7));
        request
    };
    client.store(store("")).await.unwrap();
    let mut bare = support::client(entry::channel(&cluster, "a").await, None);
    bare.store(store(TOKEN)).await.unwrap();
    let context = v1::CallContext {
        timeout_ms: 3000,
        traceparent: format!("00-{ITEM_TRACE}-b7ad6b7169203331-01"),
        ..Default::default()
    };
    let items = vec![v1::BatchGetItem { get: Some(asking::get(&key)), context: Some(context) }];
    let answers = asking::all(client.batch_get(v1::BatchGetRequest { items }).await.unwrap().into_inner()).await;
    assert_eq!(answers.len(), 1);
    eventually("the owner has logged all three", || kept.carried_out().len() == 3).await;

    let lines = kept.carried_out();
    for line in &lines[..2] {
        let fields = &line["fields"];
        assert_eq!((fields["trace_id"].as_str(), fields["dry_run"].as_bool()), (Some(TRACE), Some(true)));
        assert_eq!((fields["code"].as_str(), fields["space"].as_str()), (Some("Some(Ok)"), Some("one")));
        assert!(matches!(fields["deadline_ms"].as_u64(), Some(1..=7000)), "{fields}");
    }
    let item = &lines[2]["fields"];
    assert_eq!((item["trace_id"].as_str(), item["method"].as_str()), (Some(ITEM_TRACE), Some("larder.v1.Cache/Get")));
    assert!(matches!(item["deadline_ms"].as_u64(), Some(1..=3000)), "{item}");
    assert!(!kept.text().contains(TOKEN), "a token was logged");
    cluster.end().await;
}
