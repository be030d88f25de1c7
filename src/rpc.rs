//! Floor 1: what is said on the wire.

pub mod failure;
pub mod proto;
