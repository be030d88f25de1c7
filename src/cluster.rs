//! Floor 2: who the members are, as some source lists them. A source is no authority: what it says is merged into the view
//! (`crate::ownership::view`), and the view decides.
//!
//! The trait is here; `file` implements it, and so does `crate::kubernetes`. Sources for replicas must give ordered versions.
//! Fixed lists and DNS have no order and are for clients.

pub mod discover;
pub mod family;
pub mod file;
pub mod hold_back;
pub mod members;

pub use discover::{Discover, LastHeard};
pub use family::Family;

/// Endpoints of a cluster at most, in any condition: with more, the ring has no entry for some, and a view would not fit a
/// message between replicas.
pub const MAX_ENDPOINTS: usize = 4096;
