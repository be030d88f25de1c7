//! Messages on the wire: gRPC's five-byte prefix by hand, for speed and so that the errors are ours; compressed requests by
//! tonic's codec. Answers are not compressed: what is cached is mostly compressed already, and a cache is asked for speed.

pub mod encode;
mod messages;

pub use messages::Messages;

pub use crate::rpc::wire::PREFIX_BYTES;
