//! Replays the fuzz corpora, and bytes near them, on stable Rust. `cargo +nightly fuzz run <target>` looks further.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// Inputs made from each corpus; a second or two.
const MUTATIONS: u32 = 3000;

#[test]
fn the_cursor_decoder_holds_its_promises() {
    replay("cursor", targets::cursor);
}

#[test]
fn the_accounts_file_reader_holds_its_promises() {
    replay("accounts_file", targets::accounts_file);
}

#[test]
fn the_members_file_reader_holds_its_promises() {
    replay("members_file", targets::members_file);
}

#[test]
fn the_request_decoder_holds_its_promises() {
    replay("request", targets::request);
}

#[test]
fn the_peer_message_decoder_holds_its_promises() {
    replay("peer_message", targets::peer_message);
}

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    for input in &corpus {
        check(input);
    }
    let input = (any::<Index>(), prop::collection::vec((any::<Index>(), any::<u8>()), 0..4), any::<Index>());
    let config = Config { cases: MUTATIONS, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&input, |(which, changes, length)| {
        let mut bytes = which.get(&corpus).clone();
        for (place, byte) in changes.iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
        check(&bytes);
        check(&bytes[..length.index(bytes.len() + 1)]);
        Ok(())
    });
    ran.unwrap();
    // What has nothing to do with the corpus.
    let bytes = prop::collection::vec(any::<u8>(), 0..512);
    let config = Config { cases: MUTATIONS, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&bytes, |bytes| {
            check(&bytes);
            Ok(())
        })
        .unwrap();
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the corpus {} is missing", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}
