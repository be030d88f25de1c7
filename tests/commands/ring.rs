//! `larder ring` says what the frozen placement says.

use std::collections::BTreeMap;

use super::Larder;
use super::support::TestServer;

const PLACEMENT: &str = include_str!("../fixtures/placement_v1.csv");

#[test]
fn every_frozen_placement_is_printed_as_it_is() {
    let mut by_members: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for line in PLACEMENT.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        by_members.entry(fields[0]).or_default().push(fields);
    }
    for (members, rows) in by_members {
        let addresses: Vec<String> = match members.strip_prefix("ipv6-") {
            Some(count) => (1..=count.parse().unwrap()).map(|n: u16| format!("[fd00::{n:x}]:5051")).collect(),
            None => (1..=members.parse().unwrap()).map(|n: u16| format!("10.0.0.{n}:5051")).collect(),
        };
        let routes: String = rows.iter().map(|row| format!("{}\n", row[3])).collect();
        let said =
            Larder::at("127.0.0.1:1").run_with(&["ring", "--members", &addresses.join(","), "-"], routes.as_bytes());
        assert_eq!(said.status, 0, "{}", said.err);
        let successor = |row: &Vec<&str>| if row[6].is_empty() { "-".to_owned() } else { row[6].to_owned() };
        let expected: String =
            rows.iter().map(|row| format!("{}\t{}\t{}\t{}\n", row[3], row[4], row[5], successor(row))).collect();
        assert_eq!(String::from_utf8(said.out).unwrap(), expected, "{members} members");
    }
}

#[test]
fn a_server_that_is_alone_says_so() {
    let server = TestServer::start();
    let said = Larder::of(&server).ok(&["ring"]);
    assert!(said.starts_with("account one, ") && said.contains("alone"), "{said}");
    assert_eq!(Larder::of(&server).ok(&["ring", "k", "ä"]).lines().count(), 2);
}

#[test]
fn members_alone_are_no_question() {
    let said = Larder::at("127.0.0.1:1").run(&["ring", "--members", "10.0.0.1:1"]);
    assert_eq!(said.status, 64, "{}", said.err);
}

#[test]
fn a_member_that_is_no_address_is_named() {
    let said = Larder::at("127.0.0.1:1").run(&["ring", "--members", "10.0.0.1:1,here", "a/b"]);
    assert_eq!(said.status, 64);
    assert!(said.err.contains("here"), "{}", said.err);
}
