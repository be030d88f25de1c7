//! The file that says where a replica listens: for scripts and tests that let it choose free ports.

use std::fs;
use std::io;
use std::path::Path;

use super::Addresses;

/// Writes it to a temporary name beside and renames it, so that who sees the file sees all of it.
pub(super) fn write(path: &Path, addresses: &Addresses) -> io::Result<()> {
    let Addresses { grpc, health, admin } = addresses;
    let text = serde_json::json!({
        "grpc": grpc.to_string(),
        "health": health.to_string(),
        "admin": admin.to_string(),
        "pid": std::process::id(),
    });
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    fs::write(&temporary, format!("{text}\n"))?;
    fs::rename(&temporary, path)
}
