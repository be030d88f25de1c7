//! The steps: a page of a dump, a page of a removal. Each is taken in the same way for one's own client and for another
//! replica, which gets the bytes that its client will get.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::{Step, Stride};
use crate::cache::cursor::Cursor;
use crate::cache::key::AccountId;
use crate::cache::quota::Tenant;
use crate::cache::store::{Mode, PageItem, Scope};
use crate::ownership::shard::Standing;
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::peer::v1 as peer;
use crate::server::codec::encode::{self, bytes_len, number_len, put_bytes, put_numbers, put_prefix};
use crate::server::forward::Cannot;
use crate::server::method::Method;
use crate::server::wall::Wall;

/// Bytes of keys and values of one page (a larger entry is a page alone): what a client that does not read costs.
const PAGE_BYTES: usize = 256 * 1024;

/// Entries removed in one turn: well under a millisecond of work.
const PAGE_ENTRIES: usize = 512;

/// A page of a dump: its items, each framed.
#[derive(Clone, Debug)]
pub struct DumpStep {
    pub space: Tenant,
    pub prefix: Arc<str>,
    pub form: Form,
}

/// Whose `DumpItem` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Larder,
    /// Key and value only.
    Tutorial,
}

/// A page of a removal: how many entries were removed.
#[derive(Clone, Debug)]
pub struct ClearStep {
    pub space: Tenant,
    pub prefix: Arc<str>,
    pub mode: Mode,
}

impl Step for DumpStep {
    const METHOD: Method = Method::PeerDumpPage;
    type Found = Bytes;

    fn space(&self) -> &AccountId {
        self.space.id()
    }

    fn dry_run(&self) -> bool {
        false
    }

    fn here(&self, wall: &Wall, after: Option<&Cursor>) -> Result<Stride<Bytes>, Standing> {
        let page = wall.store.page(&self.space, &self.prefix, after, PAGE_BYTES, wall.clock.now())?;
        let mut frames = BytesMut::with_capacity(page.items.iter().map(item_bytes).sum());
        for item in &page.items {
            put_item(item, self.form, &mut frames);
        }
        Ok(Stride { found: frames.freeze(), next: page.next })
    }

    fn request(&self, after: Option<&Cursor>) -> Bytes {
        let tutorial = self.form == Form::Tutorial;
        peer::DumpPageRequest { prefix: self.prefix.to_string(), cursor: bytes_of(after), tutorial }
            .encode_to_vec()
            .into()
    }

    fn read(&self, message: Bytes) -> Result<Option<Stride<Bytes>>, Failure> {
        let answer: peer::DumpPageResponse = convert::decode(message)?;
        let next = cursor_of(&answer.next)?;
        Ok((!answer.unsettled).then_some(Stride { found: answer.frames, next }))
    }
}

impl Step for ClearStep {
    const METHOD: Method = Method::PeerClearPage;
    type Found = u64;

    fn space(&self) -> &AccountId {
        self.space.id()
    }

    fn dry_run(&self) -> bool {
        self.mode.is_dry_run()
    }

    fn here(&self, wall: &Wall, after: Option<&Cursor>) -> Result<Stride<u64>, Standing> {
        let scope = Scope { space: &self.space, charge: Some(&self.space), mode: self.mode };
        let page = wall.store.remove_page(scope, &self.prefix, after, PAGE_ENTRIES, wall.clock.now())?;
        Ok(Stride { found: page.removed, next: page.next })
    }

    fn request(&self, after: Option<&Cursor>) -> Bytes {
        peer::ClearPageRequest { prefix: self.prefix.to_string(), cursor: bytes_of(after) }.encode_to_vec().into()
    }

    fn read(&self, message: Bytes) -> Result<Option<Stride<u64>>, Failure> {
        let answer: peer::ClearPageResponse = convert::decode(message)?;
        let next = cursor_of(&answer.next)?;
        Ok((!answer.unsettled).then_some(Stride { found: answer.removed, next }))
    }
}

/// A page of a dump for another replica; answers its frame.
///
/// # Errors
/// When the place is another's, or the request is wrong.
pub fn dump_page(wall: &Wall, space: &Tenant, message: Bytes) -> Result<Bytes, Cannot> {
    let request: peer::DumpPageRequest = convert::decode(message)?;
    let form = if request.tutorial { Form::Tutorial } else { Form::Larder };
    let step = DumpStep { space: space.clone(), prefix: request.prefix.into(), form };
    let answer = match settled(step.here(wall, cursor_of(&request.cursor)?.as_ref()))? {
        Some(Stride { found, next }) => {
            peer::DumpPageResponse { frames: found, next: bytes_of(next.as_ref()), unsettled: false }
        }
        None => peer::DumpPageResponse { unsettled: true, ..Default::default() },
    };
    Ok(encode::frame(&answer))
}

/// A page of a removal for another replica; answers its frame.
///
/// # Errors
/// When the place is another's, or the request is wrong.
pub fn clear_page(wall: &Wall, scope: Scope<'_>, message: Bytes) -> Result<Bytes, Cannot> {
    let request: peer::ClearPageRequest = convert::decode(message)?;
    let step = ClearStep { space: scope.space.clone(), prefix: request.prefix.into(), mode: scope.mode };
    let answer = match settled(step.here(wall, cursor_of(&request.cursor)?.as_ref()))? {
        Some(Stride { found, next }) => {
            peer::ClearPageResponse { removed: found, next: bytes_of(next.as_ref()), unsettled: false }
        }
        None => peer::ClearPageResponse { unsettled: true, ..Default::default() },
    };
    Ok(encode::frame(&answer))
}

/// None: it is this replica's, or will be, and not settled.
fn settled<F>(taken: Result<Stride<F>, Standing>) -> Result<Option<Stride<F>>, Cannot> {
    match taken {
        Ok(stride) => Ok(Some(stride)),
        Err(elsewhere @ (Standing::Other(_) | Standing::Nobody)) => Err(Cannot::Elsewhere(elsewhere)),
        Err(_) => Ok(None),
    }
}

fn bytes_of(cursor: Option<&Cursor>) -> Bytes {
    cursor.map(Cursor::to_bytes).unwrap_or_default()
}

fn cursor_of(bytes: &[u8]) -> Result<Option<Cursor>, Failure> {
    Ok((!bytes.is_empty()).then(|| Cursor::from_bytes(bytes)).transpose()?)
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
    put_numbers([(VERSION, version), (REMAINING_TTL_MS, ttl)], frames);
    put_bytes(CURSOR, &cursor, frames);
}
