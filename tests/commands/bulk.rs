//! Many entries at a time: what is loaded is dumped byte for byte, and what is not is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use larder::cache::limits::MAX_ENTRY_BYTES;

use super::support::TestServer;
use super::{Larder, about_10_minutes};

/// Every file below a directory.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                all.insert(name, fs::read(path).unwrap());
            }
        }
    }
    all
}

fn make(root: &Path, name: &str, value: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_directory_comes_back_byte_for_byte() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(from.path(), "empty", b"");
    make(from.path(), "a/b/c d/ä \"quoted\".txt", b"\x00\xff\r\n");
    make(from.path(), "large", &vec![7; 3_000_000]);
    make(from.path(), "full", &vec![8; MAX_ENTRY_BYTES - "full".len()]);
    for n in 0..300 {
        make(from.path(), &format!("many/{n}"), n.to_string().as_bytes());
    }
    let said = larder.run(&["load", text(from.path())]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("loaded 304 entries"), "{}", said.err);
    let said = larder.run(&["dump", text(to.path())]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(files(from.path()) == files(to.path()), "the directories differ");
}

#[test]
fn a_value_over_the_limit_is_named_and_is_the_only_one_missing() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(from.path(), "good", b"v");
    make(from.path(), "sub/bad", &vec![0; MAX_ENTRY_BYTES]);
    let said = larder.run(&["load", text(from.path())]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("sub/bad: key and value have 4128775 bytes together"), "{}", said.err);
    assert!(said.err.contains("not loaded: 1, of these 1 over the limit"), "{}", said.err);
    let said = larder.run(&["load", "--skip-too-large", text(from.path())]);
    assert_eq!(said.status, 0);
    assert!(said.err.contains("sub/bad: "), "{}", said.err);
    larder.ok(&["dump", text(to.path())]);
    assert_eq!(files(to.path()).into_keys().collect::<Vec<_>>(), ["good"]);
}

#[test]
fn ndjson_comes_back_with_its_times_to_live() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    let input = "{\"key\":\"t\",\"value\":\"text\",\"ttl_ms\":600000}\n{\"key\":\"b\",\"value_base64\":\"AP8=\"}\n";
    assert_eq!(larder.run_with(&["load", "-", "--prefix", "p/"], input.as_bytes()).status, 0);
    assert_eq!(larder.run(&["get", "p/b"]).out, b"\x00\xff");
    assert!(about_10_minutes(&larder.run(&["get", "p/t", "-v"]).err));
    larder.ok(&["store", "other", "v"]);
    let lines = larder.ok(&["dump", "--prefix", "p/"]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.ndjson");
    larder.ok(&["dump", text(&file)]);
    let second = TestServer::start();
    let other = Larder::of(&second);
    other.ok(&["load", text(&file)]);
    assert_eq!(other.run(&["get", "p/b"]).out, b"\x00\xff");
    assert!(about_10_minutes(&other.run(&["get", "p/t", "-v"]).err));
}

#[test]
fn a_bad_line_is_named_and_the_others_are_loaded() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    let input =
        "{\"key\":\"a\",\"value\":\"1\"}\nnonsense\n{\"key\":\"\",\"value\":\"2\"}\n{\"key\":\"b\",\"value\":\"3\"}";
    let said = larder.run_with(&["load", "-"], input.as_bytes());
    assert_eq!(said.status, 1);
    assert!(said.err.contains("line 2: it is no such object"), "{}", said.err);
    assert!(said.err.contains("the key is empty"), "{}", said.err);
    assert_eq!((larder.ok(&["get", "a"]), larder.ok(&["get", "b"])), ("1".to_owned(), "3".to_owned()));
}

#[test]
fn a_key_that_can_be_no_path_is_named() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    for key in ["../outside", "/absolute", "a//b", "good"] {
        larder.ok(&["store", key, "v"]);
    }
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("to");
    let said = larder.run(&["dump", text(&to)]);
    assert_eq!(said.status, 1);
    for key in ["../outside: ", "/absolute: ", "a//b: "] {
        assert!(said.err.contains(key), "{}", said.err);
    }
    assert_eq!(files(directory.path()).into_keys().collect::<Vec<_>>(), ["to/good"]);
}
