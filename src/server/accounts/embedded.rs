//! Accounts from a file: the book of the moment, replaced whole when the file changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::{Book, Grant};
use crate::rpc::failure::Failure;

/// The accounts of a file. Cheap to clone; all clones see the same book.
#[derive(Clone, Debug)]
pub struct Embedded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    book: ArcSwap<Book>,
    generation: AtomicU64,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    current: AtomicBool,
}

/// How the accounts of a file are doing, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedStats {
    pub accounts: usize,
    pub tokens: usize,
    /// Changes of the file that were taken, since the start.
    pub reloads: u64,
    /// Changes that were not, because the file was broken or gone.
    pub failed_reloads: u64,
    /// Whether what is used is what the file says.
    pub current: bool,
}

impl Embedded {
    #[must_use]
    pub fn new(book: Book) -> Self {
        Self(Arc::new(Inner {
            book: ArcSwap::from_pointee(book),
            generation: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
            current: AtomicBool::new(true),
        }))
    }

    /// What a token grants.
    ///
    /// # Errors
    /// When it is empty or belongs to no account.
    pub fn find(&self, token: &str) -> Result<Grant, Failure> {
        self.0.book.load().find(token)
    }

    /// The book of the moment.
    #[must_use]
    pub fn book(&self) -> Arc<Book> {
        self.0.book.load_full()
    }

    /// Puts another book in its place. Accounts that did not change stay the same `Arc`.
    pub fn replace(&self, book: Book) {
        let book = book.keeping_unchanged(&self.book());
        self.0.book.store(Arc::new(book));
        // After the book: who sees the new generation finds the new book.
        self.0.generation.fetch_add(1, Ordering::Release);
        self.0.reloads.fetch_add(1, Ordering::Relaxed);
        self.0.current.store(true, Ordering::Relaxed);
    }

    /// Notes that the file cannot be used, and that the book of before stays.
    pub(super) fn keep(&self) {
        self.0.failed_reloads.fetch_add(1, Ordering::Relaxed);
        self.0.current.store(false, Ordering::Relaxed);
    }

    /// Notes that the file says again what is used.
    pub(super) fn confirm(&self) {
        self.0.current.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn stats(&self) -> EmbeddedStats {
        let book = self.0.book.load();
        EmbeddedStats {
            accounts: book.len(),
            tokens: book.tokens(),
            reloads: self.0.reloads.load(Ordering::Relaxed),
            failed_reloads: self.0.failed_reloads.load(Ordering::Relaxed),
            current: self.0.current.load(Ordering::Relaxed),
        }
    }
}
