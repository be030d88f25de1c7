//! Entries as files. A key comes from whoever may store, so it decides nothing but a place below one directory.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// A directory that takes entries as files.
#[derive(Debug)]
pub struct Directory {
    /// Canonical.
    root: PathBuf,
    /// The last directory that was made and found to be inside: most entries have neighbours.
    last: PathBuf,
}

/// Why an entry was not written.
#[derive(Debug)]
pub enum Refusal {
    /// This one; others may be.
    Entry(String),
    /// Nothing more can be written.
    All(io::Error),
}

impl Directory {
    /// Makes it, if it is not there.
    pub fn create(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let root = path.canonicalize()?;
        Ok(Self { last: root.clone(), root })
    }

    /// Writes an entry; an older file of the name is replaced.
    pub fn write(&mut self, key: &str, value: &[u8]) -> Result<(), Refusal> {
        let path = self.root.join(relative(key).map_err(|why| Refusal::Entry(why.to_owned()))?);
        let parent = path.parent().unwrap_or(&self.root);
        if self.last != parent {
            self.make(parent)?;
            self.last = parent.to_owned();
        }
        // A link that stands there might lead out; its place is taken, not its target.
        if fs::symlink_metadata(&path).is_ok_and(|there| there.is_symlink()) {
            fs::remove_file(&path).map_err(refusal)?;
        }
        fs::write(&path, value).map_err(refusal)
    }

    fn make(&self, parent: &Path) -> Result<(), Refusal> {
        fs::create_dir_all(parent).map_err(refusal)?;
        if parent.canonicalize().map_err(refusal)?.starts_with(&self.root) {
            Ok(())
        } else {
            Err(Refusal::Entry("a symbolic link in its way leads out of the directory".to_owned()))
        }
    }
}

/// The key as a path that stays below the directory it is joined to.
fn relative(key: &str) -> Result<&Path, &'static str> {
    if key.contains('\0') {
        return Err("the key holds a NUL, which no path may");
    }
    if key.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err("the key is no path below the directory: a part of it is empty, `.` or `..`; dump it as NDJSON");
    }
    let path = Path::new(key);
    // What other systems take for a root or a drive.
    if path.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(path)
    } else {
        Err("the key is no path below the directory; dump it as NDJSON")
    }
}

fn refusal(error: io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => Refusal::Entry(
            "a part of the key is itself a key, so it would be both file and directory; dump it as NDJSON".to_owned(),
        ),
        ErrorKind::IsADirectory => Refusal::Entry(
            "other keys begin with it and a `/`, so it would be both file and directory; dump it as NDJSON".to_owned(),
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => Refusal::All(error),
        _ => Refusal::Entry(format!("cannot be written: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn why(written: Result<(), Refusal>) -> String {
        match written {
            Err(Refusal::Entry(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_stays_below_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let mut directory = Directory::create(&root.path().join("to")).unwrap();
        for bad in ["../x", "a/../../x", "/etc/x", "a//b", "a/", "/", ".", "..", "a/./b", "a\0b"] {
            why(directory.write(bad, b"x"));
        }
        directory.write("a/..b/ä", b"x").unwrap();
        assert_eq!(fs::read(root.path().join("to/a/..b/ä")).unwrap(), b"x");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_is_both_file_and_directory_is_reported() {
        let root = tempfile::tempdir().unwrap();
        let mut directory = Directory::create(root.path()).unwrap();
        directory.write("a", b"1").unwrap();
        assert!(why(directory.write("a/b", b"2")).contains("both file and directory"));
        directory.write("c/d", b"3").unwrap();
        assert!(why(directory.write("c", b"4")).contains("both file and directory"));
        directory.write("e", b"5").unwrap();
    }

    #[test]
    fn a_link_in_the_way_does_not_lead_out() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("file"), "theirs").unwrap();
        symlink(outside.path(), root.path().join("dir")).unwrap();
        symlink(outside.path().join("file"), root.path().join("file")).unwrap();
        let mut directory = Directory::create(root.path()).unwrap();
        assert!(why(directory.write("dir/x", b"x")).contains("leads out"));
        directory.write("file", b"ours").unwrap();
        assert_eq!(fs::read(root.path().join("file")).unwrap(), b"ours");
        assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_entry_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let mut directory = Directory::create(root.path()).unwrap();
        directory.write("k", b"longer").unwrap();
        directory.write("k", b"new").unwrap();
        assert_eq!(fs::read(root.path().join("k")).unwrap(), b"new");
    }
}
