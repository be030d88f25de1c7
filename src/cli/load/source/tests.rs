use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use super::*;

/// What is found below a directory: the name, and the size or the complaint.
fn found(root: &Path) -> BTreeMap<String, Result<u64, String>> {
    let root = root.canonicalize().unwrap();
    let mut all = BTreeMap::new();
    let _ = walk(&root, fs::read_dir(&root).unwrap(), &mut |found| {
        let (name, outcome) = match found {
            Found::Entry { key, content, .. } => (key, Ok(content.len() as u64)),
            Found::Bad { name, why } => (name, Err(why)),
            Found::Broken(why) => panic!("{why}"),
        };
        assert!(all.insert(name, outcome).is_none(), "a file was found twice");
        ControlFlow::Continue(())
    });
    all
}

#[test]
fn every_file_is_found_under_its_path() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/b c")).unwrap();
    fs::write(root.path().join("a/b c/ä.txt"), "four").unwrap();
    fs::write(root.path().join("empty"), "").unwrap();
    let wanted = BTreeMap::from([("a/b c/ä.txt".to_owned(), Ok(4)), ("empty".to_owned(), Ok(0))]);
    assert_eq!(found(root.path()), wanted);
}

#[test]
fn a_link_is_followed_to_a_file_inside_and_reported_otherwise() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(root.path().join("dir")).unwrap();
    fs::write(root.path().join("dir/file"), "x").unwrap();
    fs::write(outside.path().join("secret"), "y").unwrap();
    symlink("dir/file", root.path().join("inside")).unwrap();
    symlink(outside.path().join("secret"), root.path().join("out")).unwrap();
    symlink("dir", root.path().join("loop")).unwrap();
    symlink("nowhere", root.path().join("broken")).unwrap();
    let found = found(root.path());
    assert_eq!(found["inside"], Ok(1));
    assert!(found["out"].as_ref().unwrap_err().contains("leads out"));
    assert!(found["loop"].as_ref().unwrap_err().contains("where they are"));
    assert!(found["broken"].as_ref().unwrap_err().contains("nowhere"));
    assert_eq!(found.len(), 5);
}

#[test]
fn a_name_that_is_not_utf8_is_reported() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(OsStr::from_bytes(b"bad\xff")), "x").unwrap();
    let found = found(root.path());
    assert!(found["bad\u{fffd}"].as_ref().unwrap_err().contains("not UTF-8"));
}

#[test]
fn a_bad_line_is_named_by_its_number_and_the_others_are_read() {
    let mut input = "{\"key\":\"a\",\"value\":\"1\"}\n\nnonsense\n{\"key\":\"b\",\"value\":\"2\"}".as_bytes();
    let mut all = Vec::new();
    let _ = read_lines(&mut input, &mut |found| {
        all.push(match found {
            Found::Entry { key, .. } => key,
            Found::Bad { name, .. } => name,
            Found::Broken(why) => why,
        });
        ControlFlow::Continue(())
    });
    assert_eq!(all, ["a", "line 3", "b"]);
}
