//! Floor 0: the store and its values. Pure: no async, no clock, no environment; `now` is passed in.

pub mod cursor;
pub mod key;
pub mod limits;
pub mod quota;
pub mod route;
pub mod store;
pub mod version;
