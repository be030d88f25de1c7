//! Floor 1: what is said on the wire.

pub mod channels;
pub mod coalesce;
pub mod convert;
pub mod failure;
pub mod fields;
pub mod frames;
pub mod hear_out;
pub mod http2;
pub mod metadata;
pub mod peer;
pub mod proto;
pub mod status;
pub mod token;
pub mod trace;
pub mod wire;
