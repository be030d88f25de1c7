//! Expiry: entries that go because of time.

use super::{Garbage, Shard};
use crate::cache::store::expiry::Due;
use crate::cache::version::Now;

/// What a bounded reclaim did.
pub(in crate::cache::store) struct Reclaimed {
    pub entries: usize,
    /// Bytes that came free.
    pub bytes: u64,
    /// Whether it stopped at its bound and there may be more.
    pub more: bool,
}

impl Shard {
    /// Reclaims entries whose time is over, in at most `steps` steps.
    pub(in crate::cache::store) fn expire(&mut self, now: Now, steps: usize, garbage: &mut Garbage) -> Reclaimed {
        let mut done = Reclaimed { entries: 0, bytes: 0, more: true };
        for _ in 0..steps {
            match self.wheel.next(&mut self.slab, now.monotonic_ms) {
                Due::Entry(at) => {
                    let hashes = self.hashes(at);
                    done.bytes = done.bytes.wrapping_add(self.vanish(at, hashes, now, garbage));
                    done.entries += 1;
                    self.counts.expired += 1;
                }
                Due::Sorted => {}
                Due::Nothing => {
                    done.more = false;
                    break;
                }
            }
        }
        done
    }
}
