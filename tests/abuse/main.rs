//! What clients do that they should not: each is closed by a limit or a deadline, and the others are unharmed.

mod connections;
mod harness;
