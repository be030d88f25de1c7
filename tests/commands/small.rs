//! One key at a time.

use std::process::Command;

use super::support::{READ_ONLY, TestServer};
use super::{Larder, about_10_minutes};

#[test]
fn a_value_comes_back_as_it_was_stored() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    let version: u64 = larder.ok(&["store", "k", "v"]).trim().parse().unwrap();
    assert!(version > 0);
    assert_eq!(larder.ok(&["get", "k"]), "v");
    let binary = b"\x00\xff\n";
    assert_eq!(larder.run_with(&["store", "bin", "-"], binary).status, 0);
    assert_eq!(larder.run(&["get", "bin"]).out, binary);
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    std::fs::write(&from, binary).unwrap();
    larder.ok(&["store", "file", "--file", from.to_str().unwrap()]);
    larder.ok(&["get", "file", "--output", to.to_str().unwrap()]);
    assert_eq!(std::fs::read(to).unwrap(), binary);
}

#[test]
fn a_missing_key_ends_with_1_and_a_sentence() {
    let server = TestServer::start();
    let said = Larder::of(&server).run(&["get", "nothing"]);
    assert_eq!((said.status, said.out.as_slice()), (1, b"".as_slice()));
    assert_eq!(said.err, "larder: the key `nothing` has no value\n");
}

#[test]
fn a_store_obeys_its_condition() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    assert_eq!(larder.run(&["store", "k", "1", "--if-present"]).status, 1);
    let version = larder.ok(&["store", "k", "1", "--if-absent"]);
    assert_eq!(larder.run(&["store", "k", "2", "--if-absent"]).status, 1);
    larder.ok(&["store", "k", "3", "--if-version", version.trim()]);
    let said = larder.run(&["store", "k", "4", "--if-version", version.trim()]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("not the expected one"), "{}", said.err);
    assert_eq!(larder.ok(&["get", "k"]), "3");
}

#[test]
fn a_delete_says_whether_there_was_a_value() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    larder.ok(&["store", "k", "v"]);
    assert_eq!(larder.ok(&["delete", "k"]), "deleted\n");
    assert_eq!(larder.ok(&["delete", "k"]), "there was no value\n");
}

#[test]
fn a_time_to_live_is_given_and_changed() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    larder.ok(&["store", "k", "v", "--ttl", "10m"]);
    assert!(about_10_minutes(&larder.run(&["get", "k", "--verbose"]).err));
    let touched = larder.ok(&["touch", "k", "--ttl", "5m", "--extend-only"]);
    assert!(touched.starts_with("unchanged") && about_10_minutes(&touched), "{touched}");
    assert!(larder.ok(&["touch", "k", "--ttl", "1h"]).starts_with("changed: expires in "));
    assert_eq!(larder.ok(&["touch", "k"]), "changed: does not expire\n");
}

#[test]
fn a_counter_counts_and_a_repeated_request_does_not() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    assert_eq!(larder.ok(&["incr", "n"]), "1\n");
    assert_eq!(larder.ok(&["incr", "n", "-5", "--request-id", "a"]), "-4\n");
    assert_eq!(larder.ok(&["incr", "n", "-5", "--request-id", "a"]), "-4\n");
    assert_eq!(larder.ok(&["get", "n"]), "-4");
}

#[test]
fn a_dry_run_changes_nothing() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    assert_eq!(larder.ok(&["store", "k", "v", "--dry-run"]), "0\n");
    assert_eq!(larder.run(&["get", "k"]).status, 1);
}

#[test]
fn health_needs_no_token_and_stats_say_whose_they_are() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    assert_eq!(Larder::of(&server).with("LARDER_TOKEN", "").ok(&["health"]), "SERVING\n");
    larder.ok(&["store", "k", "value"]);
    let stats = larder.ok(&["stats"]);
    let line = |name: &str| stats.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("account").ends_with(" one"), "{stats}");
    assert!(line("keys").contains(" 1, no limit"), "{stats}");
    assert!(line("bytes").contains(" 6 (6 B)"), "{stats}");
}

#[test]
fn health_of_several_is_said_of_each() {
    let mut builder = TestServer::builder();
    builder.serving = false;
    let (serves, starts) = (TestServer::start(), builder.start());
    let said = Larder::at(format!("{},{}", serves.address, starts.address)).run(&["health"]);
    let out = String::from_utf8(said.out).unwrap();
    assert_eq!(out, format!("{}\tSERVING\n{}\tNOT_SERVING\n", serves.address, starts.address));
    assert_eq!((said.status, said.err.as_str()), (69, "larder: 1 of 2 do not serve\n"));
}

#[test]
fn stats_show_each_replica_and_go_on_for_whoever_watches() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    larder.ok(&["store", "k", "value"]);
    let stats = larder.ok(&["stats"]);
    let row = stats.lines().last().unwrap();
    assert!(row.starts_with("alone") && row.contains(" serving ") && row.contains("100.0 %"), "{stats}");
    let json: serde_json::Value = serde_json::from_str(&larder.ok(&["stats", "--json"])).unwrap();
    assert_eq!(
        (&json["account"], &json["keys"], &json["members"][0]["entries"]),
        (&"one".into(), &1.into(), &1.into())
    );
    let said = larder.run(&["stats", "--watch=1ms"]);
    assert!(said.status == 64 && said.err.contains("100ms or more"), "{}", said.err);
}

#[test]
fn a_server_that_starts_is_not_healthy() {
    let mut builder = TestServer::builder();
    builder.serving = false;
    let said = Larder::of(&builder.start()).run(&["health"]);
    assert_eq!(said.status, 69, "{}", said.err);
    assert!(said.err.contains("NOT_SERVING"), "{}", said.err);
}

#[test]
fn a_token_may_come_from_a_file() {
    let server = TestServer::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{READ_ONLY}\n")).unwrap();
    let larder = Larder::of(&server).with("LARDER_TOKEN_FILE", file.path().display());
    let said = larder.run(&["store", "k", "v"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("may only read"), "{}", said.err);
}

#[test]
fn the_configuration_in_force_is_an_environment_file() {
    let larder = Larder::at("127.0.0.1:1");
    let printed = larder.ok(&["serve", "--print-config", "--accounts", "a.json", "--capacity", "64MiB"]);
    assert!(printed.contains("\n# LARDER_TLS_CERT=\n"), "{printed}");
    let mut again = Command::new(env!("CARGO_BIN_EXE_larder"));
    let settings = printed.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('=').unwrap());
    let output = again.args(["serve", "--print-config"]).env_clear().envs(settings).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), printed);
}
