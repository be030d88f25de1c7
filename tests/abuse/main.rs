//! The wire on real sockets: what clients do that they should not, each closed by a limit or a deadline while the others
//! are unharmed; and what must go on while connections end and certificates change.
#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails, in its helpers too")]

mod coalescing;
mod connections;
mod ends;
mod harness;
mod streams;
mod tls;
