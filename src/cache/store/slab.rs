//! Where a shard keeps its entries: chunks of equal size side by side, with no holes.
//!
//! Chunks belong to size classes. A class is one gapless array of equal chunks, cut into small pages (a chunk may lie across
//! pages, so none has a wasted tail). Freeing a chunk moves the class's last chunk into its place, and pages that empty go back at
//! once: so memory follows what is stored whatever the history of sizes, which is the weakness of classic slab allocators
//! ("slab calcification"). The price is that a chunk may move when another is freed; [`Slab::free`] says which.
//!
//! Not here: what is inside a chunk.

/// Bytes of a page. Small, because each class of each shard has one that is partly filled.
const PAGE_BYTES: usize = 4096;

/// Empty pages that a shard keeps, so that a class that goes back and forth over a page's edge does not allocate each time.
const MAX_SPARE_PAGES: usize = 4;

/// Bits of a [`ChunkRef`] that are the index inside its class.
const INDEX_BITS: u32 = 24;

/// Chunks of one class. A class that is full hands over to the next larger one.
const MAX_CHUNKS: u32 = 1 << INDEX_BITS;

/// Spacing of the classes: (sizes up to, multiples of), in bytes. What rounding wastes is 4 bytes on average for small
/// chunks and about 1 % for large ones.
const SPACING: [(usize, usize); 4] = [(1024, 8), (2048, 16), (4096, 64), (MAX_CHUNK_BYTES, 256)];

/// Bytes of the smallest chunk.
const MIN_CHUNK_BYTES: usize = 24;

/// Bytes of the largest chunk: a key of 4,096 bytes with its header.
pub(super) const MAX_CHUNK_BYTES: usize = 4352;

/// Sizes of all classes in bytes, ascending.
const SIZES: [u16; CLASSES] = sizes();

const CLASSES: usize = (1024 - MIN_CHUNK_BYTES) / 8 + 1 + 1024 / 16 + 2048 / 64 + 1;

/// Names a chunk: its class and its index there. Valid until another chunk is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkRef(u32);

/// All chunks of a shard.
pub(super) struct Slab {
    classes: Box<[Class]>,
    spare: Vec<Page>,
}

type Page = Box<[u8; PAGE_BYTES]>;

#[derive(Default)]
struct Class {
    pages: Vec<Page>,
    chunks: u32,
}

/// One chunk, found: reading from it takes no further look-up of its class.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    pages: &'a [Page],
    start: usize,
}

/// That freeing a chunk moved another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub from: ChunkRef,
    pub to: ChunkRef,
}

impl ChunkRef {
    /// Names no chunk.
    pub(super) const NIL: Self = Self(u32::MAX);

    pub(super) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    pub(super) fn raw(self) -> u32 {
        self.0
    }

    pub(super) fn is_nil(self) -> bool {
        self == Self::NIL
    }

    fn new(class: usize, index: u32) -> Self {
        debug_assert!(class < CLASSES && index < MAX_CHUNKS);
        #[expect(clippy::cast_possible_truncation, reason = "there are less than 255 classes")]
        Self((class as u32) << INDEX_BITS | index)
    }

    fn class(self) -> usize {
        (self.0 >> INDEX_BITS) as usize
    }

    fn index(self) -> u32 {
        self.0 & (MAX_CHUNKS - 1)
    }

    fn size(self) -> usize {
        usize::from(SIZES[self.class()])
    }

    fn start(self) -> usize {
        self.index() as usize * self.size()
    }
}

impl Slab {
    pub(super) fn new() -> Self {
        Self { classes: (0..CLASSES).map(|_| Class::default()).collect(), spare: Vec::new() }
    }

    /// Bytes of the chunk that `size` bytes would get.
    pub(super) fn chunk_bytes(size: usize) -> usize {
        usize::from(SIZES[class_of(size)])
    }

    /// Bytes of a chunk.
    pub(super) fn size(at: ChunkRef) -> usize {
        at.size()
    }

    /// A new chunk of at least `size` bytes; what is in it is undefined. `None` when 2^24 chunks fill each class that fits.
    pub(super) fn alloc(&mut self, size: usize) -> Option<ChunkRef> {
        let class = (class_of(size)..CLASSES).find(|&class| self.classes[class].chunks < MAX_CHUNKS)?;
        let chunks = &mut self.classes[class];
        let at = ChunkRef::new(class, chunks.chunks);
        chunks.chunks += 1;
        let end = at.start() + at.size();
        while chunks.pages.len() * PAGE_BYTES < end {
            if chunks.pages.len() == chunks.pages.capacity() {
                // Not twice: there are thousands of these lists, and what they reserve is overhead.
                chunks.pages.reserve_exact(chunks.pages.len() / 8 + 1);
            }
            chunks.pages.push(self.spare.pop().unwrap_or_else(|| Box::new([0; PAGE_BYTES])));
        }
        Some(at)
    }

    /// Frees a chunk; the last one of its class takes its place.
    pub(super) fn free(&mut self, at: ChunkRef) -> Option<Moved> {
        let class = &mut self.classes[at.class()];
        class.chunks -= 1;
        let last = ChunkRef::new(at.class(), class.chunks);
        if last != at {
            copy_within(&mut class.pages, last.start(), at.start(), at.size());
        }
        let needed = last.start().div_ceil(PAGE_BYTES);
        for page in class.pages.drain(needed..) {
            if self.spare.len() < MAX_SPARE_PAGES {
                self.spare.push(page);
            }
        }
        if class.pages.capacity() > 2 * needed + 16 {
            class.pages.shrink_to(needed + needed / 8);
        }
        (last != at).then_some(Moved { from: last, to: at })
    }

    /// The chunks that move when these are freed one after the other, about: some of these may be among them.
    pub(super) fn movers(&self, freed: impl Iterator<Item = ChunkRef>) -> impl Iterator<Item = ChunkRef> {
        let mut counts = [0_u32; CLASSES];
        freed.filter_map(move |at| {
            counts[at.class()] += 1;
            let index = self.classes[at.class()].chunks.checked_sub(counts[at.class()])?;
            Some(ChunkRef::new(at.class(), index))
        })
    }

    pub(super) fn chunk(&self, at: ChunkRef) -> Chunk<'_> {
        Chunk { pages: &self.classes[at.class()].pages, start: at.start() }
    }

    pub(super) fn word(&self, at: ChunkRef, word: usize) -> u64 {
        self.chunk(at).word(word)
    }

    pub(super) fn set_word(&mut self, at: ChunkRef, word: usize, value: u64) {
        let start = at.start() + word * 8;
        let page = &mut self.classes[at.class()].pages[start / PAGE_BYTES];
        page[start % PAGE_BYTES..][..8].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes `bytes` at `offset` in the chunk.
    pub(super) fn write(&mut self, at: ChunkRef, offset: usize, mut bytes: &[u8]) {
        let mut start = at.start() + offset;
        let pages = &mut self.classes[at.class()].pages;
        while !bytes.is_empty() {
            let within = start % PAGE_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(PAGE_BYTES - within));
            pages[start / PAGE_BYTES][within..within + now.len()].copy_from_slice(now);
            start += now.len();
            bytes = later;
        }
    }

    /// Bytes of all pages, for tests of what is given back.
    #[cfg(test)]
    pub(super) fn page_bytes(&self) -> usize {
        (self.classes.iter().map(|class| class.pages.len()).sum::<usize>() + self.spare.len()) * PAGE_BYTES
    }
}

impl<'a> Chunk<'a> {
    /// The `word`-th 8 bytes. Chunks begin at multiples of 8, so a word never lies across pages.
    pub(super) fn word(self, word: usize) -> u64 {
        let start = self.start + word * 8;
        let bytes = self.pages[start / PAGE_BYTES][start % PAGE_BYTES..].first_chunk::<8>();
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// `length` bytes from `offset`, in the pieces they lie in.
    pub(super) fn pieces(self, offset: usize, length: usize) -> impl Iterator<Item = &'a [u8]> {
        let mut start = self.start + offset;
        let end = start + length;
        std::iter::from_fn(move || {
            if start == end {
                return None;
            }
            let within = start % PAGE_BYTES;
            let piece = &self.pages[start / PAGE_BYTES][within..PAGE_BYTES.min(within + end - start)];
            start += piece.len();
            Some(piece)
        })
    }

    /// `length` bytes from `offset`, if they lie in one page.
    pub(super) fn slice(self, offset: usize, length: usize) -> Option<&'a [u8]> {
        let start = self.start + offset;
        let within = start % PAGE_BYTES;
        if length == 0 {
            return Some(&[]);
        }
        self.pages[start / PAGE_BYTES].get(within..within + length)
    }

    /// Whether the bytes from `offset` are `bytes`.
    pub(super) fn equals(self, offset: usize, bytes: &[u8]) -> bool {
        if let Some(slice) = self.slice(offset, bytes.len()) {
            return slice == bytes;
        }
        let mut rest = bytes;
        self.pieces(offset, bytes.len()).all(|piece| {
            let (now, later) = rest.split_at(piece.len());
            rest = later;
            piece == now
        })
    }

    /// Calls `f` with `length` bytes from `offset`, copied only if they lie across pages.
    pub(super) fn with<R>(self, offset: usize, length: usize, f: impl FnOnce(&[u8]) -> R) -> R {
        if let Some(slice) = self.slice(offset, length) {
            return f(slice);
        }
        let mut copy = [0; MAX_CHUNK_BYTES];
        let mut filled = 0;
        for piece in self.pieces(offset, length) {
            copy[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        f(&copy[..length])
    }

    /// Appends `length` bytes from `offset` to `target`.
    pub(super) fn append_to(self, offset: usize, length: usize, target: &mut Vec<u8>) {
        for piece in self.pieces(offset, length) {
            target.extend_from_slice(piece);
        }
    }
}

/// Moves `length` bytes, in pieces that are inside one page on both sides. The ranges never overlap.
fn copy_within(pages: &mut [Page], mut from: usize, mut to: usize, mut length: usize) {
    while length > 0 {
        let piece = length.min(PAGE_BYTES - from % PAGE_BYTES).min(PAGE_BYTES - to % PAGE_BYTES);
        let (source, target) = (from / PAGE_BYTES, to / PAGE_BYTES);
        if source == target {
            let start = from % PAGE_BYTES;
            pages[source].copy_within(start..start + piece, to % PAGE_BYTES);
        } else {
            // The last chunk moves down: `target` is the lower page.
            let (low, high) = pages.split_at_mut(source);
            low[target][to % PAGE_BYTES..][..piece].copy_from_slice(&high[0][from % PAGE_BYTES..][..piece]);
        }
        from += piece;
        to += piece;
        length -= piece;
    }
}

/// The smallest class whose chunks hold `size` bytes.
fn class_of(size: usize) -> usize {
    debug_assert!(size <= MAX_CHUNK_BYTES);
    match size.max(MIN_CHUNK_BYTES) {
        size @ ..=1024 => (size - MIN_CHUNK_BYTES).div_ceil(8),
        size @ ..=2048 => 125 + (size - 1024).div_ceil(16),
        size @ ..=4096 => 189 + (size - 2048).div_ceil(64),
        _ => 222,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "no size is over 4,352")]
const fn sizes() -> [u16; CLASSES] {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    let mut size = MIN_CHUNK_BYTES;
    let mut row = 0;
    while class < CLASSES {
        sizes[class] = size as u16;
        class += 1;
        if size >= SPACING[row].0 {
            row += 1;
        }
        if row < SPACING.len() {
            size += SPACING[row].1;
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_gets_the_smallest_class_that_holds_it() {
        for size in 0..=MAX_CHUNK_BYTES {
            let class = class_of(size);
            assert!(usize::from(SIZES[class]) >= size, "{size}");
            assert!(class == 0 || usize::from(SIZES[class - 1]) < size, "{size}");
        }
        assert!(SIZES.iter().all(|size| size % 8 == 0));
        assert_eq!(usize::from(SIZES[CLASSES - 1]), MAX_CHUNK_BYTES);
    }

    #[test]
    fn what_was_written_is_read_also_across_pages_and_after_moves() {
        let mut slab = Slab::new();
        let mut live: Vec<(ChunkRef, Vec<u8>)> = Vec::new();
        for round in 0..2000_usize {
            let size = 100 + round * 7 % 900;
            let content: Vec<u8> = (0..size).map(|i| u8::try_from((i + round) % 251).unwrap()).collect();
            let at = slab.alloc(size).unwrap();
            slab.write(at, 0, &content);
            live.push((at, content));
            if round % 3 == 0 {
                let (freed, _) = live.swap_remove(round * 31 % live.len());
                if let Some(moved) = slab.free(freed) {
                    live.iter_mut().find(|(at, _)| *at == moved.from).unwrap().0 = moved.to;
                }
            }
        }
        for (at, content) in &live {
            assert!(slab.chunk(*at).equals(0, content));
            assert_eq!(slab.chunk(*at).with(3, content.len() - 3, <[u8]>::to_vec), content[3..]);
        }
    }

    #[test]
    fn freed_memory_goes_back_at_once() {
        let mut slab = Slab::new();
        let chunks: Vec<_> = (0..10_000).map(|i| slab.alloc(64 + i % 1000).unwrap()).collect();
        let full = slab.page_bytes();
        for class in 0..CLASSES {
            for _ in 0..slab.classes[class].chunks {
                slab.free(ChunkRef::new(class, 0));
            }
        }
        assert!(full > chunks.len() * 500);
        assert!(slab.page_bytes() <= MAX_SPARE_PAGES * PAGE_BYTES);
    }
}
