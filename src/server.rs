//! Floor 3: what serves the contract.

pub mod accounts;
pub mod config;
