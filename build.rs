//! Compiles the protos with protox, so that nobody needs `protoc`, and writes the descriptor set that reflection serves.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const PROTOS: [&str; 4] =
    ["larder/v1/error.proto", "larder/v1/accounts.proto", "larder/v1/cache.proto", "tutorial/rpc.proto"];

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("larder.bin"), descriptors.encode_to_vec())?;
    // `Bytes` for every bytes field: a value is copied once, when it is stored.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
