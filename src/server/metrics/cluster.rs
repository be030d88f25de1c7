//! Metrics of this replica's part in the cluster; none when it is alone.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::render::{counter, float_counter, float_gauge, gauge, single_counter, single_gauge};
use crate::server::handoff::page::share;
use crate::server::handoff::{Handoff, Status};

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, handoff: Option<&Handoff>) -> fmt::Result {
    let Some(handoff) = handoff else { return Ok(()) };
    if let Some(status) = handoff.status() {
        members(encoder, &status)?;
        standing(encoder, &status)?;
    }
    let help = "Time since the view of the members changed";
    float_gauge(encoder, "larder_view_age_seconds", help, handoff.view_age().as_secs_f64())?;
    let help = "Operations and quota leases that wait for the hand-off";
    single_gauge(encoder, "larder_handoff_waiting_operations", help, handoff.tickets() as u64)?;
    counters(encoder, handoff)?;
    forwards(encoder, handoff)
}

fn members(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let snapshot = &status.snapshot;
    let help = "Members of the cluster, by state: `present` may hold keys, `ring` own some";
    let mut family = encoder.encode_descriptor("larder_members", help, None, MetricType::Gauge)?;
    gauge(&mut family, &[("state", "present")], snapshot.present().count() as u64)?;
    gauge(&mut family, &[("state", "ring")], snapshot.ring().members().len() as u64)?;
    let help = "The part of all hashes that this replica owns";
    float_gauge(encoder, "larder_ring_share", help, share(snapshot, &status.me))?;
    let help = "Time since the source of members said anything";
    float_gauge(encoder, "larder_source_age_seconds", help, status.source_age.as_secs_f64())?;
    let help = "1 while something that the source of members says is not believed yet";
    single_gauge(encoder, "larder_source_held_back", help, u64::from(status.held_back))
}

fn standing(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let help = "Arcs of the ring that this replica owns and has not settled, by how far they are";
    let mut family = encoder.encode_descriptor("larder_handoff_arcs", help, None, MetricType::Gauge)?;
    gauge(&mut family, &[("phase", "gaining")], status.gaining as u64)?;
    gauge(&mut family, &[("phase", "held")], status.held as u64)?;
    let help = "Members that have not cleared this replica for what it gains";
    single_gauge(encoder, "larder_handoff_awaited", help, status.waiting as u64)?;
    let help = "Members that hold keys for this replica";
    single_gauge(encoder, "larder_handoff_sources", help, status.sources as u64)?;
    let help = "1 while no hand-off is under way here";
    single_gauge(encoder, "larder_handoff_settled", help, u64::from(status.settled))
}

fn counters(encoder: &mut DescriptorEncoder<'_>, handoff: &Handoff) -> fmt::Result {
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
    float_counter(encoder, "larder_handoff_gain_seconds", help, seconds(&its.gain_us))?;
    let help = "Time from view changes until nothing of their hand-off was left here, all together";
    float_counter(encoder, "larder_handoff_settle_seconds", help, seconds(&its.settle_us))?;
    rows.into_iter().try_for_each(|(name, help, value)| single_counter(encoder, name, help, value.load(Relaxed)))
}

fn seconds(us: &AtomicU64) -> f64 {
    Duration::from_micros(us.load(Relaxed)).as_secs_f64()
}

fn forwards(encoder: &mut DescriptorEncoder<'_>, handoff: &Handoff) -> fmt::Result {
    let its = &handoff.figures().forwards;
    let help =
        "Operations forwarded to their owners, by what became of them; and `received`, carried out here for others";
    let mut family = encoder.encode_descriptor("larder_forwards", help, None, MetricType::Counter)?;
    let outcomes = [
        ("answered", &its.sent),
        ("moved", &its.moved),
        ("refused", &its.refused),
        ("unknown", &its.unknown),
        ("received", &its.received),
    ];
    outcomes
        .into_iter()
        .try_for_each(|(outcome, count)| counter(&mut family, &[("outcome", outcome)], count.load(Relaxed)))
}
