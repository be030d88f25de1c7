//! The file of members, written by the supervisor alone: each content under a version of its own.

use std::io;
use std::path::PathBuf;

use crate::cluster::members::{Member, Members};

/// The file and what it says.
#[derive(Debug)]
pub struct MembersFile {
    path: PathBuf,
    /// The last that was written, or that may have been.
    version: u64,
    written: Option<Vec<Member>>,
}

impl MembersFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, version: 0, written: None }
    }

    /// Writes what is not written yet. After a failure the version may have been seen or not, so the next is greater.
    pub fn write(&mut self, endpoints: Vec<Member>) -> io::Result<()> {
        if self.written.as_ref() == Some(&endpoints) {
            return Ok(());
        }
        self.version += 1;
        self.written = None;
        let members = Members { version: self.version, endpoints };
        members.write(&self.path)?;
        self.written = Some(members.endpoints);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_content_has_a_version_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("members.json");
        let mut file = MembersFile::new(path.clone());
        let member = |serving| Member {
            address: "127.0.0.1:1".into(),
            peer: "127.0.0.1:2".into(),
            uid: "a".into(),
            serving: Some(serving),
            ..Member::default()
        };
        let mut versions = Vec::new();
        for serving in [false, true, true, false] {
            file.write(vec![member(serving)]).unwrap();
            let said = Members::parse(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(said.endpoints, [member(serving)]);
            versions.push(said.version);
        }
        assert_eq!(versions, [1, 2, 2, 3]);
    }
}
