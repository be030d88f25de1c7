//! Who owns a key while replicas come and go.

pub mod member;
pub mod view;
