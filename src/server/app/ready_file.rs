//! The file that says where a replica listens: for scripts and tests that let it choose free ports.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Addresses, AppError};

/// The file while the replica serves; dropping it removes it, so that nobody finds the addresses of one that is gone.
#[derive(Debug)]
pub(super) struct ReadyFile(PathBuf);

impl ReadyFile {
    /// Writes the file that is configured, if one is.
    pub(super) fn write(path: Option<&Path>, addresses: &Addresses) -> Result<Option<Self>, AppError> {
        let failed = |path: &Path, source| AppError::ReadyFile { path: path.to_owned(), source };
        path.map(|path| Self::at(path, addresses).map_err(|source| failed(path, source))).transpose()
    }

    /// Writes it to a temporary name beside and renames it, so that who sees the file sees all of it.
    fn at(path: &Path, addresses: &Addresses) -> io::Result<Self> {
        let Addresses { grpc, peer, health, admin } = addresses;
        let mut text = serde_json::json!({
            "grpc": grpc.to_string(),
            "health": health.to_string(),
            "admin": admin.to_string(),
            "pid": std::process::id(),
        });
        if let Some(peer) = peer {
            text["peer"] = peer.to_string().into();
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        fs::write(&temporary, format!("{text}\n"))?;
        fs::rename(&temporary, path)?;
        Ok(Self(path.to_owned()))
    }
}

/// Removes what a replica left that did not end in good order.
pub(super) fn clear(path: &Path) {
    // Mostly there is none.
    let _ = fs::remove_file(path);
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Whoever removed it before wanted the same.
        let _ = fs::remove_file(&self.0);
    }
}
