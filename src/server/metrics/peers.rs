//! Metrics of the connections between replicas; none when this one is alone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Metrics;
use super::around::expiry;
use super::family::{Families, Kind};
use super::render::{counter, single_counter, single_gauge};
use crate::server::accept::{Ended, WireStats};
use crate::server::peer::{Peers, Service};
use crate::server::tls::Tls;

/// What is between this replica and the others.
pub struct PeerSources {
    pub peers: Peers,
    pub service: Service,
    /// Of the peer port.
    pub wire: Arc<WireStats>,
    /// None: plain text.
    pub tls: Option<Tls>,
}

impl fmt::Debug for PeerSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerSources").finish_non_exhaustive()
    }
}

pub(super) fn encode(families: &mut Families, metrics: &Metrics) {
    let Some(PeerSources { peers, service, wire, tls }) = metrics.peers.get() else { return };
    let (ours, theirs) = (peers.stats(), service.stats());
    let help = "Connections of other replicas that are open";
    single_gauge(families, "larder_peer_connections", help, wire.open());
    let help = "Connections of other replicas that ended, by reason; certificates that do not fit are `tls_failed`";
    let family = families.add("larder_peer_connections_ended", help, Kind::Counter);
    for reason in Ended::ALL {
        counter(family, &[("reason", reason.name())], wire.ended(reason));
    }
    let rows: [(&str, &str, &AtomicU64); 13] = [
        ("larder_peer_connect_failures", "Connections to other replicas that did not come about", &ours.not_connected),
        ("larder_peer_connections_broken", "Connections for forwards that broke", &ours.broken),
        ("larder_peer_messages", "Messages in which operations were forwarded; many share one", &ours.messages),
        ("larder_peer_forwards", "Operations in these messages", &ours.forwards),
        ("larder_peer_forwards_full", "Operations not forwarded because their owner is slow", &ours.full),
        ("larder_peer_calls", "Messages of the hand-off sent", &ours.calls),
        ("larder_peer_calls_lost", "Messages of the hand-off without an answer", &ours.calls_lost),
        ("larder_peer_turned_down", "Conversations that another replica turned down", &ours.turned_down),
        ("larder_peer_strangers", "Conversations refused to replicas of other clusters", &theirs.strangers),
        ("larder_peer_malformed", "Messages of other replicas that make no sense", &theirs.malformed),
        ("larder_peer_refused", "Messages refused: for another process, or by a clock far ahead", &theirs.refused),
        ("larder_peer_late", "Forwarded operations that came here after their deadline", &theirs.late),
        ("larder_peer_overloaded", "Forwarded operations turned away here: too many wait", &theirs.overloaded),
    ];
    for (name, help, value) in rows {
        single_counter(families, name, help, value.load(Relaxed));
    }
    let Some(tls) = tls else { return };
    let help = "Times changed certificates for other replicas were taken";
    single_counter(families, "larder_peer_tls_reloads", help, tls.reloads());
    let help = "Times changed certificates for other replicas could not be used, and the ones of before stayed";
    single_counter(families, "larder_peer_tls_reload_failures", help, tls.failed_reloads());
    let help = "When this replica's certificate for other replicas ends to be valid, in seconds since 1970";
    expiry(families, "larder_peer_tls_expiry_timestamp_seconds", help, tls);
}
