//! The accounts file on disk: read whole, checked, and written whole beside itself before it takes its place, so that a
//! server never reads half a file and a crash leaves the old one.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::server::accounts::file::{File, FileError, MAX_FILE_BYTES};

/// Why the file cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error("cannot read the accounts file {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("cannot write the accounts file {path}: {source}; nothing was changed")]
    Write { path: String, source: io::Error },
    #[error("the accounts file {path} is wrong: {source}")]
    Wrong { path: String, source: FileError },
    #[error("nothing was changed, because the accounts file {path} would be wrong: {source}")]
    WouldBeWrong { path: String, source: FileError },
}

/// A new file is for its owner alone; one that is there keeps its mode.
const NEW_FILE_MODE: u32 = 0o600;

/// Reads a file.
pub(super) fn load(path: &Path) -> Result<File, DiskError> {
    match read(path) {
        Ok(content) => parse(path, &content),
        Err(source) => Err(DiskError::Read { path: shown(path), source }),
    }
}

/// The same; a file that is not there is empty.
pub(super) fn load_or_new(path: &Path) -> Result<File, DiskError> {
    match load(path) {
        Err(DiskError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(File::default()),
        loaded => loaded,
    }
}

/// Checks and writes a file.
pub(super) fn save(path: &Path, file: &File) -> Result<(), DiskError> {
    file.book().map_err(|source| DiskError::WouldBeWrong { path: shown(path), source })?;
    replace(path, file).map_err(|source| DiskError::Write { path: shown(path), source })
}

/// Through links: it is the file that is replaced, not the link to it.
fn replace(path: &Path, file: &File) -> io::Result<()> {
    let (target, mode) = match fs::canonicalize(path) {
        Ok(target) => {
            let mode = fs::metadata(&target)?.permissions().mode();
            (target, mode & 0o777)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), NEW_FILE_MODE),
        Err(error) => return Err(error),
    };
    let temporary = beside(&target);
    let written = write(&temporary, mode, file).and_then(|()| fs::rename(&temporary, &target));
    if written.is_err() {
        // What is left of it is in nobody's way, and the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write(path: &Path, mode: u32, file: &File) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(file)?;
    text.push(b'\n');
    let mut temporary = OpenOptions::new().write(true).create_new(true).mode(NEW_FILE_MODE).open(path)?;
    temporary.set_permissions(Permissions::from_mode(mode))?;
    temporary.write_all(&text)?;
    temporary.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn parse(path: &Path, content: &[u8]) -> Result<File, DiskError> {
    let checked = File::parse(content).and_then(|file| file.book().map(|_| file));
    checked.map_err(|source| DiskError::Wrong { path: shown(path), source })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
