//! Pages as the store writes them, straight into the message that goes to the socket: a value is copied once, or not at all, and
//! nothing is allocated for an entry. The same bytes as those of the messages in peer.proto.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::copies::{budget_to, remembered_to};
use crate::cache::store::{Lent, LentValue, Pieces};
use crate::cache::version::Now;
use crate::ownership::copies::WrittenPage;
use crate::rpc::proto::peer::v1 as pb;
use crate::rpc::wire::{
    PREFIX_BYTES, bytes_len, nested_len, number_len, put_bytes, put_nested, put_number, put_prefix,
};

/// Field numbers, by message.
mod tag {
    pub(super) mod name {
        pub const SPACE: u32 = 1;
        pub const KEY: u32 = 2;
    }
    pub(super) mod copy {
        pub const NAME: u32 = 1;
        pub const VERSION: u32 = 2;
        pub const ENTRY: u32 = 3;
    }
    pub(super) mod entry {
        pub const VALUE: u32 = 1;
        pub const REMAINING_MS: u32 = 2;
        pub const PAYER: u32 = 3;
        pub const REQUESTS: u32 = 4;
        pub const BUDGET: u32 = 5;
    }
    pub(super) mod page {
        pub const ITEMS: u32 = 1;
        pub const LAST: u32 = 2;
    }
    pub(super) mod response {
        pub const PAGE: u32 = 5;
    }
}

/// Appends a copy to a page.
pub fn write_copy(copy: &Lent<'_>, now: Now, page: &mut Pieces) {
    let space = copy.space.as_str().as_bytes();
    let name_len = bytes_len(tag::name::SPACE, space.len()) + bytes_len(tag::name::KEY, copy.key.len());
    let entry = copy.value.as_ref().map(|value| Rest::of(value, now));
    let entry_len = entry.as_ref().map(|rest| rest.entry_len());
    let version_len = key_len(tag::copy::VERSION) + 8;
    let length = nested_len(tag::copy::NAME, name_len)
        + version_len
        + entry_len.map_or(0, |length| nested_len(tag::copy::ENTRY, length));
    let buffer = page.buffer();
    put_nested(tag::page::ITEMS, length, buffer);
    put_nested(tag::copy::NAME, name_len, buffer);
    put_bytes(tag::name::SPACE, space, buffer);
    put_bytes(tag::name::KEY, copy.key, buffer);
    encode_key(tag::copy::VERSION, WireType::SixtyFourBit, buffer);
    buffer.put_u64_le(copy.version.as_u64());
    if let (Some(value), Some(rest), Some(length)) = (&copy.value, entry, entry_len) {
        put_nested(tag::copy::ENTRY, length, buffer);
        rest.put(buffer);
        if value.len() > 0 {
            put_nested(tag::entry::VALUE, value.len(), buffer);
            page.put_value(value);
        }
    }
}

/// The message that such a page is. A written page goes out as it is; this is for whoever wants to look at one.
pub(super) fn page_of_written(page: &WrittenPage) -> pb::exchange_response::Page {
    let items = pb::exchange_response::Page::decode(&*page.pieces.concat()).unwrap_or_default();
    pb::exchange_response::Page { last: page.last, ..items }
}

/// The frame of an answer that is a page, in pieces.
pub(super) fn page_frame(hello: pb::Hello, stamp: pb::Stamp, page: WrittenPage) -> Vec<Bytes> {
    let outside = pb::ExchangeResponse { hello: Some(hello), stamp: Some(stamp), answer: None };
    let items: usize = page.pieces.iter().map(Bytes::len).sum();
    let page_len = items + number_len(tag::page::LAST, page.last.into());
    let length = outside.encoded_len() + nested_len(tag::response::PAGE, page_len);
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + length - items);
    put_prefix(length, &mut head);
    // A growing buffer has room for every message.
    let _ = outside.encode(&mut head);
    put_nested(tag::response::PAGE, page_len, &mut head);
    put_number(tag::page::LAST, page.last.into(), &mut head);
    std::iter::once(head.freeze()).chain(page.pieces).filter(Bytes::has_remaining).collect()
}

/// What an entry has beside its value.
struct Rest<'a> {
    value_len: usize,
    remaining_ms: Option<u64>,
    payer: &'a [u8],
    requests: Vec<pb::RememberedRequest>,
    budget: Option<pb::Budget>,
}

impl<'a> Rest<'a> {
    fn of(value: &LentValue<'a>, now: Now) -> Self {
        Self {
            value_len: value.len(),
            remaining_ms: value.expires_ms.map(|at| at.saturating_sub(now.monotonic_ms)),
            payer: value.payer.map(|payer| payer.as_str().as_bytes()).unwrap_or_default(),
            requests: value.requests.iter().map(|request| remembered_to(request, now)).collect(),
            budget: value.budget.map(budget_to),
        }
    }

    /// Of the whole entry.
    fn entry_len(&self) -> usize {
        // An expiry is there also if it is 0.
        let expiry = self.remaining_ms.map_or(0, |left| key_len(tag::entry::REMAINING_MS) + encoded_len_varint(left));
        let requests = self.requests.iter().map(|request| nested_len(tag::entry::REQUESTS, request.encoded_len()));
        let budget = self.budget.as_ref().map_or(0, |budget| nested_len(tag::entry::BUDGET, budget.encoded_len()));
        bytes_len(tag::entry::VALUE, self.value_len)
            + expiry
            + bytes_len(tag::entry::PAYER, self.payer.len())
            + requests.sum::<usize>()
            + budget
    }

    fn put(&self, buffer: &mut BytesMut) {
        if let Some(left) = self.remaining_ms {
            encode_key(tag::entry::REMAINING_MS, WireType::Varint, buffer);
            encode_varint(left, buffer);
        }
        put_bytes(tag::entry::PAYER, self.payer, buffer);
        for request in &self.requests {
            put_nested(tag::entry::REQUESTS, request.encoded_len(), buffer);
            // A growing buffer has room for every message.
            let _ = request.encode(buffer);
        }
        if let Some(budget) = &self.budget {
            put_nested(tag::entry::BUDGET, budget.encoded_len(), buffer);
            let _ = budget.encode(buffer);
        }
    }
}
