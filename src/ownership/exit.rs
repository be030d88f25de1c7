//! Leaving in good order (rules 11 to 13).

use super::copies::Copies;
use super::mistake::Mistake;
use super::view::View;
use super::{Life, Output, Replica};
use crate::cache::version::Now;

/// How far leaving is.
#[derive(Debug, Default)]
pub(super) struct Exit {
    since_ms: Option<u64>,
    left: bool,
}

impl Exit {
    pub(super) fn is_leaving(&self) -> bool {
        self.since_ms.is_some()
    }

    pub(super) fn has_left(&self) -> bool {
        self.left
    }
}

impl<S: Copies> Replica<S> {
    /// Rule 11: SIGTERM. This replica goes on answering, but owns nothing any more as soon as others know.
    pub fn leave(&mut self, now: Now) {
        if self.exit.since_ms.is_none() && !self.is_over() {
            self.exit.since_ms = Some(now.monotonic_ms);
            self.say(&View::of_leaving(&self.me), now);
            self.kick(now);
        }
    }

    /// Rules 12 and 13: says that it left when it has nothing to hand over, and ends when everybody knows.
    pub(super) fn leave_on(&mut self, now: Now) {
        let Some(since_ms) = self.exit.since_ms.filter(|_| !self.is_over()) else { return };
        let waiting = self.open.as_ref().is_some_and(|open| !open.waiting.is_empty());
        if waiting || !self.requests.is_empty() {
            return;
        }
        let all_leave = self.snapshot.present().all(|member| self.snapshot.view().is_leaving(&member.id));
        let empty = self.store.is_empty() || self.mistakes.make(Mistake::ExitWithCopies);
        if !self.exit.left {
            // Others may send requests by an older view for a while.
            if !(empty || all_leave) || now.monotonic_ms < since_ms + self.config.linger_ms {
                return;
            }
            // When all who are still here leave, nobody will pull. Should somebody start after all, then what I hold is
            // lost, and older copies elsewhere must not come to light (rule 15): so I do not say that I left in good order.
            if empty && !self.mistakes.make(Mistake::ExitUnannounced) {
                self.exit.left = true;
                self.say(&View::of_left(&self.me), now);
                return;
            }
        }
        self.life = Life::Over;
        self.outputs.push(Output::Exit { dropped: self.store.len() });
    }
}
