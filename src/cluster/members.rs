//! The file that lists the members, for `larder dev`, tests, and orchestrators other than Kubernetes:
//!
//! ```json
//! {"version": 7, "endpoints": [{"address": "10.0.0.1:7070", "peer": "10.0.0.1:7071", "uid": "a", "ready": true}]}
//! ```
//!
//! `ready`, `serving` and `terminating` mean what they mean in an EndpointSlice: left out, `ready` is true, `serving` is as
//! `ready`, and `terminating` is false. The version grows with each change, by whoever writes the file, to
//! another name in the same directory that is then renamed.
//!
//! Strict: an unknown field is an error, because a misspelt `terminating` would leave a pod on the ring.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::MAX_ENDPOINTS;
use crate::ownership::member::{Endpoint, Uid};
use crate::ownership::view::View;

/// Bytes of the file at most: 4,096 endpoints are about a fifth of it.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a uid at most: what a Kubernetes UID has, and room. `larder serve --uid` takes no longer one.
pub const MAX_UID_BYTES: usize = 128;

/// The name of the one slice that a file is.
const SLICE: &str = "file";

/// The file as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with `version` and `endpoints`")]
pub struct Members {
    /// From 1; greater than the one before whenever anything else changes.
    pub version: u64,
    pub endpoints: Vec<Member>,
}

/// One endpoint of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an endpoint: an object with `address`, `peer` and `uid`")]
pub struct Member {
    /// "ip:port" or "[ip]:port" of the data port: its place on the ring.
    pub address: String,
    /// As `address`, where replicas reach it.
    pub peer: String,
    /// What the replica was started with as `--uid`. Another start under the same uid is another boot of it.
    pub uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// Why a file does not list members.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    #[error("it is over {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error(
        "it is no JSON with `version` and `endpoints`: {0}; if it is written in place, write another and rename it"
    )]
    Json(#[from] serde_json::Error),
    #[error("its version is 0; versions begin with 1")]
    NoVersion,
    #[error("it has {0} endpoints; at most {MAX_ENDPOINTS} are allowed")]
    TooMany(usize),
    #[error("the endpoint with the address {address:?} has no usable uid: 1 to {MAX_UID_BYTES} bytes are allowed")]
    Uid { address: String },
    #[error("it has two endpoints with the uid {0:?}")]
    DuplicateUid(String),
    #[error("the `{field}` of {uid:?} is {text:?}, which is no ip:port that could be reached")]
    Address { uid: String, field: &'static str, text: String },
}

impl Members {
    /// Reads what a file says.
    ///
    /// # Errors
    /// When it is anything but a list of members that could be used.
    pub fn parse(content: &[u8]) -> Result<Self, MembersError> {
        if content.len() > MAX_FILE_BYTES {
            return Err(MembersError::TooLarge);
        }
        let members: Self = serde_json::from_slice(content)?;
        members.endpoints()?;
        Ok(members)
    }

    /// What it says, as a view.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn view(&self) -> Result<View, MembersError> {
        Ok(View::of_list(self.version, [(SLICE.into(), self.version, self.endpoints()?)]))
    }

    /// Puts it in the place of the file at `path`, whole: a reader sees the one or the other.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        file.persist(path)?;
        Ok(())
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, MembersError> {
        if self.version == 0 {
            return Err(MembersError::NoVersion);
        }
        if self.endpoints.len() > MAX_ENDPOINTS {
            return Err(MembersError::TooMany(self.endpoints.len()));
        }
        let mut endpoints = self.endpoints.iter().map(Member::endpoint).collect::<Result<Vec<_>, _>>()?;
        endpoints.sort_unstable();
        if let Some(pair) = endpoints.windows(2).find(|pair| pair[0].uid == pair[1].uid) {
            return Err(MembersError::DuplicateUid(pair[0].uid.to_string()));
        }
        Ok(endpoints)
    }
}

impl Member {
    fn endpoint(&self) -> Result<Endpoint, MembersError> {
        if self.uid.is_empty() || self.uid.len() > MAX_UID_BYTES {
            return Err(MembersError::Uid { address: self.address.clone() });
        }
        let ready = self.ready.unwrap_or(true);
        Ok(Endpoint {
            uid: Uid::new(&self.uid),
            address: self.socket_address("address", &self.address)?.into(),
            peer: self.socket_address("peer", &self.peer)?.into(),
            serves: self.serving.unwrap_or(ready) && !self.terminating.unwrap_or(false),
        })
    }

    /// In its one form, as it is hashed: all replicas must place a member alike.
    fn socket_address(&self, field: &'static str, text: &str) -> Result<String, MembersError> {
        let usable = |address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified();
        let address = text.parse().ok().filter(usable);
        let wrong = || MembersError::Address { uid: self.uid.clone(), field, text: text.to_owned() };
        address.map(|address| address.to_string()).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests;
