//! A script of calls about one key, and what came of each in words, without what may differ between two runs: versions are
//! told by their order.

use larder::rpc::proto::v1::pipeline_call::Operation;
use larder::rpc::proto::v1::{
    self, StoreCondition, TouchMode, batch_delete_result, batch_get_result, batch_store_result, pipeline_result,
};
use larder::rpc::status::failure_of;
use tonic::{Response, Status};

use crate::asking::{all, delete, get, increment, store, touch};
use crate::support::{Client, dry_run};

/// What was answered, one line per call.
pub struct Script<'a> {
    client: &'a mut Client,
    key: String,
    versions: Vec<u64>,
    lines: Vec<String>,
}

/// Does everything that can be done with one key.
pub async fn play(client: &mut Client, key: &str) -> Vec<String> {
    let mut script = Script { client, key: key.into(), versions: Vec::new(), lines: Vec::new() };
    script.stores().await;
    script.touches().await;
    script.increments().await;
    script.deletes().await;
    script.many().await;
    script.wrong().await;
    script.lines
}

impl Script<'_> {
    async fn stores(&mut self) {
        let key = self.key.clone();
        let with = |val: &'static str, condition: StoreCondition, expected_version| v1::StoreRequest {
            condition: condition.into(),
            expected_version,
            ..store(&key, val)
        };
        let conditions = [
            ("absent", with("", StoreCondition::IfPresent, 0)),
            ("dry", with("0", StoreCondition::IfAbsent, 0)),
            ("first", with("1", StoreCondition::IfAbsent, 0)),
            ("again", with("2", StoreCondition::IfAbsent, 0)),
            ("other version", with("3", StoreCondition::IfVersion, 7)),
            ("present", with("4", StoreCondition::IfPresent, 0)),
        ];
        for (what, request) in conditions {
            let answer = if what == "dry" {
                self.client.store(dry_run(request)).await
            } else {
                self.client.store(request).await
            };
            self.version(&format!("store {what}"), answer.map(|answer| answer.into_inner().version));
            self.get().await;
        }
        let current = self.versions.last().copied().unwrap();
        let answer = self.client.store(with("5", StoreCondition::IfVersion, current)).await;
        self.version("store version", answer.map(|answer| answer.into_inner().version));
        let answer = self.client.store(v1::StoreRequest { ttl_ms: 1_000_000, ..store(&key, vec![7; 100_000]) }).await;
        self.version("store large", answer.map(|answer| answer.into_inner().version));
        self.get().await;
    }

    async fn get(&mut self) {
        let answer = self.client.get(get(&self.key)).await.map(Response::into_inner);
        let line = match &answer {
            Ok(got) => format!("{} bytes, expires {}", got.val.len(), got.remaining_ttl_ms > 0),
            Err(status) => failed(status),
        };
        self.version(&format!("get: {line}"), answer.map(|got| got.version));
    }

    async fn touches(&mut self) {
        for (ttl_ms, mode) in [
            (2_000_000, TouchMode::ShortenOnly),
            (2_000_000, TouchMode::ExtendOnly),
            (3_000_000, TouchMode::Overwrite),
            (0, TouchMode::Overwrite),
        ] {
            let answer = self.client.touch(touch(&self.key, ttl_ms, mode)).await.map(Response::into_inner);
            let line = match &answer {
                Ok(touched) => format!("changed {}, expires {}", touched.changed, touched.remaining_ttl_ms > 0),
                Err(status) => failed(status),
            };
            self.version(&format!("touch {mode:?}: {line}"), answer.map(|touched| touched.version));
        }
    }

    async fn increments(&mut self) {
        let counter = format!("{}#", self.key);
        for (delta, id) in [(5, "a"), (5, "a"), (-2, "b"), (1, ""), (5, "a"), (i64::MAX, "")] {
            let answer = self.client.increment(increment(&counter, delta, id)).await.map(Response::into_inner);
            self.line(match answer {
                Ok(counted) => format!("increment {delta} {id}: {}", counted.value),
                Err(status) => failed(&status),
            });
        }
        let answer = self.client.increment(dry_run(increment(&counter, 10, ""))).await.map(Response::into_inner);
        self.line(format!("increment dry: {:?}", answer.map(|counted| (counted.value, counted.version)).ok()));
        let answer = self.client.increment(increment(&self.key, 1, "")).await;
        self.line(answer.map_or_else(|status| failed(&status), |_| "counted".into()));
    }

    async fn deletes(&mut self) {
        for if_version in [9, 0, 0] {
            let answer = self.client.delete(v1::DeleteRequest { key: self.key.clone(), if_version }).await;
            self.line(match answer {
                Ok(deleted) => format!("delete {if_version}: {}", deleted.into_inner().existed),
                Err(status) => code_and_reason(&status),
            });
        }
        self.get().await;
        let answer = self.client.touch(touch(&self.key, 1, TouchMode::Overwrite)).await;
        self.line(answer.map_or_else(|status| failed(&status), |_| "touched".into()));
    }

    async fn many(&mut self) {
        let keys = [self.key.clone(), format!("{}/2", self.key), String::new()];
        let items = keys.iter().map(|key| v1::BatchStoreItem { store: Some(store(key, "v")), context: None }).collect();
        let answers = all(self.client.batch_store(v1::BatchStoreRequest { items }).await.unwrap().into_inner()).await;
        let mut lines: Vec<_> = answers.into_iter().flat_map(|answer| answer.results).collect();
        lines.sort_by_key(|result| result.index);
        for result in lines {
            use batch_store_result::Result::{Error, Store};
            self.line(match result.result.unwrap() {
                Store(stored) => format!("{} stored {}", result.index, stored.version > 0),
                Error(error) => format!("{} {error:?}", result.index),
            });
        }
        let items = keys.iter().map(|key| v1::BatchGetItem { get: Some(get(key)), context: None }).collect();
        let answers = all(self.client.batch_get(v1::BatchGetRequest { items }).await.unwrap().into_inner()).await;
        let mut lines: Vec<_> = answers.into_iter().flat_map(|answer| answer.results).collect();
        lines.sort_by_key(|result| result.index);
        for result in lines {
            use batch_get_result::Result::{Error, Get};
            self.line(match result.result.unwrap() {
                Get(got) => format!("{} got {:?}", result.index, got.val),
                Error(error) => format!("{} {error:?}", result.index),
            });
        }
        self.pipeline().await;
        let items = keys.iter().map(|key| v1::BatchDeleteItem { delete: Some(delete(key)), context: None }).collect();
        let answers = all(self.client.batch_delete(v1::BatchDeleteRequest { items }).await.unwrap().into_inner()).await;
        let mut lines: Vec<_> = answers.into_iter().flat_map(|answer| answer.results).collect();
        lines.sort_by_key(|result| result.index);
        for result in lines {
            use batch_delete_result::Result::{Delete, Error};
            self.line(match result.result.unwrap() {
                Delete(deleted) => format!("{} deleted {}", result.index, deleted.existed),
                Error(error) => format!("{} {error:?}", result.index),
            });
        }
    }

    async fn pipeline(&mut self) {
        let dry = Some(v1::CallContext { dry_run: true, ..Default::default() });
        let operations = [
            (None, Operation::Store(store(&self.key, "piped"))),
            (None, Operation::Get(get(&self.key))),
            (dry, Operation::Delete(delete(&self.key))),
            (None, Operation::Touch(touch(&self.key, 5_000_000, TouchMode::Overwrite))),
            (None, Operation::Increment(increment(&self.key, 1, ""))),
            (None, Operation::Increment(increment(&format!("{}#", self.key), 1, "c"))),
            (None, Operation::Get(get(""))),
        ];
        let calls = (1..).zip(operations).map(|(id, (context, operation))| v1::PipelineCall {
            id,
            context,
            operation: Some(operation),
        });
        let messages = [v1::PipelineRequest { calls: calls.collect() }];
        let answers = self.client.pipeline(tokio_stream::iter(messages)).await.unwrap().into_inner();
        let mut results: Vec<_> = all(answers).await.into_iter().flat_map(|answer| answer.results).collect();
        results.sort_by_key(|result| result.id);
        for result in results {
            use pipeline_result::Result::{Delete, Error, Get, Increment, Store, Touch};
            self.line(match result.result.unwrap() {
                Get(got) => format!("{} got {:?}", result.id, got.val),
                Store(stored) => format!("{} stored {}", result.id, stored.version > 0),
                Delete(deleted) => format!("{} deleted {}", result.id, deleted.existed),
                Touch(touched) => format!("{} touched {}", result.id, touched.changed),
                Increment(counted) => format!("{} counted {}", result.id, counted.value),
                Error(error) => format!("{} {error:?}", result.id),
            });
        }
    }

    async fn wrong(&mut self) {
        let huge = v1::StoreRequest { val: vec![0; 4 * 1024 * 1024 - 64 * 1024].into(), ..store(&self.key, "") };
        let long = v1::StoreRequest { ttl_ms: u64::MAX, ..store(&self.key, "") };
        for request in [huge, long] {
            let status = self.client.store(request).await.unwrap_err();
            self.line(failed(&status));
        }
        let status = self.client.increment(increment(&self.key, 1, &"i".repeat(65))).await.unwrap_err();
        self.line(failed(&status));
    }

    fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Notes a version by the order in which it was first seen; it must be greater than all before, or one of them.
    fn version(&mut self, what: &str, version: Result<u64, Status>) {
        let line = match version {
            Err(status) => code_and_reason(&status),
            Ok(0) => "version 0".to_owned(),
            Ok(version) => match self.versions.iter().position(|known| *known == version) {
                Some(at) => format!("version {at}"),
                None => {
                    assert!(self.versions.last().is_none_or(|last| *last < version), "{what}: a version went back");
                    self.versions.push(version);
                    format!("version {} is new", self.versions.len() - 1)
                }
            },
        };
        self.lines.push(format!("{what}: {line}"));
    }
}

/// All that a failure says, without the version that it may name.
fn failed(status: &Status) -> String {
    let pushback = status.metadata().get("grpc-retry-pushback-ms").cloned();
    format!("{:?} {:?} {pushback:?} {:?}", status.code(), failure_of(status), status.message())
}

fn code_and_reason(status: &Status) -> String {
    format!("{:?} {}", status.code(), failure_of(status).reason())
}
