//! Counters: decimal text, and the request ids that make an increment safe to retry.

use super::member::RememberedRequest;
use crate::cache::limits::{REMEMBER_REQUEST_ID_MS, REMEMBERED_REQUEST_IDS};
use crate::cache::version::{Now, Version};

/// Bytes charged for a counter's memory, and for each request in it beside its id.
const MEMORY_BYTES: u64 = 32;
const REQUEST_BYTES: u64 = 48;

/// Bytes of the text of a counter. A number of 64 bits has at most 20; without a bound, megabytes of leading zeros would be
/// read under the lock.
const MAX_TEXT_BYTES: usize = 64;

/// The last answers to increments with a request id, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    requests: Vec<Request>,
}

#[derive(Clone, Debug)]
struct Request {
    id: Box<str>,
    value: i64,
    version: Version,
    /// Monotonic milliseconds.
    until_ms: u64,
}

/// Reads a counter: an optional `-` and decimal digits that fit 64 bits. Leading zeros are digits like others; a sign `+`,
/// white space, the empty text and more than 64 bytes are not allowed.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    if text.first() == Some(&b'+') || text.len() > MAX_TEXT_BYTES {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl Remembered {
    /// The answer that a request got, if it was within the last 60 s and the last 16.
    pub(super) fn answer(&self, id: &str, now: Now) -> Option<(i64, Version)> {
        let mut live = self.requests.iter().filter(|request| now.monotonic_ms < request.until_ms);
        live.find(|request| *request.id == *id).map(|request| (request.value, request.version))
    }

    /// As it will be after one more answer, without what is too old.
    pub(super) fn with(&self, id: &str, value: i64, now: Now) -> Self {
        let live = self.requests.iter().filter(|request| now.monotonic_ms < request.until_ms).count();
        let keep = if id.is_empty() { live } else { live.min(REMEMBERED_REQUEST_IDS - 1) };
        let mut requests = Vec::with_capacity(keep + 1);
        requests.extend_from_slice(&self.requests[self.requests.len() - keep..]);
        if !id.is_empty() {
            let until_ms = now.monotonic_ms.saturating_add(REMEMBER_REQUEST_ID_MS);
            requests.push(Request { id: id.into(), value, version: Version::NONE, until_ms });
        }
        Self { requests }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Gives the youngest answer its version, which is made only when the entry is written.
    pub(super) fn set_version(&mut self, version: Version) {
        if let Some(request) = self.requests.last_mut().filter(|request| request.version == Version::NONE) {
            request.version = version;
        }
    }

    /// What travels with the entry.
    pub(super) fn list(&self) -> Vec<RememberedRequest> {
        let travels = |request: &Request| RememberedRequest {
            id: request.id.clone(),
            value: request.value,
            version: request.version,
            until_ms: request.until_ms,
        };
        self.requests.iter().map(travels).collect()
    }

    /// What travelled, as far as it is remembered: the youngest.
    pub(super) fn of(list: &[RememberedRequest]) -> Self {
        let stays = |request: &RememberedRequest| Request {
            id: request.id.clone(),
            value: request.value,
            version: request.version,
            until_ms: request.until_ms,
        };
        let youngest = &list[list.len().saturating_sub(REMEMBERED_REQUEST_IDS)..];
        Self { requests: youngest.iter().map(stays).collect() }
    }

    pub(super) fn charge(&self) -> u64 {
        let requests = self.requests.iter().map(|request| REQUEST_BYTES + request.id.len() as u64);
        MEMORY_BYTES + requests.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic_ms: u64) -> Now {
        Now { monotonic_ms, wall_us: 0 }
    }

    #[test]
    fn a_counter_is_an_optional_minus_and_digits_that_fit_64_bits() {
        for (text, number) in [("0", 0), ("-7", -7), ("007", 7), ("9223372036854775807", i64::MAX)] {
            assert_eq!(parse(text.as_bytes()), Some(number), "{text}");
        }
        for text in ["", "-", "+5", " 5", "5 ", "5.0", "0x5", "9223372036854775808", "\u{ff15}"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(format!("{:064}", 7).as_bytes()), Some(7));
        assert_eq!(parse(format!("{:065}", 7).as_bytes()), None);
    }

    #[test]
    fn the_last_16_requests_are_answered_for_60_seconds() {
        let mut remembered = Remembered::default();
        for number in 0..20 {
            remembered = remembered.with(&format!("id-{number}"), number, at(1000));
            remembered.set_version(Version::from_u64(number.unsigned_abs() + 1));
        }
        assert_eq!(remembered.answer("id-3", at(1000)), None);
        assert_eq!(remembered.answer("id-4", at(60_999)), Some((4, Version::from_u64(5))));
        assert_eq!(remembered.answer("id-19", at(61_000)), None);
        assert!(remembered.with("", 0, at(61_000)).is_empty());
    }
}
