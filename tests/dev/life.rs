//! The processes: they come, go, die and never outlive their supervisor.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::cluster::{Dev, Row, TOKEN, larder, lives, run, send, serves, until};

/// A person waits for it; the machine of the tests may be busy.
const START: Duration = Duration::from_secs(5);

fn pids(rows: &[Row]) -> Vec<i32> {
    rows.iter().map(|row| row.pid.unwrap()).collect()
}

#[tokio::test]
async fn an_interrupt_ends_everything_in_good_order() {
    let began = Instant::now();
    let mut dev = Dev::start(3).await;
    assert!(began.elapsed() < START, "{:?}", began.elapsed());
    let rows = dev.ring().await;
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), [0, 1, 2]);
    for (number, row) in (0..).zip(&rows) {
        assert_eq!(row.address, format!("127.0.0.1:{}", dev.base_port + 10 * number));
        assert_eq!((&*row.state, row.starts), ("serving", 1));
    }
    dev.signal(Signal::INT);
    assert_eq!(dev.ended().await, Some(0), "{}", dev.log());
    assert!(pids(&rows).into_iter().all(|pid| !lives(pid)));
    assert!(!dev.members_file().exists(), "nothing is left");
    assert!(!dev.log().contains("panicked"), "{}", dev.log());
}

#[tokio::test]
async fn a_killed_supervisor_leaves_no_replica_not_even_a_stopped_one() {
    let mut dev = Dev::start(3).await;
    let pids = pids(&dev.ring().await);
    send(pids[1], Signal::STOP);
    dev.signal(Signal::KILL);
    assert_eq!(dev.ended().await, None);
    until("no replica is left", || !pids.iter().any(|pid| lives(*pid))).await;
    let said = dev.run(&["ring"]).await;
    assert!(said.status == 69 && said.err.contains("it was killed"), "{said:?}");
}

#[tokio::test]
async fn replicas_come_and_the_youngest_go() {
    let dev = Dev::start(1).await;
    assert!(dev.ok(&["scale", "3"]).await.starts_with("scaled from 1 to 3: "));
    let before = dev.ring().await;
    dev.ok(&["scale", "2"]).await;
    let after = dev.ring().await;
    assert_eq!(pids(&after), pids(&before)[..2]);
    assert!(!lives(pids(&before)[2]), "its process had ended when the command did");
    dev.ok(&["scale", "2"]).await;
    assert_eq!(pids(&dev.ring().await), pids(&after));
}

#[tokio::test]
async fn a_restart_replaces_every_replica_on_other_ports() {
    let dev = Dev::start(2).await;
    let before = dev.ring().await;
    dev.ok(&["restart"]).await;
    let after = dev.ring().await;
    assert_eq!(after.len(), 2);
    for row in &before {
        assert!(after.iter().all(|new| new.address != row.address && new.pid != row.pid), "{after:?}");
        assert!(!lives(row.pid.unwrap()));
    }
}

#[tokio::test]
async fn a_killed_replica_is_started_again_in_place() {
    let dev = Dev::start(2).await;
    let (rows, members) = (dev.ring().await, dev.members());
    dev.ok(&["kill", "1"]).await;
    let after = dev.ring().await;
    assert_eq!(after[1].address, rows[1].address);
    assert_eq!(after[1].starts, 2);
    assert_ne!(after[1].pid, rows[1].pid);
    let uids = |members: &larder::cluster::members::Members| -> Vec<String> {
        members.endpoints.iter().map(|member| member.uid.clone()).collect()
    };
    assert_eq!(uids(&dev.members()), uids(&members));
}

#[tokio::test]
async fn a_replica_that_dies_by_itself_is_started_again_and_that_is_said() {
    let dev = Dev::start(2).await;
    let pid = dev.ring().await[0].pid.unwrap();
    send(pid, Signal::ABORT);
    until("it is said", || dev.log().contains("replica 0 ended by itself, with signal 6")).await;
    until("it serves again", || dev.members().endpoints.iter().all(serves)).await;
    assert_ne!(dev.ring().await[0].pid, Some(pid));
}

#[tokio::test]
async fn a_base_port_has_one_cluster_and_commands_find_it() {
    let dev = Dev::start(1).await;
    let port = dev.base_port.to_string();
    let said = run(dev.runtime(), &["dev", "--base-port", &port]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.err.contains(&format!("runs already, as process {}", dev.pid)), "{said:?}");
    // Somebody else's, in another directory, or no Larder at all: the ports are taken.
    let elsewhere = tempfile::tempdir().unwrap();
    let said = run(elsewhere.path(), &["dev", "--base-port", &port]).await;
    assert!(said.status == 1 && said.err.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said:?}");
    let said = run(elsewhere.path(), &["dev", "ring", "--base-port", &port]).await;
    assert!(said.status == 69 && said.err.contains("no `larder dev` with base port"), "{said:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_meanwhile_is_passed_over() {
    let dev = Dev::start(1).await;
    let _taken = TcpListener::bind(("127.0.0.1", dev.base_port + 12)).unwrap();
    dev.ok(&["scale", "2"]).await;
    assert_eq!(dev.ring().await[1].number, 2);
}

#[tokio::test]
async fn every_replica_stores_and_gets_the_same_keys() {
    let dev = Dev::start(3).await;
    for (row, value) in dev.ring().await.iter().zip(["a", "b", "c"]) {
        let target = ["--target", &row.address, "--token", TOKEN];
        let said = run(dev.runtime(), &[&["store", "greeting", value][..], &target].concat()).await;
        assert_eq!(said.status, 0, "{said:?}\n{}", dev.log());
        for other in dev.ring().await {
            let target = ["--target", &other.address, "--token", TOKEN];
            let said = run(dev.runtime(), &[&["get", "greeting"][..], &target].concat()).await;
            assert_eq!(said.out.trim_end(), value, "{said:?}\n{}", dev.log());
        }
    }
}

#[tokio::test]
async fn a_reader_of_the_greeting_that_goes_away_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready.json");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = larder(directory.path())
        .args(["dev", "--base-port=0", "--replicas=1", "--capacity=16MiB", "--ready-file"])
        .arg(&ready)
        .stdout(writer)
        .spawn()
        .unwrap();
    until("it serves", || ready.exists()).await;
    send(i32::try_from(child.id().unwrap()).unwrap(), Signal::TERM);
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    assert!(!ready.exists());
}
