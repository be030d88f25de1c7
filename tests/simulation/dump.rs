//! A dump over the whole cluster while keys move: page by page at whoever is the authority of the next hash, by the view of some
//! replica, and resumed at another one.

use std::collections::BTreeMap;

use larder::cache::cursor::Cursor;

use crate::store;
use crate::world::{Event, MS, Pod, World};

/// Bytes of one page: one or two entries.
const PAGE_BYTES: usize = 30;

/// A dump under way.
#[derive(Debug, Default)]
pub struct Dump {
    began: u64,
    after: Option<Cursor>,
    /// How often each key was met.
    met: BTreeMap<usize, u32>,
}

impl World {
    /// The next page, if its place is settled with somebody who can be asked.
    pub fn dump_on(&mut self) {
        let delay =
            if self.random.one_in(10) { self.random.between(MS, 500 * MS) } else { self.random.between(MS, 60 * MS) };
        self.after(delay, Event::Dump);
        let is_ready = |pod: &Pod| pod.process.as_ref().is_some_and(|process| process.replica.is_ready());
        let ready: Vec<usize> = (0..self.pods.len()).filter(|pod| is_ready(&self.pods[*pod])).collect();
        let Some(asked) = self.random.pick(&ready).filter(|pod| !self.is_paused(*pod)) else { return };
        let hash = self.dump.after.as_ref().map_or(0, first_hash);
        let view = self.pods[asked].process.as_ref().map(|process| process.replica.snapshot());
        let Some(owner) = view.and_then(|view| view.owner(hash).cloned()) else { return };
        let Some(owner) = self.pod_of(&owner.uid).filter(|pod| !self.is_paused(*pod)) else { return };
        let now = self.time(owner);
        let Some(process) = &self.pods[owner].process else { return };
        let space = process.store.tenant(&store::space());
        let Ok(page) = process.store.page(&space, "", self.dump.after.as_ref(), PAGE_BYTES, now) else { return };
        if self.random.one_in(8) {
            // The answer is lost: the same place is asked again, perhaps of another.
            return;
        }
        for item in &page.items {
            if let Some(number) = store::number_of(&item.key) {
                *self.dump.met.entry(number).or_default() += 1;
            }
        }
        self.dump.after = page.next;
        if page.end {
            self.dump_ended();
        }
    }

    /// Each key that was there all the while was met once; no other was met twice.
    fn dump_ended(&mut self) {
        let dump = std::mem::replace(&mut self.dump, Dump { began: self.now, ..Dump::default() });
        self.figures.dumps += 1;
        if self.rough {
            return;
        }
        for number in 0..self.keys.len() {
            let met = dump.met.get(&number).copied().unwrap_or_default();
            let top = self.tops[number];
            let is_there = top.live && !self.evicted.contains(&(number, top.version));
            let stayed = is_there && self.there_since[number].is_some_and(|since| since < dump.began);
            if met > 1 || (met == 0 && stayed) {
                self.fail(format!("a dump met key {number} {met} times (there all the while: {stayed})"));
            }
        }
    }
}

/// As the cursor's encoding has it.
fn first_hash(cursor: &Cursor) -> u64 {
    let bytes = cursor.to_bytes();
    u64::from_be_bytes(bytes[1..9].try_into().expect("a cursor has a hash"))
}
