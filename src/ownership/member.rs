//! Who is who: a process in a pod at an address.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// What identifies a pod (its UID in Kubernetes). Does not return once it is gone. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

/// Which process in a pod: grows with every start. 0 stands for a process that nobody has heard from.
pub type Boot = u64;

/// One process: a pod, and which start of it. A message for another is refused (rule 18).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    pub uid: Uid,
    pub boot: Boot,
}

/// A pod as the source lists it, in any condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub uid: Uid,
    /// "ip:port" or "[ip]:port" of the data port: its place on the ring.
    pub address: Arc<str>,
    /// As `address`, where replicas reach it.
    pub peer: Arc<str>,
    /// Serving and not terminating.
    pub serves: bool,
}

impl Uid {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Uid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl MemberId {
    #[must_use]
    pub fn new(uid: &str, boot: Boot) -> Self {
        Self { uid: Uid::new(uid), boot }
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.uid, self.boot)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
