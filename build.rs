//! Compiles the protos with protox, so that nobody needs `protoc`, and writes the descriptor set that reflection serves.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

/// What clients may see.
const PROTOS: [&str; 5] = [
    "larder/v1/error.proto",
    "larder/v1/accounts.proto",
    "larder/v1/cache.proto",
    "larder/v1/topology.proto",
    "tutorial/rpc.proto",
];

/// What replicas say to each other.
const PEER: [&str; 2] = ["larder/peer/v1/peer.proto", "larder/peer/v1/walk.proto"];

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let shown = protox::compile(PROTOS, ["proto"])?;
    std::fs::write(out.join("larder.bin"), shown.encode_to_vec())?;
    let descriptors = protox::compile(PROTOS.into_iter().chain(PEER), ["proto"])?;
    // `Bytes` for every bytes field: a value is copied once, when it is stored.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
