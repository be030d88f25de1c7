//! Members from the EndpointSlices of one headless Service: the only module that names kube.
//!
//! `slices` says, purely, what a slice means; `watch` lists and watches them. The API server's word is merged into the view
//! as any source's is: that it is away changes nothing among the replicas.

mod backoff;
#[cfg(test)]
mod recording;
pub mod slices;
pub mod watch;

pub use slices::{PortNames, Selection};
pub use watch::{ClientError, Slices};
