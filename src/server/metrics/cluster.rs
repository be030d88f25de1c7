//! Metrics of this replica's part in the cluster; none when it is alone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::family::{Families, Kind};
use super::render::{counter, float_counter, float_gauge, gauge, single_counter, single_gauge};
use crate::server::handoff::page::share;
use crate::server::handoff::{Handoff, Status};

pub(super) fn encode(families: &mut Families, handoff: Option<&Handoff>) {
    let Some(handoff) = handoff else { return };
    if let Some(status) = handoff.status() {
        members(families, &status);
        standing(families, &status);
    }
    let help = "Time since the view of the members changed";
    float_gauge(families, "larder_view_age_seconds", help, handoff.view_age().as_secs_f64());
    let help = "Operations and quota leases that wait for the hand-off";
    single_gauge(families, "larder_handoff_waiting_operations", help, handoff.tickets() as u64);
    counters(families, handoff);
    forwards(families, handoff);
    leases(families, handoff);
}

fn members(families: &mut Families, status: &Status) {
    let snapshot = &status.snapshot;
    let help = "Members of the cluster, by state: `present` may hold keys, `ring` own some";
    let family = families.add("larder_members", help, Kind::Gauge);
    gauge(family, &[("state", "present")], snapshot.present().count() as u64);
    gauge(family, &[("state", "ring")], snapshot.ring().members().len() as u64);
    let help = "The part of all hashes that this replica owns";
    float_gauge(families, "larder_ring_share", help, share(snapshot, &status.me));
    let help = "Time since the source of members said anything";
    float_gauge(families, "larder_source_age_seconds", help, status.source_age.as_secs_f64());
    let help = "1 while something that the source of members says is not believed yet";
    single_gauge(families, "larder_source_held_back", help, u64::from(status.held_back));
}

fn standing(families: &mut Families, status: &Status) {
    let help = "Arcs of the ring that this replica owns and has not settled, by how far they are";
    let family = families.add("larder_handoff_arcs", help, Kind::Gauge);
    gauge(family, &[("phase", "gaining")], status.gaining as u64);
    gauge(family, &[("phase", "held")], status.held as u64);
    let help = "Members that have not cleared this replica for what it gains";
    single_gauge(families, "larder_handoff_awaited", help, status.waiting as u64);
    let help = "Members that hold keys for this replica";
    single_gauge(families, "larder_handoff_sources", help, status.sources as u64);
    let help = "1 while no hand-off is under way here";
    single_gauge(families, "larder_handoff_settled", help, u64::from(status.settled));
}

fn counters(families: &mut Families, handoff: &Handoff) {
    let its = handoff.figures();
    let rows: [(&str, &str, &AtomicU64); 16] = [
        ("larder_view_changes", "Times the view of the members changed", &its.views),
        ("larder_handoff_gains", "Times that everybody had cleared what this replica gained", &its.gains),
        ("larder_handoff_settles", "Hand-offs that came to their end here", &its.settles),
        ("larder_handoff_claims", "Claims sent", &its.claims),
        ("larder_handoff_fetches", "Fetches of touched keys sent", &its.fetches),
        ("larder_handoff_pulls", "Pages asked for", &its.pulls),
        ("larder_handoff_stale", "Answers that spoke of another view", &its.stale),
        ("larder_handoff_pages_in", "Pages that came", &its.pages_in),
        ("larder_handoff_pages_out", "Pages sent", &its.pages_out),
        ("larder_handoff_keys_in", "Copies of keys that came; a repeated message counts again", &its.keys_in),
        ("larder_handoff_keys_out", "Copies of keys sent; a repeated message counts again", &its.keys_out),
        ("larder_handoff_bytes_in", "Bytes of keys and values that came", &its.bytes_in),
        ("larder_handoff_bytes_out", "Bytes of keys and values sent", &its.bytes_out),
        ("larder_fences", "Times this replica stood still or was taken for lost, and started again empty", &its.fences),
        ("larder_members_lost", "Members that were lost, and with them what only they held", &its.lost),
        ("larder_exit_dropped_keys", "Keys that nobody took over when this replica ended", &its.dropped),
    ];
    let help = "Time from view changes until everybody had cleared what this replica gained, all together";
    float_counter(families, "larder_handoff_gain_seconds", help, seconds(&its.gain_us));
    let help = "Time from view changes until nothing of their hand-off was left here, all together";
    float_counter(families, "larder_handoff_settle_seconds", help, seconds(&its.settle_us));
    for (name, help, value) in rows {
        single_counter(families, name, help, value.load(Relaxed));
    }
}

fn seconds(us: &AtomicU64) -> f64 {
    Duration::from_micros(us.load(Relaxed)).as_secs_f64()
}

fn forwards(families: &mut Families, handoff: &Handoff) {
    let its = &handoff.figures().forwards;
    let help =
        "Operations forwarded to their owners, by what became of them; and `received`, carried out here for others";
    let family = families.add("larder_forwards", help, Kind::Counter);
    let outcomes = [
        ("answered", &its.sent),
        ("moved", &its.moved),
        ("refused", &its.refused),
        ("unknown", &its.unknown),
        ("received", &its.received),
    ];
    for (outcome, count) in outcomes {
        counter(family, &[("outcome", outcome)], count.load(Relaxed));
    }
}

fn leases(families: &mut Families, handoff: &Handoff) {
    let its = &handoff.figures().leases;
    let help = "Asks for room in an account's quota at its home, by what became of them; refused: the account is full";
    let family = families.add("larder_quota_leases", help, Kind::Counter);
    for (outcome, count) in [("granted", &its.granted), ("refused", &its.refused), ("failed", &its.failed)] {
        counter(family, &[("outcome", outcome)], count.load(Relaxed));
    }
}
