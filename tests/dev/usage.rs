//! A mistake gets a sentence that says what to do, and an exit status of its own.

use super::cluster::{Dev, run};

#[tokio::test]
async fn a_wrong_command_line_ends_with_64() {
    let runtime = tempfile::tempdir().unwrap();
    let table: &[(&[&str], &str)] = &[
        (&["--replicas", "0"], "1..=32"),
        (&["--replicas", "33"], "1..=32"),
        (&["--base-port", "65535"], "--base-port"),
        (&["--base-port", "65530", "--replicas", "2"], "--base-port"),
        (&["--log", "inof"], "--log"),
        (&["--capacity", "much"], "--capacity"),
        (&["--replicas", "2", "scale", "3"], "cannot be used with"),
        (&["scale"], "<N>"),
        (&["scale", "-1"], "-1"),
        (&["scale", "33"], "0..=32"),
        (&["scale", "3", "--timeout", "5"], "a number and a unit"),
        (&["kill"], "<K>"),
        (&["kill", "first"], "first"),
        (&["restart", "2"], "2"),
        (&["status"], "status"),
    ];
    for (arguments, wanted) in table {
        let said = run(runtime.path(), &[&["dev"], *arguments].concat()).await;
        assert_eq!(said.status, 64, "{arguments:?}: {said:?}");
        assert!(said.err.contains(wanted), "{arguments:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_command_says_what_is_wrong_and_ends_with_1() {
    let dev = Dev::start(1).await;
    let table: &[(&[&str], &str)] = &[
        (&["kill", "7"], "there is no replica 7, but replica 0 at 127.0.0.1:"),
        (&["scale", "2", "--timeout", "1ms"], "not done within 1ms: replica 1 is "),
    ];
    for (arguments, wanted) in table {
        let said = dev.run(arguments).await;
        assert_eq!(said.status, 1, "{arguments:?}: {said:?}");
        assert!(said.err.contains(wanted), "{arguments:?}: {said:?}");
    }
    // What came too late for its command is there all the same.
    dev.ok(&["scale", "2"]).await;
    assert_eq!(dev.ring().await.len(), 2);
}

#[tokio::test]
async fn a_command_to_nobody_ends_with_69() {
    let runtime = tempfile::tempdir().unwrap();
    for arguments in [&["scale", "3"][..], &["restart"], &["kill", "0"], &["ring"]] {
        let said = run(runtime.path(), &[&["dev"], arguments].concat()).await;
        assert_eq!(said.status, 69, "{arguments:?}: {said:?}");
        assert!(said.err.contains("no `larder dev` with base port 7070 runs"), "{said:?}");
    }
}
