//! A dump: the entries of a key space, page by page, each made when the client can take it. Between two pages no lock and no
//! entry is held, so a slow reader costs one page.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::body::Produce;
use super::call::Call;
use super::codec::encode::{bytes_len, number_len, put_bytes, put_number, put_prefix};
use super::drain::{Phase, Watch};
use super::held::Share;
use super::wall::Wall;
use crate::cache::cursor::Cursor;
use crate::cache::quota::Tenant;
use crate::cache::store::{PageItem, StoreError};
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// Bytes of keys and values of one page (a larger entry is a page alone): what a client that does not read costs.
const PAGE_BYTES: usize = 256 * 1024;

/// A dump under way.
pub struct Dump {
    space: Tenant,
    prefix: String,
    after: Option<Cursor>,
    ended: bool,
    form: Form,
    drain: Watch,
    /// Of the bytes that calls may hold: the page that is being sent.
    share: Share,
}

/// Whose `DumpItem` it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Larder,
    /// Key and value only.
    Tutorial,
}

impl Dump {
    /// # Errors
    /// When the request is wrong.
    pub fn new(call: &Call, message: Bytes, drain: Watch) -> Result<Self, Failure> {
        let request: v1::DumpRequest = convert::decode(message)?;
        let asked = convert::dump_call(&request)?;
        let space = call.principal()?.state.tenant.clone();
        let prefix = asked.prefix.to_owned();
        let share = call.connection().wall.held.share();
        Ok(Self { space, prefix, after: asked.after, ended: false, form: Form::Larder, drain, share })
    }

    /// Of the whole key space of the tutorial.
    #[must_use]
    pub fn of_tutorial(wall: &Wall, drain: Watch) -> Self {
        let space = wall.tutorial.clone();
        let share = wall.held.share();
        Self { space, prefix: String::new(), after: None, ended: false, form: Form::Tutorial, drain, share }
    }
}

impl Produce for Dump {
    fn poll_next(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        self.share.clear();
        if self.ended {
            return Poll::Ready(None);
        }
        if self.drain.phase() != Phase::Running {
            return Poll::Ready(Some(Err(Failure::Draining)));
        }
        let wall = &call.connection().wall;
        let page = wall.store.page(&self.space, &self.prefix, self.after.as_ref(), PAGE_BYTES, wall.clock.now());
        let page = match page {
            Ok(page) => page,
            Err(standing) => return Poll::Ready(Some(Err(StoreError::Elsewhere(standing).into()))),
        };
        self.ended = page.end;
        self.after = page.next;
        if page.items.is_empty() {
            if self.ended {
                return Poll::Ready(None);
            }
            // Much was searched and nothing found: others have their turn.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let bytes: usize = page.items.iter().map(item_bytes).sum();
        if let Err(full) = self.share.resize(bytes) {
            return Poll::Ready(Some(Err(full)));
        }
        let mut frames = BytesMut::with_capacity(bytes);
        for item in &page.items {
            put_item(item, self.form, &mut frames);
        }
        Poll::Ready(Some(Ok(frames.freeze())))
    }
}

/// Field numbers of `DumpItem`.
const KEY: u32 = 1;
const VAL: u32 = 2;
const VERSION: u32 = 3;
const REMAINING_TTL_MS: u32 = 4;
const CURSOR: u32 = 5;

/// About how many bytes an item takes, prefix, cursor and all.
fn item_bytes(item: &PageItem) -> usize {
    2 * item.key.len() + item.value.len() + 80
}

fn put_item(item: &PageItem, form: Form, frames: &mut BytesMut) {
    let mut length = bytes_len(KEY, item.key.len()) + bytes_len(VAL, item.value.len());
    if form == Form::Tutorial {
        put_prefix(length, frames);
        put_bytes(KEY, item.key.as_bytes(), frames);
        put_bytes(VAL, &item.value, frames);
        return;
    }
    let cursor = item.cursor.to_bytes();
    let (version, ttl) = (item.version.as_u64(), item.remaining_ttl_ms.unwrap_or(0));
    length += number_len(VERSION, version) + number_len(REMAINING_TTL_MS, ttl) + bytes_len(CURSOR, cursor.len());
    put_prefix(length, frames);
    put_bytes(KEY, item.key.as_bytes(), frames);
    put_bytes(VAL, &item.value, frames);
    put_number(VERSION, version, frames);
    put_number(REMAINING_TTL_MS, ttl, frames);
    put_bytes(CURSOR, &cursor, frames);
}
