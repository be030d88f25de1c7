//! Bytes held for clients: of requests that have not come whole, and of answers that are not taken. Calls in progress are
//! bounded, but a few thousand of them with the largest message each are more memory than there is; so what they hold
//! together is bounded too, and a call for which there is no room is told to come again.
//!
//! Small messages are not counted ([`FREE_BYTES`]): the bound on calls is enough for them, and they pay nothing here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::rpc::failure::Failure;

/// Bytes that one call may hold without being counted.
pub const FREE_BYTES: usize = 64 * 1024;

/// How long a caller for whom there was no room should stay away: about what others take to read their answers.
const RETRY: Duration = Duration::from_millis(100);

/// What all calls hold together.
#[derive(Debug)]
pub struct Held {
    bytes: AtomicU64,
    limit: u64,
}

/// What one call holds of it; given back when dropped.
#[derive(Debug)]
pub struct Share {
    held: Arc<Held>,
    bytes: u64,
}

impl Held {
    /// Holds nothing, and at most `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), limit })
    }

    /// Bytes that are held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A share of nothing.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Share {
        Share { held: Arc::clone(self), bytes: 0 }
    }
}

impl Share {
    /// Makes it so large; up to [`FREE_BYTES`] count as none.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] when it would grow past the limit; then it stays as it is.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Failure> {
        let asked = if bytes > FREE_BYTES { bytes as u64 } else { 0 };
        let held = &self.held;
        if asked == self.bytes {
            return Ok(());
        }
        if asked > self.bytes {
            let more = asked - self.bytes;
            let fits = |all: u64| all.checked_add(more).filter(|all| *all <= held.limit);
            if held.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
                return Err(Failure::Overloaded { retry_after: RETRY });
            }
        } else {
            held.bytes.fetch_sub(self.bytes - asked, Ordering::Relaxed);
        }
        self.bytes = asked;
        Ok(())
    }

    /// Gives back all of it.
    pub fn clear(&mut self) {
        // A share that shrinks always may.
        let _ = self.resize(0);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_to_the_limit_and_give_back_what_they_had() {
        const MIB: usize = 1024 * 1024;
        let held = Held::new(10 * MIB as u64);
        let (mut one, mut two) = (held.share(), held.share());
        assert_eq!(one.resize(7 * MIB), Ok(()));
        assert!(matches!(two.resize(4 * MIB), Err(Failure::Overloaded { .. })));
        assert_eq!((two.resize(3 * MIB), held.bytes()), (Ok(()), 10 << 20));
        assert!(one.resize(8 * MIB).is_err());
        assert_eq!((one.resize(5 * MIB), held.bytes()), (Ok(()), 8 << 20));
        drop(one);
        assert_eq!(held.bytes(), 3 << 20);
        assert_eq!((two.resize(FREE_BYTES), held.bytes()), (Ok(()), 0));
        drop(two);
        assert_eq!(held.bytes(), 0);
    }
}
