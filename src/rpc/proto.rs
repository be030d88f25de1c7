//! The code generated from `proto/`. The generators follow other lints than ours.
#![expect(
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

/// `larder.v1`: the contract.
pub mod v1 {
    tonic::include_proto!("larder.v1");
}

/// `rpc`: the tutorial's API.
pub mod tutorial {
    tonic::include_proto!("rpc");
}

/// What replicas say to each other.
pub mod peer {
    /// `larder.peer.v1`.
    pub mod v1 {
        tonic::include_proto!("larder.peer.v1");
    }
}

/// The encoded `FileDescriptorSet` of the protos that clients may see, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/larder.bin"));
