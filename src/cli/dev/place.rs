//! Where a `larder dev` keeps what it needs while it runs, and how its commands find it: a state file per base port in a
//! directory that is this user's alone.
//!
//! The state file is locked as long as its `larder dev` lives. The kernel lets the lock go whatever way that ends, so a file
//! that is not locked is stale; nothing is guessed from process ids, which return. It is never removed, or two could hold
//! locks on two files of one name.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What the state file says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub pid: u32,
    pub base_port: u16,
    /// Where commands are taken.
    pub socket: PathBuf,
}

/// The place of a running `larder dev`: its own until this is dropped, which removes what was in it.
#[derive(Debug)]
pub struct Place {
    /// Files of this run.
    directory: PathBuf,
    state: File,
    keep: bool,
}

/// Why there is no place, or nobody in it.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("there is no directory {path} for the state of `larder dev`: {source}; name another with --runtime-dir")]
    Directory { path: PathBuf, source: io::Error },
    #[error("{path} is not this user's alone; remove it, or name another with --runtime-dir")]
    Shared { path: PathBuf },
    #[error(
        "a `larder dev` with base port {base_port} runs already, as process {pid}; choose another with --base-port"
    )]
    Runs { base_port: u16, pid: u32 },
    #[error(
        "no `larder dev` with base port {base_port} runs{killed} (its state would be in {path}); start one, or name \
             its port with --base-port"
    )]
    Nobody { base_port: u16, killed: &'static str, path: PathBuf },
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

impl Place {
    /// Takes the place of a base port.
    pub fn take(runtime: Option<&Path>, base_port: u16) -> Result<Self, PlaceError> {
        let parent = parent(runtime)?;
        let path = state_file(&parent, base_port);
        let failed = |source| PlaceError::File { path: path.clone(), source };
        let mut state = options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match state.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PlaceError::Runs { base_port, pid: read(&mut state).map_or(0, |state| state.pid) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let directory = parent.join(format!("dev-{base_port}"));
        // Of one that was killed.
        let _ = fs::remove_dir_all(&directory);
        let place = Self { directory, state, keep: false };
        DirBuilder::new()
            .mode(0o700)
            .create(&place.directory)
            .map_err(|source| PlaceError::Directory { path: place.directory.clone(), source })?;
        Ok(place)
    }

    /// From now on commands find it.
    pub fn announce(&mut self, base_port: u16) -> io::Result<()> {
        let state = State { pid: std::process::id(), base_port, socket: self.socket() };
        let text = serde_json::to_vec(&state)?;
        self.state.set_len(0)?;
        self.state.rewind()?;
        self.state.write_all(&text)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.file("control")
    }

    /// The files stay when it ends: somebody is to read the logs.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The lock goes with the file; what cannot be cleaned up is so at the next start.
        let _ = self.state.set_len(0);
        if !self.keep {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// The `larder dev` that runs with a base port.
pub fn find(runtime: Option<&Path>, base_port: u16) -> Result<State, PlaceError> {
    let parent = parent(runtime)?;
    let path = state_file(&parent, base_port);
    let nobody = |killed| PlaceError::Nobody { base_port, killed, path: path.clone() };
    let mut file = match options().open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(nobody("")),
        Err(source) => return Err(PlaceError::File { path, source }),
    };
    match file.try_lock_shared() {
        Ok(()) => {
            Err(nobody(if file.metadata().is_ok_and(|its| its.len() > 0) { " any more: it was killed" } else { "" }))
        }
        Err(TryLockError::WouldBlock) => read(&mut file).ok_or_else(|| nobody(" yet: it starts")),
        Err(TryLockError::Error(source)) => Err(PlaceError::File { path, source }),
    }
}

/// The user's directory, made if need be. `runtime` is where the system keeps such, if it has a place for them.
fn parent(runtime: Option<&Path>) -> Result<PathBuf, PlaceError> {
    let user = rustix::process::getuid().as_raw();
    let path = match runtime {
        Some(runtime) => runtime.join("larder"),
        None => std::env::temp_dir().join(format!("larder-{user}")),
    };
    let failed = |source| PlaceError::Directory { path: path.clone(), source };
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // Somebody else may have made it first, in a directory where everybody may.
    let found = fs::symlink_metadata(&path).map_err(failed)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        return Err(PlaceError::Shared { path });
    }
    Ok(path)
}

fn state_file(parent: &Path, base_port: u16) -> PathBuf {
    parent.join(format!("dev-{base_port}.json"))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600);
    options
}

fn read(file: &mut File) -> Option<State> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lives_in_a_place_and_commands_find_it() {
        let runtime = tempfile::tempdir().unwrap();
        let at = Some(runtime.path());
        let said = |error: PlaceError| error.to_string();
        assert!(said(find(at, 7070).unwrap_err()).contains("no `larder dev` with base port 7070 runs (its"));
        let mut place = Place::take(at, 7070).unwrap();
        assert!(said(find(at, 7070).unwrap_err()).contains("yet"));
        place.announce(7070).unwrap();
        assert_eq!(find(at, 7070).unwrap().socket, place.socket());
        assert!(said(Place::take(at, 7070).unwrap_err()).contains(&format!("process {}", std::process::id())));
        assert!(Place::take(at, 8080).is_ok());
        let mode = fs::metadata(state_file(&parent(at).unwrap(), 7070)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(place);
        assert!(said(find(at, 7070).unwrap_err()).contains("runs (its"));
    }

    #[test]
    fn a_state_file_that_nobody_holds_is_stale() {
        let runtime = tempfile::tempdir().unwrap();
        let at = Some(runtime.path());
        let path = state_file(&parent(at).unwrap(), 7070);
        fs::write(path, r#"{"pid":1,"base_port":7070,"socket":"/nowhere"}"#).unwrap();
        assert!(find(at, 7070).unwrap_err().to_string().contains("any more: it was killed"));
        assert!(Place::take(at, 7070).is_ok());
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_used() {
        let runtime = tempfile::tempdir().unwrap();
        DirBuilder::new().mode(0o777).create(runtime.path().join("larder")).unwrap();
        fs::set_permissions(runtime.path().join("larder"), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        assert!(matches!(Place::take(Some(runtime.path()), 7070), Err(PlaceError::Shared { .. })));
    }
}
