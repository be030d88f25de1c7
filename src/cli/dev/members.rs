//! The file of members, written by the supervisor alone: each content under a version of its own, to a temporary name and
//! then renamed, so that who reads it reads one content whole.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::fleet::Endpoint;

/// The file and what it says.
#[derive(Debug)]
pub struct MembersFile {
    path: PathBuf,
    /// The last that was written, or that may have been.
    version: u64,
    written: Option<Vec<Endpoint>>,
}

#[derive(Serialize)]
struct Content<'a> {
    version: u64,
    endpoints: &'a [Endpoint],
}

impl MembersFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, version: 0, written: None }
    }

    /// Writes what is not written yet. After a failure the version may have been seen or not, so the next is greater.
    pub fn write(&mut self, endpoints: Vec<Endpoint>) -> io::Result<()> {
        if self.written.as_ref() == Some(&endpoints) {
            return Ok(());
        }
        self.version += 1;
        self.written = None;
        let mut text = serde_json::to_vec_pretty(&Content { version: self.version, endpoints: &endpoints })?;
        text.push(b'\n');
        let temporary = self.path.with_extension("tmp");
        fs::write(&temporary, text)?;
        fs::rename(&temporary, &self.path)?;
        self.written = Some(endpoints);
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
        let endpoint = |serving| Endpoint {
            address: "127.0.0.1:1".into(),
            peer: "127.0.0.1:2".into(),
            uid: "a".into(),
            ready: serving,
            serving,
            terminating: false,
        };
        let mut versions = Vec::new();
        for serving in [false, true, true, false] {
            file.write(vec![endpoint(serving)]).unwrap();
            let said: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(said["endpoints"][0]["serving"], serving);
            versions.push(said["version"].as_u64().unwrap());
        }
        assert_eq!(versions, [1, 2, 2, 3]);
    }
}
