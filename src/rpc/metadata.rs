//! The names of the metadata that Larder reads and writes, and what their values mean.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::failure::Failure;
use crate::cache::limits::MAX_TOKEN_BYTES;

pub const AUTHORIZATION: &str = "authorization";
pub const GRPC_TIMEOUT: &str = "grpc-timeout";
pub const GRPC_STATUS: &str = "grpc-status";
pub const GRPC_MESSAGE: &str = "grpc-message";
pub const GRPC_STATUS_DETAILS: &str = "grpc-status-details-bin";
pub const GRPC_RETRY_PUSHBACK_MS: &str = "grpc-retry-pushback-ms";
pub const GRPC_ENCODING: &str = "grpc-encoding";
pub const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// `1`: check everything, change nothing.
pub const DRY_RUN: &str = "dry-run";
pub const TRACEPARENT: &str = "traceparent";
pub const TRACESTATE: &str = "tracestate";
/// In answers: the digest of the view that the replica has, as `topology.proto` says.
pub const TOPOLOGY: &str = "larder-topology";
/// The tutorial's error trailer.
pub const RPC_ERROR: &str = "rpc-error";

/// The longest deadline that is kept apart from none: a year. Keeps additions to a clock from overflowing.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(365 * 24);

/// Made once: a name given as text is parsed at every look-up, and this one is looked up on every call.
static TIMEOUT: HeaderName = HeaderName::from_static(GRPC_TIMEOUT);

/// Digits of a `grpc-timeout`, by the gRPC HTTP/2 protocol.
const MAX_TIMEOUT_DIGITS: usize = 8;

/// The token in `authorization: Bearer <token>`; the scheme in any case. `None` without that metadata.
///
/// # Errors
/// [`Failure::TokenMissing`] when the metadata holds something else, [`Failure::TokenUnknown`] when no token is that long.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let Some(value) = headers.get(http::header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Failure::TokenUnknown)?;
    let (scheme, token) = text.split_once(' ').ok_or(Failure::TokenMissing)?;
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Failure::TokenMissing);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Failure::TokenUnknown);
    }
    Ok(Some(token))
}

/// How long the caller will wait, from `grpc-timeout`; `None` without it; at most [`MAX_TIMEOUT`].
///
/// # Errors
/// [`Failure::Metadata`] when it is not 1 to 8 digits and one of the units H, M, S, m, u, n.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(&TIMEOUT) else { return Ok(None) };
    let malformed = Failure::metadata(GRPC_TIMEOUT, "give 1 to 8 digits and a unit: H, M, S, m, u or n");
    parse_timeout(value.as_bytes()).map(Some).ok_or(malformed)
}

fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > MAX_TIMEOUT_DIGITS {
        return None;
    }
    let mut number = 0_u64;
    for digit in digits {
        number = number * 10 + u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    let timeout = match unit {
        b'H' => Duration::from_hours(number),
        b'M' => Duration::from_mins(number),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout.min(MAX_TIMEOUT))
}

/// A `grpc-timeout` value for a duration: the finest unit that 8 digits hold, rounded down, so that nobody downstream works
/// for longer than the caller waits.
#[must_use]
pub fn timeout_value(timeout: Duration) -> HeaderValue {
    const LIMIT: u128 = 100_000_000;
    let nanos = timeout.as_nanos();
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let (count, unit) = units
        .into_iter()
        .map(|(size, unit)| (nanos / size, unit))
        .find(|(count, _)| *count < LIMIT)
        .unwrap_or((LIMIT - 1, 'H'));
    HeaderValue::from_str(&format!("{count}{unit}")).unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

/// Whether the call only asks what would happen.
///
/// # Errors
/// [`Failure::Metadata`] when the value is neither `1` (`true`) nor `0` (`false`): a caller who wanted a dry run must not get
/// a real one.
pub fn dry_run(headers: &HeaderMap) -> Result<bool, Failure> {
    let Some(value) = headers.get(DRY_RUN) else { return Ok(false) };
    match value.as_bytes() {
        b"1" | b"true" => Ok(true),
        b"0" | b"false" => Ok(false),
        _ => Err(Failure::metadata(DRY_RUN, "give 1, or leave it out")),
    }
}

#[cfg(test)]
mod tests;
