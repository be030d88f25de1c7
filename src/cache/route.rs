//! Where a key lies on the ring: the hash of its route.
//!
//! The *route* is `<account id>/<key>`, the key percent-encoded outside 0x20..=0x7E and for `%`, so that it can travel in a
//! header; its XXH64 with seed 0 is what stock `ring_hash` clients compute. The hash is public and can be aimed at, so tables
//! must not probe by it; it only says which shard and which bucket of it holds a key, and in which order a dump lists them.

use xxhash_rust::xxh64::{Xxh64, xxh64};

use super::key::{AccountId, Key};

/// Bytes of a route up to which it is hashed in one piece on the stack: faster than piecewise, and nearly every key.
const ON_STACK_BYTES: usize = 256;

/// XXH64 (seed 0) of the route of `key` in the key space of `account`.
#[must_use]
pub fn route_hash(account: &AccountId, key: Key<'_>) -> u64 {
    hash_bytes(account.as_str().as_bytes(), key.as_bytes())
}

/// XXH64 (seed 0) of the route `<account id>/`, which no key has: where the account's home lies, which leases its quota.
#[must_use]
pub fn home_hash(account: &AccountId) -> u64 {
    hash_bytes(account.as_str().as_bytes(), b"")
}

/// As [`route_hash`], for a key that was checked when it was stored.
pub(super) fn hash_bytes(account: &[u8], key: &[u8]) -> u64 {
    // Not `all`, which looks at one byte after the other to stop at the first.
    let plain = key.iter().fold(true, |plain, &byte| plain & is_plain(byte));
    let length = account.len() + 1 + key.len();
    if plain && length <= ON_STACK_BYTES {
        let mut route = [0; ON_STACK_BYTES];
        route[..account.len()].copy_from_slice(account);
        route[account.len()] = b'/';
        route[account.len() + 1..length].copy_from_slice(key);
        return xxh64(&route[..length], 0);
    }
    let mut hasher = Xxh64::new(0);
    hasher.update(account);
    hasher.update(b"/");
    if plain {
        hasher.update(key);
    } else {
        for &byte in key {
            if is_plain(byte) {
                hasher.update(&[byte]);
            } else {
                hasher.update(&[b'%', hex(byte >> 4), hex(byte & 15)]);
            }
        }
    }
    hasher.digest()
}

/// The route itself, as a header carries it: what [`route_hash`] hashes.
#[must_use]
pub fn route(account: &AccountId, key: Key<'_>) -> String {
    let mut route = String::with_capacity(account.as_str().len() + 1 + key.as_bytes().len());
    route.push_str(account.as_str());
    route.push('/');
    for &byte in key.as_bytes() {
        if is_plain(byte) {
            route.push(char::from(byte));
        } else {
            route.extend(['%', char::from(hex(byte >> 4)), char::from(hex(byte & 15))]);
        }
    }
    route
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7E) && byte != b'%'
}

fn hex(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'A' + digit - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(account: &str, key: &str) -> u64 {
        route_hash(&AccountId::new(account).unwrap(), Key::new(key).unwrap())
    }

    #[test]
    fn a_route_is_account_slash_key() {
        assert_eq!(hash("team-7", "a key/with~signs"), xxh64(b"team-7/a key/with~signs", 0));
        let long = "k".repeat(4096);
        assert_eq!(hash("a", &long), xxh64(format!("a/{long}").as_bytes(), 0));
    }

    #[test]
    fn bytes_that_no_header_takes_are_percent_encoded() {
        assert_eq!(hash("a", "50%\n\u{e4}\u{7f}"), xxh64(b"a/50%25%0A%C3%A4%7F", 0));
    }

    #[test]
    fn the_route_that_is_sent_is_the_route_that_is_hashed() {
        for key in ["plain", "a key/with~signs", "50%\n\u{e4}\u{7f}", &"\u{4f60}".repeat(1000)] {
            let (account, key) = (AccountId::new("team-7").unwrap(), Key::new(key).unwrap());
            assert_eq!(xxh64(route(&account, key).as_bytes(), 0), route_hash(&account, key));
        }
    }
}
