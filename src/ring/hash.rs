//! The one hash of placement: XXH64 with seed 0, as Envoy's and gRPC's `ring_hash` use it (gRFC A42).
//!
//! Never std's `Hash`: what it feeds a hasher changed between Rust releases. How the route of a key is written is
//! [`crate::cache::route`]'s business.

use xxhash_rust::xxh64::xxh64;

/// Where a route lies on the ring.
#[must_use]
pub fn of_route(route: &[u8]) -> u64 {
    xxh64(route, 0)
}

/// Where the `index`-th entry of a member lies: the hash of `<address>_<index>`. `text` is scratch space.
pub(super) fn of_entry(address: &str, index: usize, text: &mut String) -> u64 {
    use std::fmt::Write as _;
    text.clear();
    text.push_str(address);
    // Writing to a `String` cannot fail.
    let _ = write!(text, "_{index}");
    xxh64(text.as_bytes(), 0)
}
