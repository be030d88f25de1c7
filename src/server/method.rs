//! The methods that a replica answers, and what the wall must know of each before it reads the message. A path is looked up
//! once; afterwards a method is a small number that indexes tables.

/// A method, or one kind of item inside a batch or a pipeline: those are calls too, counted under names of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    Store,
    Get,
    Delete,
    Touch,
    Increment,
    BatchGet,
    BatchStore,
    BatchDelete,
    Clear,
    DeletePrefix,
    Dump,
    Pipeline,
    Stats,
    TopologyWatch,
    GetByToken,
    TutorialStore,
    TutorialGet,
    TutorialDump,
    TutorialGetByToken,
    HealthCheck,
    HealthWatch,
    Reflection,
    BatchGetItem,
    BatchStoreItem,
    BatchDeleteItem,
    PipelineGet,
    PipelineStore,
    PipelineDelete,
    PipelineTouch,
    PipelineIncrement,
    PipelineUnknown,
    PeerDumpPage,
    PeerClearPage,
    PeerUsage,
    Unknown,
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Callers with any token of an account.
    Read,
    /// Callers with a read-write token.
    Write,
    /// Everybody, within the server's rate.
    Open,
    /// Everybody, always: probes must hear the truth from an overloaded replica.
    Probe,
}

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unary,
    /// One request, many answers.
    Streaming,
    /// Many of both.
    Bidirectional,
}

/// What the wall knows of a method.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Fully qualified, as OpenTelemetry's `rpc.method` wants it.
    pub name: &'static str,
    pub access: Access,
    pub kind: Kind,
    /// Whether a call may be repeated although it may have been applied (a call with a condition may differ).
    pub idempotent: bool,
}

use Access::{Open, Probe, Read, Write};
use Kind::{Bidirectional, Streaming, Unary};
use Method as M;

/// In the order of the enum.
const TABLE: [(Method, Traits); Method::COUNT] = [
    row(M::Store, "larder.v1.Cache/Store", Write, Unary, true),
    row(M::Get, "larder.v1.Cache/Get", Read, Unary, true),
    row(M::Delete, "larder.v1.Cache/Delete", Write, Unary, true),
    row(M::Touch, "larder.v1.Cache/Touch", Write, Unary, true),
    row(M::Increment, "larder.v1.Cache/Increment", Write, Unary, false),
    row(M::BatchGet, "larder.v1.Cache/BatchGet", Read, Streaming, true),
    row(M::BatchStore, "larder.v1.Cache/BatchStore", Write, Streaming, false),
    row(M::BatchDelete, "larder.v1.Cache/BatchDelete", Write, Streaming, false),
    row(M::Clear, "larder.v1.Cache/Clear", Write, Streaming, false),
    row(M::DeletePrefix, "larder.v1.Cache/DeletePrefix", Write, Streaming, false),
    row(M::Dump, "larder.v1.Cache/Dump", Read, Streaming, true),
    // What a pipeline may change is asked of each of its items.
    row(M::Pipeline, "larder.v1.Cache/Pipeline", Read, Bidirectional, false),
    row(M::Stats, "larder.v1.Cache/Stats", Read, Unary, true),
    row(M::TopologyWatch, "larder.v1.Topology/Watch", Read, Streaming, true),
    row(M::GetByToken, "larder.v1.Accounts/GetByToken", Open, Unary, true),
    row(M::TutorialStore, "rpc.Cache/Store", Open, Unary, true),
    row(M::TutorialGet, "rpc.Cache/Get", Open, Unary, true),
    row(M::TutorialDump, "rpc.Cache/Dump", Open, Streaming, true),
    row(M::TutorialGetByToken, "rpc.Accounts/GetByToken", Open, Unary, true),
    row(M::HealthCheck, "grpc.health.v1.Health/Check", Probe, Unary, true),
    row(M::HealthWatch, "grpc.health.v1.Health/Watch", Probe, Streaming, true),
    row(M::Reflection, "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Open, Bidirectional, true),
    row(M::BatchGetItem, "larder.v1.Cache/BatchGet/Item", Read, Unary, true),
    row(M::BatchStoreItem, "larder.v1.Cache/BatchStore/Item", Write, Unary, true),
    row(M::BatchDeleteItem, "larder.v1.Cache/BatchDelete/Item", Write, Unary, true),
    row(M::PipelineGet, "larder.v1.Cache/Pipeline/Get", Read, Unary, true),
    row(M::PipelineStore, "larder.v1.Cache/Pipeline/Store", Write, Unary, true),
    row(M::PipelineDelete, "larder.v1.Cache/Pipeline/Delete", Write, Unary, true),
    row(M::PipelineTouch, "larder.v1.Cache/Pipeline/Touch", Write, Unary, true),
    row(M::PipelineIncrement, "larder.v1.Cache/Pipeline/Increment", Write, Unary, false),
    row(M::PipelineUnknown, "larder.v1.Cache/Pipeline/Unknown", Read, Unary, true),
    // Steps of calls over the whole cluster, which one replica asks another for.
    row(M::PeerDumpPage, "larder.peer.v1.Peer/Forward/DumpPage", Read, Unary, true),
    row(M::PeerClearPage, "larder.peer.v1.Peer/Forward/ClearPage", Write, Unary, true),
    row(M::PeerUsage, "larder.peer.v1.Peer/Forward/Usage", Read, Unary, true),
    // Paths are the caller's text, so they must not become labels.
    row(M::Unknown, "unknown", Open, Unary, true),
];

const fn row(method: Method, name: &'static str, access: Access, kind: Kind, idempotent: bool) -> (Method, Traits) {
    (method, Traits { name, access, kind, idempotent })
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = M::Unknown as usize + 1;

    /// The method of a request's path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        match path {
            "/larder.v1.Cache/Get" => M::Get,
            "/larder.v1.Cache/Store" => M::Store,
            "/larder.v1.Cache/Delete" => M::Delete,
            "/larder.v1.Cache/Touch" => M::Touch,
            "/larder.v1.Cache/Increment" => M::Increment,
            "/larder.v1.Cache/BatchGet" => M::BatchGet,
            "/larder.v1.Cache/BatchStore" => M::BatchStore,
            "/larder.v1.Cache/BatchDelete" => M::BatchDelete,
            "/larder.v1.Cache/Clear" => M::Clear,
            "/larder.v1.Cache/DeletePrefix" => M::DeletePrefix,
            "/larder.v1.Cache/Dump" => M::Dump,
            "/larder.v1.Cache/Pipeline" => M::Pipeline,
            "/larder.v1.Cache/Stats" => M::Stats,
            "/larder.v1.Topology/Watch" => M::TopologyWatch,
            "/larder.v1.Accounts/GetByToken" => M::GetByToken,
            "/rpc.Cache/Store" => M::TutorialStore,
            "/rpc.Cache/Get" => M::TutorialGet,
            "/rpc.Cache/Dump" => M::TutorialDump,
            "/rpc.Accounts/GetByToken" => M::TutorialGetByToken,
            "/grpc.health.v1.Health/Check" => M::HealthCheck,
            "/grpc.health.v1.Health/Watch" => M::HealthWatch,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => M::Reflection,
            _ => M::Unknown,
        }
    }

    /// Every method, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(method, _)| *method)
    }

    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    #[must_use]
    pub const fn traits(self) -> &'static Traits {
        &TABLE[self as usize].1
    }

    /// Whether it is one operation on one key.
    #[must_use]
    pub const fn has_key(self) -> bool {
        matches!(
            self,
            M::Store
                | M::Get
                | M::Delete
                | M::Touch
                | M::Increment
                | M::TutorialStore
                | M::TutorialGet
                | M::BatchGetItem
                | M::BatchStoreItem
                | M::BatchDeleteItem
                | M::PipelineGet
                | M::PipelineStore
                | M::PipelineDelete
                | M::PipelineTouch
                | M::PipelineIncrement
        )
    }

    /// Whether the tutorial's API has it.
    #[must_use]
    pub const fn is_tutorial(self) -> bool {
        matches!(self, M::TutorialStore | M::TutorialGet | M::TutorialDump | M::TutorialGetByToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stands_at_the_index_of_its_method() {
        for (index, (method, _)) in TABLE.iter().enumerate() {
            assert_eq!(method.index(), index);
        }
    }

    #[test]
    fn every_method_with_a_path_is_found_by_it() {
        let is_item = |name: &str| name.matches('/').count() != 1;
        for method in Method::all() {
            let name = method.traits().name;
            let found = Method::of(&format!("/{name}"));
            assert_eq!(found, if is_item(name) { Method::Unknown } else { method }, "{name}");
        }
    }
}
