//! The one form of a view as bytes: what its digest is made of, and what travels. Frozen by vectors in the tests: replicas of
//! two releases in one cluster must agree which views are equal.
//!
//! All numbers are big endian; a text is its length in bytes (u16) and UTF-8; a list is its length (u32) and its items,
//! sorted, each once.
//!
//! | field | what |
//! |---|---|
//! | u8 | the encoding's version, 1; 2 with patches, which only parts of views have |
//! | u64 | floor |
//! | list | slices: name, version (u64), 1 and the list of endpoints (uid, address, peer, serves u8), or 0: deleted |
//! | 4 lists | boots, leaving, left, gone: uid and boot (u64) |
//! | list | declared gone before a boot was heard of: uid, the declarer's uid and boot, and the boot that answered or 0 |
//! | list | only in version 2: patches: name, from and to (u64), the lists of changed endpoints and of removed uids |

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::patch::Patch;
use super::unheard::Unheard;
use super::{Marks, Slice, View};
use crate::ownership::member::{Endpoint, MemberId, Uid};

/// Of a view.
const ENCODING: u8 = 1;

/// Of a part of a view, with patches.
const PATCHED: u8 = 2;

/// Bytes of a view at most: 4,096 endpoints with long names and all marks are about half of it.
pub const MAX_VIEW_BYTES: usize = 2 * 1024 * 1024;

/// Which view: XXH3-128 of its encoding. Of two replicas' views, *equal or not* is the only question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(u128);

/// Why bytes are no view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    #[error("the view has {0} bytes; at most {MAX_VIEW_BYTES} are allowed")]
    TooLarge(usize),
    #[error("the view has encoding {0}; this release knows {ENCODING}")]
    Encoding(u8),
    #[error("the view is malformed")]
    Malformed,
}

impl Digest {
    #[must_use]
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }

    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl View {
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(xxh3_128(&self.to_bytes()))
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![if self.patches.is_empty() { ENCODING } else { PATCHED }];
        out.extend(self.floor.to_be_bytes());
        put_length(&mut out, self.slices.len());
        for (name, slice) in &self.slices {
            put_text(&mut out, name);
            out.extend(slice.version.to_be_bytes());
            out.push(u8::from(slice.endpoints.is_some()));
            let Some(endpoints) = &slice.endpoints else { continue };
            put_endpoints(&mut out, endpoints);
        }
        for marks in [&self.boots, &self.leaving, &self.left, &self.gone] {
            put_length(&mut out, marks.len());
            for (uid, boot) in marks {
                put_text(&mut out, uid.as_str());
                out.extend(boot.to_be_bytes());
            }
        }
        put_length(&mut out, self.unheard.iter().count());
        for (uid, by, answered) in self.unheard.iter() {
            put_text(&mut out, uid.as_str());
            put_text(&mut out, by.uid.as_str());
            out.extend(by.boot.to_be_bytes());
            out.extend(answered.to_be_bytes());
        }
        if !self.patches.is_empty() {
            self.put_patches(&mut out);
        }
        out
    }

    fn put_patches(&self, out: &mut Vec<u8>) {
        put_length(out, self.patches.len());
        for (name, patch) in &self.patches {
            put_text(out, name);
            out.extend(patch.from.to_be_bytes());
            out.extend(patch.to.to_be_bytes());
            put_endpoints(out, &patch.changed);
            put_length(out, patch.removed.len());
            patch.removed.iter().for_each(|uid| put_text(out, uid.as_str()));
        }
    }

    /// Reads what [`Self::to_bytes`] wrote, at this replica or another.
    ///
    /// # Errors
    /// When the bytes are anything else, or in an order that makes two forms of one view.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ViewError> {
        if bytes.len() > MAX_VIEW_BYTES {
            return Err(ViewError::TooLarge(bytes.len()));
        }
        let mut rest = Reader(bytes);
        let is_patched = match rest.byte() {
            Some(ENCODING) => false,
            Some(PATCHED) => true,
            Some(other) => return Err(ViewError::Encoding(other)),
            None => return Err(ViewError::Malformed),
        };
        let mut view = rest.view().ok_or(ViewError::Malformed)?;
        if is_patched {
            view.patches = rest.patches().ok_or(ViewError::Malformed)?;
        }
        if !rest.0.is_empty() {
            return Err(ViewError::Malformed);
        }
        // One form of each view: what is not sorted is none of ours. Marks without an endpoint are, in a part of a view.
        if view.to_bytes() == bytes { Ok(view) } else { Err(ViewError::Malformed) }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend(u32::try_from(length).expect("lists are far below 2^32 items").to_be_bytes());
}

fn put_endpoints(out: &mut Vec<u8>, endpoints: &[Endpoint]) {
    put_length(out, endpoints.len());
    for endpoint in endpoints {
        put_text(out, endpoint.uid.as_str());
        put_text(out, &endpoint.address);
        put_text(out, &endpoint.peer);
        out.push(u8::from(endpoint.serves));
    }
}

/// Names, uids and addresses come from the source, where none has 64 KiB; a longer one is cut, everywhere alike.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = text.floor_char_boundary(usize::from(u16::MAX));
    out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(&text.as_bytes()[..length]);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn view(&mut self) -> Option<View> {
        let floor = self.number()?;
        let mut view = View { floor, ..View::default() };
        for _ in 0..self.length()? {
            let name: Arc<str> = self.text()?.into();
            let version = self.number()?;
            let endpoints = if self.flag()? { Some(self.endpoints()?.into()) } else { None };
            view.slices.insert(name, Slice { version, endpoints });
        }
        view.boots = self.marks()?;
        view.leaving = self.marks()?;
        view.left = self.marks()?;
        view.gone = self.marks()?;
        view.unheard = self.unheard()?;
        Some(view)
    }

    fn patches(&mut self) -> Option<BTreeMap<Arc<str>, Patch>> {
        let mut patches = BTreeMap::new();
        for _ in 0..self.length()? {
            let name: Arc<str> = self.text()?.into();
            let (from, to) = (self.number()?, self.number()?);
            let changed = self.endpoints()?.into();
            let mut removed = Vec::new();
            for _ in 0..self.length()? {
                removed.push(Uid::new(self.text()?));
            }
            patches.insert(name, Patch { from, to, changed, removed: removed.into() });
        }
        Some(patches)
    }

    fn endpoints(&mut self) -> Option<Vec<Endpoint>> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for _ in 0..self.length()? {
            let uid = Uid::new(self.text()?);
            if endpoints.last().is_some_and(|before| before.uid >= uid) {
                return None;
            }
            let (address, peer) = (self.text()?.into(), self.text()?.into());
            endpoints.push(Endpoint { uid, address, peer, serves: self.flag()? });
        }
        Some(endpoints)
    }

    fn marks(&mut self) -> Option<Marks> {
        let mut marks = Marks::new();
        for _ in 0..self.length()? {
            marks.insert(Uid::new(self.text()?), self.number()?);
        }
        Some(marks)
    }

    fn unheard(&mut self) -> Option<Unheard> {
        let mut unheard = Unheard::default();
        for _ in 0..self.length()? {
            let (uid, by) = (Uid::new(self.text()?), Uid::new(self.text()?));
            unheard.insert(uid, MemberId { uid: by, boot: self.number()? }, self.number()?);
        }
        Some(unheard)
    }

    fn text(&mut self) -> Option<&str> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn length(&mut self) -> Option<u32> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*length))
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}
