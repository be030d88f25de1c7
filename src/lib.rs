//! Larder: a multi-tenant cache that speaks gRPC and lives in Kubernetes.

pub mod cache;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod cluster;
#[cfg(feature = "server")]
pub mod kubernetes;
pub mod ownership;
pub mod ring;
#[cfg(feature = "client")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod server;
