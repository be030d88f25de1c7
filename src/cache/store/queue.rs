//! A doubly linked list through the entries themselves, and how many bytes are in it.

use super::entry::{Chain, Links};
use super::slab::{ChunkRef, Moved, Slab};

/// New entries come in at the front; eviction looks at the tail.
pub(super) struct List {
    front: ChunkRef,
    tail: ChunkRef,
    entries: usize,
    bytes: u64,
}

impl List {
    pub(super) fn new() -> Self {
        Self { front: ChunkRef::NIL, tail: ChunkRef::NIL, entries: 0, bytes: 0 }
    }

    pub(super) fn tail(&self) -> Option<ChunkRef> {
        (!self.tail.is_nil()).then_some(self.tail)
    }

    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// The charge of all its entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn push_front(&mut self, slab: &mut Slab, at: ChunkRef, bytes: u64) {
        Links { prev: ChunkRef::NIL, next: self.front }.write(slab, at, Chain::Queue);
        if self.front.is_nil() {
            self.tail = at;
        } else {
            let links = Links::read(slab, self.front, Chain::Queue);
            Links { prev: at, ..links }.write(slab, self.front, Chain::Queue);
        }
        self.front = at;
        self.entries += 1;
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, slab: &mut Slab, at: ChunkRef, bytes: u64) {
        let links = Links::read(slab, at, Chain::Queue);
        self.set_next_of(slab, links.prev, links.next);
        self.set_prev_of(slab, links.next, links.prev);
        self.entries -= 1;
        self.bytes -= bytes;
    }

    /// An entry of this list grew or shrank where it is.
    pub(super) fn resize(&mut self, before: u64, after: u64) {
        self.bytes = self.bytes - before + after;
    }

    /// An entry of this list lies elsewhere now.
    pub(super) fn moved(&mut self, slab: &mut Slab, moved: Moved) {
        let links = Links::read(slab, moved.to, Chain::Queue);
        self.set_next_of(slab, links.prev, moved.to);
        self.set_prev_of(slab, links.next, moved.to);
    }

    fn set_next_of(&mut self, slab: &mut Slab, at: ChunkRef, next: ChunkRef) {
        if at.is_nil() {
            self.front = next;
        } else {
            let links = Links::read(slab, at, Chain::Queue);
            Links { next, ..links }.write(slab, at, Chain::Queue);
        }
    }

    fn set_prev_of(&mut self, slab: &mut Slab, at: ChunkRef, prev: ChunkRef) {
        if at.is_nil() {
            self.tail = prev;
        } else {
            let links = Links::read(slab, at, Chain::Queue);
            Links { prev, ..links }.write(slab, at, Chain::Queue);
        }
    }
}
