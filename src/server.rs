//! Floor 3: what serves the contract.

pub mod accounts;
pub mod admin;
pub mod clock;
pub mod config;
pub mod memory;
pub mod readiness;
pub mod telemetry;
