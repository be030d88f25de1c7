//! What was done to one key, and whether it could have been done one after the other.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// A register or a counter. Every write has a number, its version or the sum that it made, and these are the order: so it is enough
/// that nothing is read that was not written, no number is used twice, and what began after something had ended is not before it.
pub struct History {
    pub name: String,
    pub is_counter: bool,
    steps: Mutex<Vec<Step>>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    began: u64,
    ended: u64,
    number: u64,
    is_write: bool,
}

/// Moments, in the order in which all threads see them.
static MOMENTS: AtomicU64 = AtomicU64::new(0);

pub fn moment() -> u64 {
    MOMENTS.fetch_add(1, Ordering::SeqCst)
}

impl History {
    pub fn of(registers: u64, counters: u64) -> Vec<Self> {
        let history = |name, is_counter| Self { name, is_counter, steps: Mutex::default() };
        let registers = (0..registers).map(|number| history(format!("register-{number}"), false));
        let counters = (0..counters).map(|number| history(format!("counter-{number}"), true));
        registers.chain(counters).collect()
    }

    /// `number`: what was written, or read; 0: nothing was there.
    pub fn add(&self, began: u64, number: u64, is_write: bool) {
        self.steps.lock().push(Step { began, ended: moment(), number, is_write });
    }

    pub fn is_used(&self) -> bool {
        self.steps.lock().iter().any(|step| step.is_write)
    }

    pub fn check(&self) {
        let mut steps = self.steps.lock().clone();
        let name = &self.name;
        let mut written = BTreeSet::from([0]);
        for step in steps.iter().filter(|step| step.is_write) {
            assert!(written.insert(step.number), "{name}: two writes made {}", step.number);
        }
        if self.is_counter {
            assert_eq!(written.last(), Some(&(written.len() as u64 - 1)), "{name}: a sum is missing");
        }
        // By their beginnings, and with what had ended before each.
        steps.sort_unstable_by_key(|step| step.began);
        let mut ends = steps.clone();
        ends.sort_unstable_by_key(|step| step.ended);
        let (mut ends, mut last) = (ends.into_iter().peekable(), 0);
        for step in steps {
            while let Some(before) = ends.next_if(|before| before.ended < step.began) {
                last = last.max(before.number);
            }
            assert!(written.contains(&step.number), "{name}: {step:?} was never written");
            let in_order = if step.is_write { step.number > last } else { step.number >= last };
            assert!(in_order, "{name}: {step:?} began after {last} had ended");
        }
    }
}
