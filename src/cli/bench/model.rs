//! What a read of a key may answer, when the key has one writer. A pure value: the order of its calls is the history.
//!
//! Each write of a key has a number, counted from 1. At any time some write is the *floor*: the newest that was acknowledged,
//! or read. A read that begins now may answer the floor or any write that began after it; something older is *stale*, nothing is
//! *lost*, and a number that was never written, or whose write was surely refused, is *corrupt*.
//!
//! A write whose answer was lost is *in doubt*: it may have been applied, or be applied at any time from now on, even after a
//! later one (packets wait while a process stands still). Both its value and those before it are right then. After a later
//! acknowledged write its value is right only with a newer version than that write's: then it was applied late, which Larder
//! does not promise to prevent. With an older version it is stale.

/// Writes in doubt that a key remembers. A key with more is retired: it is not checked for lost and stale any more.
const MAX_IN_DOUBT: usize = 16;

/// What is known of a key.
#[derive(Debug, Default)]
pub struct Key {
    /// Number of the last write that was begun; 0: none.
    begun: u64,
    floor: Floor,
    open: Option<Open>,
    doubt: Vec<Write>,
    /// Number of the last delete and of the last store that was begun and not refused.
    last_delete: u64,
    last_store: u64,
    retired: bool,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Store,
    Delete,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Applied, with this version; 0: unknown.
    Acknowledged { version: u64 },
    /// Surely not applied.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What a read saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Nothing,
    /// The value of a write, and the version that it came with.
    Value {
        number: u64,
        version: u64,
    },
    /// That there is some value.
    Something,
}

/// What is to be said of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// A write of which nobody knew was applied after a later one.
    Late,
    Lost,
    Stale,
    Corrupt,
}

/// The floor when a read began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    number: u64,
    version: u64,
}

/// Number 0: before every write there is nothing.
#[derive(Clone, Copy, Debug)]
struct Floor {
    number: u64,
    change: Change,
    version: u64,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    number: u64,
    change: Change,
}

/// The write under way, and what to go back to if it is refused.
#[derive(Clone, Copy, Debug)]
struct Open {
    write: Write,
    last_delete: u64,
    last_store: u64,
}

impl Key {
    /// Begins a write; answers its number. None while another is under way: there is one writer.
    pub fn begin(&mut self, change: Change) -> Option<u64> {
        if self.open.is_some() {
            return None;
        }
        self.begun += 1;
        let write = Write { number: self.begun, change };
        self.open = Some(Open { write, last_delete: self.last_delete, last_store: self.last_store });
        match change {
            Change::Delete => self.last_delete = write.number,
            Change::Store => self.last_store = write.number,
        }
        Some(write.number)
    }

    /// The write under way has ended.
    pub fn end(&mut self, ended: Ended) {
        let Some(Open { write, last_delete, last_store }) = self.open.take() else { return };
        match ended {
            Ended::Acknowledged { version } => {
                self.floor = Floor { number: write.number, change: write.change, version }
            }
            // A read may have seen it: then it was applied, whatever was said.
            Ended::Refused if self.floor.number == write.number => {}
            Ended::Refused => (self.last_delete, self.last_store) = (last_delete, last_store),
            Ended::Unknown if self.doubt.len() < MAX_IN_DOUBT => self.doubt.push(write),
            Ended::Unknown => self.retired = true,
        }
    }

    /// A read begins.
    pub fn since(&self) -> Since {
        Since { number: self.floor.number, version: self.floor.version }
    }

    /// A read that began then has ended.
    pub fn judge(&mut self, since: Since, seen: Seen) -> Verdict {
        let verdict = match seen {
            Seen::Value { number, version } => self.judge_value(since, number, version),
            Seen::Nothing => self.judge_nothing(since),
            Seen::Something if self.last_store > 0 && self.last_store >= since.number => Verdict::Right,
            Seen::Something if self.in_doubt(Change::Store) => Verdict::Late,
            Seen::Something => Verdict::Stale,
        };
        match verdict {
            Verdict::Lost | Verdict::Stale if self.retired => Verdict::Right,
            verdict => verdict,
        }
    }

    /// Whether a write of it is in doubt, or it is not checked any more.
    pub fn doubtful(&self) -> bool {
        self.retired || !self.doubt.is_empty()
    }

    fn judge_value(&mut self, since: Since, number: u64, version: u64) -> Verdict {
        let doubted = self.doubt.iter().any(|write| write.number == number && write.change == Change::Store);
        let open = self.open.is_some_and(|open| open.write.number == number && open.write.change == Change::Store);
        if number > self.floor.number {
            if !doubted && !open && !self.retired {
                return Verdict::Corrupt;
            }
            // Seen once, it must be seen by every later read.
            self.floor = Floor { number, change: Change::Store, version };
            return Verdict::Right;
        }
        match number {
            0 => Verdict::Corrupt,
            _ if number >= since.number => Verdict::Right,
            _ if doubted && version > since.version => Verdict::Late,
            _ => Verdict::Stale,
        }
    }

    fn judge_nothing(&mut self, since: Since) -> Verdict {
        if self.last_delete >= since.number {
            self.saw_delete(since);
            return Verdict::Right;
        }
        if self.in_doubt(Change::Delete) {
            return Verdict::Late;
        }
        // Said once: from now on nothing is what is there.
        self.floor.change = Change::Delete;
        self.last_delete = self.floor.number;
        Verdict::Lost
    }

    /// Nothing was seen where there was a value: if only one delete can be why, every later read must see it, too.
    fn saw_delete(&mut self, since: Since) {
        if since.number != self.floor.number || self.floor.change == Change::Delete {
            return;
        }
        let open = self.open.map(|open| open.write);
        let mut deletes = self.doubt.iter().chain(&open).filter(|write| write.change == Change::Delete);
        if let (Some(&Write { number, change }), None) = (deletes.next(), deletes.next())
            && number > self.floor.number
        {
            self.floor = Floor { number, change, version: 0 };
        }
    }

    fn in_doubt(&self, change: Change) -> bool {
        self.doubt.iter().any(|write| write.change == change)
    }
}

impl Default for Floor {
    fn default() -> Self {
        Self { number: 0, change: Change::Delete, version: 0 }
    }
}

#[cfg(test)]
mod tests;
