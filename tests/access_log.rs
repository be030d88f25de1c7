//! The access log: one line per call, with what an operator asks for and nothing that a caller would not want written down.
//! A binary of its own, because a subscriber for all threads can be set only once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::Write;
use std::sync::Arc;

use larder::rpc::proto::v1;
use parking_lot::Mutex;
use support::{TOKEN, TestServer, eventually};
use tonic::Request;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

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

#[tokio::test]
async fn a_line_says_who_called_what_and_how_it_ended_but_no_key_value_or_token() {
    let kept = Kept::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(LevelFilter::TRACE).with_writer(kept.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let server = TestServer::start();
    let mut client = server.client().await;
    let mut request = Request::new(v1::StoreRequest {
        key: "a-private-key".into(),
        val: "a-private-value".into(),
        ..Default::default()
    });
    let trace = "0af7651916cd43dd8448eb211c80319c";
    request.metadata_mut().insert("traceparent", format!("00-{trace}-b7ad6b7169203331-01").parse().unwrap());
    client.store(request).await.unwrap();
    let get = v1::GetRequest { key: "another-private-key".into() };
    client.get(get.clone()).await.unwrap_err();
    let item = v1::BatchGetItem { get: Some(get), context: None };
    let mut batch = client.batch_get(v1::BatchGetRequest { items: vec![item] }).await.unwrap().into_inner();
    while batch.message().await.unwrap().is_some() {}
    let text = || String::from_utf8(kept.0.lock().clone()).unwrap();
    eventually("the batch is logged", || text().contains("Cache/BatchGet\"")).await;

    let text = text();
    let line =
        |method: &str| text.lines().find(|line| line.contains(&format!("\"larder.v1.Cache/{method}\""))).unwrap();
    for part in
        [r#""code":"Ok""#, r#""account":"one""#, r#""bytes_in":"#, r#""duration_us":"#, r#""peer":"127.0.0.1"#, trace]
    {
        assert!(line("Store").contains(part), "{part} is missing in {}", line("Store"));
    }
    assert!(line("Get").contains(r#""code":"NotFound""#));
    assert!(line("BatchGet/Item").contains(r#""level":"DEBUG""#));
    for secret in ["a-private-key", "a-private-value", TOKEN] {
        // Our own lines: at `trace` the HTTP/2 library shows whole frames, which is why the default filter is not that.
        let ours = text.lines().filter(|line| line.contains(r#""target":"larder"#));
        assert_eq!(ours.filter(|line| line.contains(secret)).count(), 0, "{secret} was logged");
    }
}
