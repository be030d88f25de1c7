use std::sync::Arc;

use super::*;

fn endpoint(fields: &str) -> String {
    format!(
        r#"{{"version": 1, "endpoints": [{{"address": "10.0.0.1:7070", "peer": "10.0.0.1:7071", "uid": "a"{fields}}}]}}"#
    )
}

fn parse(text: &str) -> Result<View, MembersError> {
    Members::parse(text.as_bytes())?.view()
}

#[test]
fn what_is_left_out_means_ready_and_serving_as_ready_and_not_terminating() {
    for (fields, serves) in [
        ("", true),
        (r#", "ready": false"#, false),
        (r#", "ready": false, "serving": true"#, true),
        (r#", "serving": false"#, false),
        (r#", "terminating": true"#, false),
        (r#", "terminating": false, "serving": null"#, true),
    ] {
        let view = parse(&endpoint(fields)).unwrap();
        let endpoints = view.endpoints();
        assert_eq!(endpoints.values().map(|endpoint| endpoint.serves).collect::<Vec<_>>(), [serves], "{fields}");
    }
}

#[test]
fn a_bad_file_is_an_error_that_says_what_is_wrong() {
    let one = |address: &str, peer: &str, uid: &str| {
        format!(r#"{{"version": 1, "endpoints": [{{"address": "{address}", "peer": "{peer}", "uid": "{uid}"}}]}}"#)
    };
    let a = r#"{"address": "10.0.0.1:7070", "peer": "10.0.0.1:7071", "uid": "a"}"#;
    for (text, says) in [
        (String::new(), "no JSON"),
        (r#"{"version": 1, "endpoints": [{"address""#.to_owned(), "no JSON"),
        ("[]".to_owned(), "no JSON"),
        (r#"{"endpoints": []}"#.to_owned(), "version"),
        (r#"{"version": -1, "endpoints": []}"#.to_owned(), "no JSON"),
        (r#"{"version": 0, "endpoints": []}"#.to_owned(), "begin with 1"),
        (r#"{"version": 1, "endpoints": [], "x": 1}"#.to_owned(), "unknown field `x`"),
        (endpoint(r#", "terminatin": true"#), "unknown field `terminatin`"),
        (format!(r#"{{"version": 1, "endpoints": [{a}, {a}]}}"#), "two endpoints with the uid \"a\""),
        (one("localhost:7070", "10.0.0.1:7071", "a"), "the `address` of \"a\" is \"localhost:7070\""),
        (one("10.0.0.1", "10.0.0.1:7071", "a"), "the `address`"),
        (one("10.0.0.1:0", "10.0.0.1:7071", "a"), "the `address`"),
        (one("0.0.0.0:7070", "10.0.0.1:7071", "a"), "the `address`"),
        (one("fd00::1:7070", "10.0.0.1:7071", "a"), "the `address`"),
        (one("10.0.0.1:7070", "", "a"), "the `peer`"),
        (one("10.0.0.1:7070", "10.0.0.1:7071", ""), "no usable uid"),
        (one("10.0.0.1:7070", "10.0.0.1:7071", &"u".repeat(MAX_UID_BYTES + 1)), "no usable uid"),
        (" ".repeat(MAX_FILE_BYTES + 1), "over 4194304 bytes"),
    ] {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(says), "{text:.100}: {error}");
    }
}

#[test]
fn more_endpoints_than_a_ring_has_entries_are_refused() {
    let member = |number: usize| Member {
        address: "10.0.0.1:7070".into(),
        peer: "10.0.0.1:7071".into(),
        uid: number.to_string(),
        ..Member::default()
    };
    let members = |count| Members { version: 1, endpoints: (0..count).map(member).collect() };
    assert_eq!(members(MAX_ENDPOINTS).view().unwrap().endpoints().len(), MAX_ENDPOINTS);
    assert!(matches!(members(MAX_ENDPOINTS + 1).view(), Err(MembersError::TooMany(_))));
}

#[test]
fn an_address_is_placed_in_its_one_form() {
    let view = parse(
        r#"{"version": 1, "endpoints": [{"address": "[FD00:0::1]:7070", "peer": "[fd00::1]:7071", "uid": "a"}]}"#,
    );
    let address = view.unwrap().endpoints().values().map(|endpoint| endpoint.address.clone()).next();
    assert_eq!(address, Some(Arc::from("[fd00::1]:7070")));
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("members.json");
    for version in [1, 2] {
        let mut members = Members::parse(endpoint("").as_bytes()).unwrap();
        members.version = version;
        members.write(&path).unwrap();
        assert_eq!(Members::parse(&std::fs::read(&path).unwrap()).unwrap(), members);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left there");
}
