//! The names of what is told in spans: those of OpenTelemetry's conventions (schema 1.42) where it has one.

use tonic::Code;

/// The conventions that the names are of.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";

/// Always `grpc`.
pub const SYSTEM: &str = "rpc.system.name";
/// Fully qualified: `larder.v1.Cache/Get`.
pub const METHOD: &str = "rpc.method";
/// In words: `OK`, `NOT_FOUND`.
pub const STATUS_CODE: &str = "rpc.response.status_code";
/// The code again, where it is a fault.
pub const ERROR_TYPE: &str = "error.type";
/// Who called.
pub const PEER_ADDRESS: &str = "network.peer.address";
pub const PEER_PORT: &str = "network.peer.port";
/// Who is called.
pub const SERVER_ADDRESS: &str = "server.address";
pub const SERVER_PORT: &str = "server.port";

/// The account's id.
pub const ACCOUNT: &str = "larder.account.id";
/// Where it was carried out: the address of a member as the ring has it.
pub const OWNER: &str = "larder.owner";
/// 0 where the caller called, 1 at the owner that it was forwarded to.
pub const HOP: &str = "larder.hop";
/// Of the view of the members when it ended; equal digests are equal views.
pub const TOPOLOGY: &str = "larder.topology.digest";
/// hit, miss, forwarded, fetched, evicted; between replicas also moved, refused and unknown.
pub const RESULT: &str = "larder.result";
/// Whether it only asked.
pub const DRY_RUN: &str = "larder.dry_run";

/// The way to the owner.
pub const FORWARD: &str = "larder.peer.v1.Peer/Forward";
/// Waiting until a key is this replica's, its newest copy fetched.
pub const WAIT: &str = "larder.handoff.wait";
/// Waiting for room in an account's quota.
pub const LEASE: &str = "larder.quota.lease";
/// Questions to the Accounts service.
pub const ASK: &str = "larder.v1.Accounts/GetByToken";
pub const ASK_TUTORIAL: &str = "rpc.Accounts/GetByToken";

/// gRPC's own word for a code.
#[must_use]
pub fn code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether a code marks the span as failed: those that the conventions name for servers. On the client's side of a hop the
/// same ones do, for a miss at the owner is no fault of the way to it.
#[must_use]
pub fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
