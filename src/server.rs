//! Floor 3: what serves the contract.

pub mod accept;
pub mod accounts;
pub mod admin;
pub mod clock;
pub mod config;
pub mod connection;
pub mod drain;
pub mod memory;
pub mod readiness;
pub mod telemetry;
pub mod tls;
pub mod workers;
