//! The `google.rpc.Status` inside `grpc-status-details-bin`. Written by hand rather than with tonic-types' builder, which
//! takes Google's own messages only.

use prost::Message;
use tonic_types::pb;

use super::{DOMAIN, Pushback, facts, to_error};
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

const TYPE_PREFIX: &str = "type.googleapis.com/";
const ERROR: &str = "larder.v1.Error";

/// Writes the details: `larder.v1.Error` and `ErrorInfo`, then `RetryInfo`, `QuotaFailure` or `BadRequest` where they apply.
pub fn encode(failure: &Failure) -> Vec<u8> {
    let error = to_error(failure);
    let mut details = vec![any(ERROR, &error)];
    details.push(any(
        "google.rpc.ErrorInfo",
        &pb::ErrorInfo {
            reason: error.reason.clone(),
            domain: DOMAIN.to_owned(),
            metadata: error.metadata.clone().into_iter().collect(),
        },
    ));
    if let Pushback::After(wait) = failure.retry_after() {
        let retry_delay = prost_types::Duration::try_from(wait).ok();
        details.push(any("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay }));
    }
    if let Some(violation) = quota(failure) {
        details.push(any("google.rpc.QuotaFailure", &pb::QuotaFailure { violations: vec![violation] }));
    }
    if let Some(field) = facts::field(failure) {
        let violation = pb::bad_request::FieldViolation {
            field: field.to_owned(),
            description: error.message.clone(),
            reason: error.reason.clone(),
            localized_message: None,
        };
        details.push(any("google.rpc.BadRequest", &pb::BadRequest { field_violations: vec![violation] }));
    }
    pb::Status { code: failure.code() as i32, message: error.message, details }.encode_to_vec()
}

/// Reads Larder's own error out of them; `None` when there is none.
pub fn decode(details: &[u8]) -> Option<v1::Error> {
    let status = pb::Status::decode(details).ok()?;
    let any = status.details.iter().find(|any| any.type_url.strip_prefix(TYPE_PREFIX) == Some(ERROR))?;
    v1::Error::decode(any.value.as_slice()).ok()
}

fn any(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: format!("{TYPE_PREFIX}{name}"), value: message.encode_to_vec() }
}

fn quota(failure: &Failure) -> Option<pb::quota_failure::Violation> {
    let (account, limit, metric) = match failure {
        Failure::QuotaKeys { account, limit } => (account, *limit, "max_cache_keys"),
        Failure::QuotaBytes { account, limit } => (account, *limit, "max_bytes"),
        Failure::AccountRate { account, limit, .. } => (account, u64::from(*limit), "requests_per_second"),
        _ => return None,
    };
    Some(pb::quota_failure::Violation {
        subject: format!("account:{account}"),
        description: failure.sentence(),
        quota_metric: metric.to_owned(),
        quota_value: i64::try_from(limit).unwrap_or(i64::MAX),
        ..Default::default()
    })
}
