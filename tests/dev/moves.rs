//! Replicas come, go and are replaced in good order while clients go on: nothing fails, is lost or is stale.

use std::time::Duration;

use super::cluster::Dev;
use super::load::{Clients, Load, Plan, Report};

/// What is promised of every change that is no fault.
#[track_caller]
fn nothing_happened(report: &Report) {
    report.is_no_void().failed_nothing().lost_nothing().read_nothing_stale();
}

/// F1.
async fn scale_3_to_5_to_2(plan: Plan) {
    let dev = Dev::alone(3).await;
    let load = Load::start(&dev, plan).await;
    dev.ok(&["scale", "5"]).await;
    load.goes_on().await;
    // Three at once.
    dev.ok(&["scale", "2"]).await;
    nothing_happened(&load.stop().await);
    assert_eq!(dev.ring().await.len(), 2);
}

/// F3.
async fn restart(times: u32, plan: Plan) {
    let dev = Dev::alone(3).await;
    let load = Load::start(&dev, plan).await;
    for _ in 0..times {
        dev.ok(&["restart"]).await;
        load.goes_on().await;
    }
    nothing_happened(&load.stop().await);
}

/// F4.
async fn scale_1_to_10_while_writing(plan: Plan) {
    let dev = Dev::alone(1).await;
    let load = Load::start(&dev, Plan { stores: 1.0, ..plan }).await;
    dev.ok(&["scale", "10"]).await;
    // Nine views one after the other, each of which voids the claims of the one before: calls may wait for the last one.
    load.stop().await.is_no_void().lost_nothing().read_nothing_stale();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_3_to_5_to_2_shows_to_nobody_who_asks_any_replica() {
    scale_3_to_5_to_2(Plan::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_3_to_5_to_2_shows_to_nobody_who_asks_one_replica() {
    scale_3_to_5_to_2(Plan { clients: Clients::One, ..Plan::default() }).await;
}

/// The library's own retries are all there are.
fn owners(plan: Plan) -> Plan {
    Plan { clients: Clients::Owners, ..plan }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_3_to_5_to_2_shows_to_nobody_who_asks_the_owners() {
    scale_3_to_5_to_2(owners(Plan::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_show_to_nobody_who_asks_the_owners() {
    restart(2, owners(Plan::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_rolling_restarts_show_to_nobody() {
    restart(3, Plan::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_1_to_10_while_writing_loses_nothing() {
    scale_1_to_10_while_writing(Plan::default()).await;
}

/// F15: an old idea of who there is costs a retry at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_old_views_find_every_key() {
    let dev = Dev::alone(3).await;
    let load = Load::start(&dev, Plan { clients: Clients::Late(Duration::from_secs(10)), ..Plan::default() }).await;
    dev.ok(&["scale", "5"]).await;
    load.goes_on().await;
    dev.ok(&["scale", "3"]).await;
    nothing_happened(&load.stop().await);
}

mod full_size {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "full size: cargo test --release --test dev -- --ignored"]
    async fn scaling_3_to_5_to_2() {
        scale_3_to_5_to_2(Plan::full()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "full size: cargo test --release --test dev -- --ignored"]
    async fn scaling_3_to_5_to_2_asking_one() {
        scale_3_to_5_to_2(Plan { clients: Clients::One, ..Plan::full() }).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "full size: cargo test --release --test dev -- --ignored"]
    async fn ten_rolling_restarts() {
        restart(10, Plan::full()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "full size: cargo test --release --test dev -- --ignored"]
    async fn scaling_3_to_5_to_2_asking_the_owners() {
        scale_3_to_5_to_2(owners(Plan::full())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "full size: cargo test --release --test dev -- --ignored"]
    async fn ten_rolling_restarts_asking_the_owners() {
        restart(10, owners(Plan::full())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "full size: cargo test --release --test dev -- --ignored"]
    async fn scaling_1_to_10() {
        scale_1_to_10_while_writing(Plan::full()).await;
    }
}
