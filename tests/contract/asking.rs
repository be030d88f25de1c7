//! Requests, in few words.

#![allow(dead_code, reason = "each test binary uses the part that it needs")]

use bytes::Bytes;
use larder::rpc::failure::Failure;
use larder::rpc::proto::v1;
use larder::rpc::status;
use tonic::Status;

pub fn store(key: &str, val: impl Into<Bytes>) -> v1::StoreRequest {
    v1::StoreRequest { key: key.into(), val: val.into(), ..Default::default() }
}

pub fn get(key: &str) -> v1::GetRequest {
    v1::GetRequest { key: key.into() }
}

pub fn delete(key: &str) -> v1::DeleteRequest {
    v1::DeleteRequest { key: key.into(), if_version: 0 }
}

pub fn touch(key: &str, ttl_ms: u64, mode: v1::TouchMode) -> v1::TouchRequest {
    v1::TouchRequest { key: key.into(), ttl_ms, mode: mode.into() }
}

pub fn increment(key: &str, delta: i64, request_id: &str) -> v1::IncrementRequest {
    v1::IncrementRequest { key: key.into(), delta, request_id: request_id.into(), ttl_ms: 0 }
}

/// What a status says, back from its details.
pub fn failure<T: std::fmt::Debug>(answer: Result<T, Status>) -> Failure {
    status::failure_of(&answer.unwrap_err())
}

/// All messages of a stream that ends well.
pub async fn all<T>(mut stream: tonic::Streaming<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        all.push(message);
    }
    all
}
