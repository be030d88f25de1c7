//! The messages of the hand-off.

use bytes::Bytes;

use super::copies::{LastAccount, Room, account_of, copy_of, copy_to, name_to, place_in, place_of};
use super::quota::{counted_of, counted_to, lease_of, lease_to, leased_of, leased_to};
use super::written::{page_frame, page_of_written};
use super::{MAX_COPIES_BYTES, Malformed, member_of, member_to};
use crate::cache::store::{Carried, Name, Place};
use crate::cache::version::Now;
use crate::ownership::message::{Answer, CountAsk, MAX_FETCH_KEYS, Request, Unreachable};
use crate::rpc::proto::peer::v1 as pb;
use crate::rpc::proto::peer::v1::exchange_request::{self as ask, Request as Ask};
use crate::rpc::proto::peer::v1::exchange_response::{self as reply, Answer as Reply};
use crate::rpc::wire::frame;

/// Members that one `Pong` names at most.
const MAX_UNREACHABLE: usize = 4096;

#[must_use]
pub fn request_to(request: &Request<Name>) -> Ask {
    match request {
        Request::Claim => Ask::Claim(ask::Claim {}),
        Request::Fetch(places) => Ask::Fetch(ask::Fetch { names: places.iter().map(name_to).collect() }),
        Request::Pull { after, max_bytes } => {
            Ask::Pull(ask::Pull { after: after.as_ref().map(name_to), max_bytes: *max_bytes as u64 })
        }
        Request::Done { through } => Ask::Done(ask::Done { through: Some(name_to(through)) }),
        Request::Ping => Ask::Ping(ask::Ping {}),
        Request::Lease(lease) => Ask::Lease(lease_to(lease)),
        Request::Count(CountAsk { account, round, close }) => {
            Ask::Count(ask::Count { account: account.to_string(), round: *round, close: *close })
        }
        Request::AskAgain(account) => Ask::AskAgain(ask::AskAgain { account: account.to_string() }),
    }
}

/// # Errors
/// When it is malformed, or asks for too much. A page is never larger than fits a message, whatever is asked for.
pub fn request_of(request: Option<Ask>) -> Result<Request<Name>, Malformed> {
    Ok(match request.ok_or(Malformed("a request that this release does not know"))? {
        Ask::Claim(_) => Request::Claim,
        Ask::Fetch(fetch) => {
            if !(1..=MAX_FETCH_KEYS).contains(&fetch.names.len()) {
                return Err(Malformed("a fetch of no or too many keys"));
            }
            Request::Fetch(fetch.names.into_iter().map(|name| place_of(Some(name))).collect::<Result<_, _>>()?)
        }
        Ask::Pull(pull) => Request::Pull {
            after: pull.after.map(|name| place_of(Some(name))).transpose()?,
            max_bytes: usize::try_from(pull.max_bytes).unwrap_or(usize::MAX).min(MAX_COPIES_BYTES),
        },
        Ask::Done(done) => Request::Done { through: place_of(done.through)? },
        Ask::Ping(_) => Request::Ping,
        Ask::Lease(lease) => Request::Lease(lease_of(lease)?),
        Ask::Count(ask::Count { account, round, close }) => {
            Request::Count(CountAsk { account: account_of(&account)?, round, close })
        }
        Ask::AskAgain(again) => Request::AskAgain(account_of(&again.account)?),
    })
}

/// A whole answer as gRPC frames it, in pieces.
#[must_use]
pub fn answer_frame(hello: pb::Hello, stamp: pb::Stamp, answer: Answer<Name, Carried>, now: Now) -> Vec<Bytes> {
    if let Answer::Written(page) = answer {
        return page_frame(hello, stamp, page);
    }
    let answer = Some(answer_to(answer, now));
    vec![frame(&pb::ExchangeResponse { hello: Some(hello), stamp: Some(stamp), answer })]
}

/// Copies that do not fit are left out: who asked asks again.
#[must_use]
pub fn answer_to(answer: Answer<Name, Carried>, now: Now) -> Reply {
    match answer {
        Answer::Cleared { has_copies } => Reply::Cleared(reply::Cleared { has_copies }),
        Answer::Copies(found) => {
            let mut copies = reply::Copies::default();
            let mut room = Room::default();
            for (place, copy) in found.into_iter().take_while(|(place, copy)| room.take(place, copy.as_ref())) {
                match copy {
                    Some(copy) => copies.found.push(copy_to(&place, &copy, now)),
                    None => copies.none.push(name_to(&place)),
                }
            }
            Reply::Copies(copies)
        }
        Answer::Page { items, last } => {
            let all = items.len();
            let mut room = Room::default();
            let items = items.into_iter().take_while(|(place, copy)| room.take(place, Some(copy)));
            let items: Vec<_> = items.map(|(place, copy)| copy_to(&place, &copy, now)).collect();
            Reply::Page(reply::Page { last: last && items.len() == all, items })
        }
        Answer::Written(page) => Reply::Page(page_of_written(&page)),
        Answer::DoneOk => Reply::Done(reply::Done {}),
        Answer::Stale => Reply::Stale(reply::Stale {}),
        Answer::Pong { unreachable } => {
            let unreachable = unreachable.iter().take(MAX_UNREACHABLE);
            let unreachable =
                unreachable.map(|one| reply::Unreachable { id: Some(member_to(&one.id)), refused: one.refused });
            Reply::Pong(reply::Pong { unreachable: unreachable.collect() })
        }
        Answer::Leased(leased) => Reply::Leased(leased_to(leased)),
        Answer::Counted(counted) => Reply::Counted(counted_to(counted)),
        Answer::Noted => Reply::Noted(reply::Noted {}),
    }
}

/// As [`answer_of`], to this request.
///
/// # Errors
/// When it is malformed, or answers requests of another kind: it would count as what nobody said.
pub fn answer_of_kind(
    request: &Request<Name>,
    answer: Option<Reply>,
    now: Now,
) -> Result<Answer<Name, Carried>, Malformed> {
    let answer = answer_of(answer, now)?;
    if answer.is_to(request) { Ok(answer) } else { Err(Malformed("an answer of another kind than its request")) }
}

/// # Errors
/// When it is malformed.
pub fn answer_of(answer: Option<Reply>, now: Now) -> Result<Answer<Name, Carried>, Malformed> {
    Ok(match answer.ok_or(Malformed("an answer that this release does not know"))? {
        Reply::Cleared(cleared) => Answer::Cleared { has_copies: cleared.has_copies },
        Reply::Copies(copies) => {
            let mut accounts = LastAccount::default();
            let mut found = Vec::with_capacity(copies.found.len() + copies.none.len());
            for copy in copies.found {
                let (place, copy) = copy_of(copy, now, &mut accounts)?;
                found.push((place, Some(copy)));
            }
            for name in copies.none {
                found.push((place_in(Some(name), &mut accounts)?, None));
            }
            Answer::Copies(found)
        }
        Reply::Page(page) => {
            let mut accounts = LastAccount::default();
            let items = page.items.into_iter().map(|copy| copy_of(copy, now, &mut accounts));
            let items: Vec<(Place, _)> = items.collect::<Result<_, _>>()?;
            if !items.is_sorted_by(|(one, _), (next, _)| one < next) {
                return Err(Malformed("a page that is not in order"));
            }
            // Who sends nothing is taken for having nothing.
            if items.is_empty() && !page.last {
                return Err(Malformed("an empty page that is not the last"));
            }
            Answer::Page { items, last: page.last }
        }
        Reply::Done(_) => Answer::DoneOk,
        Reply::Stale(_) => Answer::Stale,
        Reply::Pong(pong) => {
            let unreachable = pong.unreachable.into_iter().take(MAX_UNREACHABLE);
            let unreachable = unreachable.map(|one| Ok(Unreachable { id: member_of(one.id)?, refused: one.refused }));
            Answer::Pong { unreachable: unreachable.collect::<Result<_, Malformed>>()? }
        }
        Reply::Leased(leased) => Answer::Leased(leased_of(leased)?),
        Reply::Counted(counted) => Answer::Counted(counted_of(counted)),
        Reply::Noted(_) => Answer::Noted,
        Reply::Refused(_) => return Err(Malformed("a refusal where an answer should be")),
    })
}
