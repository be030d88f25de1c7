//! Replicas die and stop without a word while clients go on: what was theirs is lost, no more, and nothing becomes stale.

use std::time::Duration;

use larder::cache::key::{AccountId, Key};
use larder::ring::Ring;
use rustix::process::Signal;
use tokio::time::sleep;

use super::cluster::{Dev, Row, send, serves, until};
use super::load::{Clients, DEADLINE, Load, Plan, Report, name};

/// Over its deadline, what a call may take for its client's own sake.
const SLACK: Duration = Duration::from_millis(500);

/// F6: how long clients may notice that a replica is gone, beyond their own retries.
const ERROR_WINDOW: Duration = Duration::from_secs(1);

/// Whether every key that was lost was this replica's.
#[track_caller]
fn lost_only_its_share(report: &Report, rows: &[Row], victim: &Row) {
    let ring = Ring::new(rows.iter().map(|row| &row.address));
    let account = AccountId::new("demo").unwrap();
    for key in report.lost.keys() {
        let name = name(*key);
        let route = larder::cache::route::route(&account, Key::new(&name).unwrap());
        assert_eq!(ring.owner(route.as_bytes()), Some(&*victim.address), "{name} was another's: {report}");
    }
}

/// F6.
async fn kill_one_of_5(plan: Plan) {
    let dev = Dev::alone(5).await;
    let rows = dev.ring().await;
    let load = Load::start(&dev, plan).await;
    dev.ok(&["kill", "1"]).await;
    load.goes_on().await;
    let report = load.stop().await;
    report.is_no_void().read_nothing_stale().kept_deadlines(DEADLINE + SLACK);
    assert!(report.window() <= ERROR_WINDOW, "{report}");
    lost_only_its_share(&report, &rows, &rows[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_takes_its_share_along_and_nothing_else() {
    kill_one_of_5(Plan::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_shows_to_those_who_ask_the_owners_for_a_second() {
    kill_one_of_5(Plan { clients: Clients::Owners, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "full size: cargo test --release --test dev -- --ignored"]
async fn full_size_a_killed_replica_asking_the_owners() {
    kill_one_of_5(Plan { clients: Clients::Owners, ..Plan::full() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "full size: cargo test --release --test dev -- --ignored"]
async fn full_size_a_killed_replica_takes_its_share_along_and_nothing_else() {
    kill_one_of_5(Plan::full()).await;
}

/// Shorter than what others take for death: nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stops_for_a_second_loses_nothing() {
    let dev = Dev::alone(3).await;
    let rows = dev.ring().await;
    let load = Load::start(&dev, Plan::default()).await;
    stop(&rows[1], Duration::from_secs(1)).await;
    load.goes_on().await;
    let report = load.stop().await;
    report.is_no_void().lost_nothing().read_nothing_stale().kept_deadlines(DEADLINE + SLACK);
}

/// F7: others take it for dead, and it comes back empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stops_for_ten_seconds_comes_back_empty_and_says_nothing_old() {
    let dev = Dev::alone(3).await;
    let rows = dev.ring().await;
    let load = Load::start(&dev, Plan::default()).await;
    stop(&rows[1], Duration::from_secs(10)).await;
    let resumed = load.elapsed();
    until("it serves again", || dev.members().endpoints.iter().all(serves)).await;
    load.goes_on().await;
    let report = load.stop().await;
    report.is_no_void().read_nothing_stale_after(resumed + Duration::from_secs(1)).kept_deadlines(DEADLINE + SLACK);
    lost_only_its_share(&report, &rows, &rows[1]);
    assert_eq!(dev.ring().await[1].starts, 1, "the same process");
    assert!(dev.metric(1, "larder_fences_total").await > 0);
}

/// The fault itself, so it is as long as it is.
async fn stop(row: &Row, time: Duration) {
    let pid = row.pid.unwrap();
    send(pid, Signal::STOP);
    sleep(time).await;
    send(pid, Signal::CONT);
}
