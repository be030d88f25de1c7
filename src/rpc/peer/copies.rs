//! Copies of entries, as they travel.

use super::{MAX_COPIES_BYTES, Malformed};
use crate::cache::key::{AccountId, Key};
use crate::cache::limits::REMEMBERED_REQUEST_IDS;
use crate::cache::limits::{MAX_ENTRY_BYTES, MAX_REQUEST_ID_BYTES, MAX_TTL_MS, REMEMBER_REQUEST_ID_MS};
use crate::cache::quota::Budget;
use crate::cache::route::route_hash;
use crate::cache::store::{Carried, Name, Place, RememberedRequest};
use crate::cache::version::{Now, Version};
use crate::ownership::MAX_CLOCK_AHEAD_US;
use crate::ownership::copies::Frozen;
use crate::rpc::proto::peer::v1 as pb;

/// What a copy costs on the wire beside its texts and its value, about.
const COPY_OVERHEAD_BYTES: usize = 64;

/// Counts the copies that go into one message.
#[derive(Debug, Default)]
pub(super) struct Room {
    taken: usize,
}

impl Room {
    /// Whether this copy goes into the message; the first always does.
    pub(super) fn take(&mut self, place: &Place, copy: Option<&Frozen<Carried>>) -> bool {
        let carried = copy.and_then(|copy| copy.value.as_ref());
        let requests =
            carried.map_or(0, |carried| carried.requests.len() * (COPY_OVERHEAD_BYTES + MAX_REQUEST_ID_BYTES));
        let value = carried.map_or(0, |carried| carried.value.len());
        let bytes = COPY_OVERHEAD_BYTES + place.key.key.len() + place.key.space.as_str().len() + value + requests;
        let fits = self.taken == 0 || self.taken + bytes <= MAX_COPIES_BYTES;
        self.taken += bytes;
        fits
    }
}

/// The account of the copy before, which is mostly that of the next: it is checked and made once.
#[derive(Debug, Default)]
pub(super) struct LastAccount(Option<AccountId>);

impl LastAccount {
    fn of(&mut self, text: &str) -> Result<AccountId, Malformed> {
        match &self.0 {
            Some(last) if last.as_str() == text => Ok(last.clone()),
            _ => Ok(self.0.insert(account_of(text)?).clone()),
        }
    }
}

pub(super) fn name_to(place: &Place) -> pb::Name {
    pb::Name { space: place.key.space.to_string(), key: place.key.key.to_string() }
}

pub(super) fn place_of(name: Option<pb::Name>) -> Result<Place, Malformed> {
    place_in(name, &mut LastAccount::default())
}

pub(super) fn place_in(name: Option<pb::Name>, accounts: &mut LastAccount) -> Result<Place, Malformed> {
    let name = name.ok_or(Malformed("a key without a name"))?;
    let space = accounts.of(&name.space)?;
    let key = Key::new(&name.key).map_err(|_| Malformed("a key that is none"))?;
    let hash = route_hash(&space, key);
    Ok(Place { hash, key: Name { space, key: name.key.into() } })
}

pub(super) fn copy_to(place: &Place, copy: &Frozen<Carried>, now: Now) -> pb::Copy {
    let entry = copy.value.as_ref().map(|carried| entry_to(carried, now));
    pb::Copy { name: Some(name_to(place)), version: copy.version.as_u64(), entry }
}

pub(super) fn copy_of(
    copy: pb::Copy,
    now: Now,
    accounts: &mut LastAccount,
) -> Result<(Place, Frozen<Carried>), Malformed> {
    let place = place_in(copy.name, accounts)?;
    let version = version_of(copy.version, now)?;
    let value = copy.entry.map(|entry| entry_of(entry, now, accounts)).transpose()?;
    if value.as_ref().is_some_and(|carried| carried.value.len() + place.key.key.len() > MAX_ENTRY_BYTES) {
        return Err(Malformed("an entry over the largest size"));
    }
    Ok((place, Frozen { version, value }))
}

fn entry_to(carried: &Carried, now: Now) -> pb::Entry {
    pb::Entry {
        value: carried.value.clone(),
        remaining_ms: carried.expires_ms.map(|at| at.saturating_sub(now.monotonic_ms)),
        payer: carried.payer.as_ref().map(ToString::to_string).unwrap_or_default(),
        requests: carried.requests.iter().map(|request| remembered_to(request, now)).collect(),
        budget: carried.budget.map(budget_to),
    }
}

pub(super) fn budget_to(Budget { max_keys, max_bytes, guaranteed_bytes }: Budget) -> pb::Budget {
    pb::Budget { max_keys, max_bytes, guaranteed_bytes }
}

fn entry_of(entry: pb::Entry, now: Now, accounts: &mut LastAccount) -> Result<Carried, Malformed> {
    if entry.requests.len() > REMEMBERED_REQUEST_IDS {
        return Err(Malformed("a counter with too many request ids"));
    }
    let payer = if entry.payer.is_empty() { None } else { Some(accounts.of(&entry.payer)?) };
    let requests = entry.requests.into_iter().map(|request| remembered_of(request, now));
    Ok(Carried {
        value: entry.value,
        expires_ms: entry.remaining_ms.map(|left| now.monotonic_ms + left.min(MAX_TTL_MS)),
        payer,
        budget: entry.budget.map(|pb::Budget { max_keys, max_bytes, guaranteed_bytes }| Budget {
            max_keys,
            max_bytes,
            guaranteed_bytes,
        }),
        requests: requests.collect::<Result<_, _>>()?,
    })
}

pub(super) fn remembered_to(request: &RememberedRequest, now: Now) -> pb::RememberedRequest {
    pb::RememberedRequest {
        id: request.id.to_string(),
        value: request.value,
        version: request.version.as_u64(),
        remaining_ms: request.until_ms.saturating_sub(now.monotonic_ms),
    }
}

fn remembered_of(request: pb::RememberedRequest, now: Now) -> Result<RememberedRequest, Malformed> {
    if !(1..=MAX_REQUEST_ID_BYTES).contains(&request.id.len()) {
        return Err(Malformed("a request id that is empty or too long"));
    }
    Ok(RememberedRequest {
        id: request.id.into(),
        value: request.value,
        version: version_of(request.version, now)?,
        until_ms: now.monotonic_ms + request.remaining_ms.min(REMEMBER_REQUEST_ID_MS),
    })
}

/// Rule 19, for what a message contains too: whoever takes a copy takes its version for a time that has been.
fn version_of(number: u64, now: Now) -> Result<Version, Malformed> {
    let version = Version::from_u64(number);
    match number {
        0 => Err(Malformed("a copy without a version")),
        _ if version.clock_us() > now.wall_us + MAX_CLOCK_AHEAD_US => Err(Malformed("a version over an hour ahead")),
        _ => Ok(version),
    }
}

pub(super) fn account_of(text: &str) -> Result<AccountId, Malformed> {
    AccountId::new(text).map_err(|_| Malformed("an account id that is none"))
}
