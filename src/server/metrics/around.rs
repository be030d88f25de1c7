//! Metrics of what stands around the calls: connections, certificates, and where accounts come from.

use std::sync::atomic::Ordering::Relaxed;

use super::Metrics;
use super::family::{Families, Kind};
use super::render::{counter, single_counter, single_gauge};
use crate::server::accept::Ended;
use crate::server::accounts::Accounts;
use crate::server::tls::Tls;
use crate::server::trace::Tracer;

/// What the wire counted; nothing before it runs.
pub(super) fn connections(families: &mut Families, metrics: &Metrics) {
    let Some(wire) = metrics.wire.get() else { return };
    single_gauge(families, "larder_connections", "Connections that are open", wire.open());
    let help = "Connections that have not finished TLS and the HTTP/2 preface";
    single_gauge(families, "larder_connections_handshaking", help, wire.handshaking());
    single_counter(families, "larder_connections_accepted", "Connections that came", wire.accepted());
    let help = "Failed accepts; they grow when file descriptors are used up";
    single_counter(families, "larder_accept_errors", help, wire.accept_errors());
    let help = "Connections that ended, by reason; `normally` is the only one without a fault";
    let family = families.add("larder_connections_ended", help, Kind::Counter);
    for reason in Ended::ALL {
        counter(family, &[("reason", reason.name())], wire.ended(reason));
    }
    let help = "Connections told to go elsewhere, by reason";
    let family = families.add("larder_goaways", help, Kind::Counter);
    counter(family, &[("reason", "age")], wire.goaways_for_age());
    counter(family, &[("reason", "idle")], wire.goaways_for_idleness());
}

/// How the re-reading of certificates goes; nothing without TLS.
pub(super) fn certificates(families: &mut Families, metrics: &Metrics) {
    let Some(tls) = metrics.tls.get() else { return };
    single_counter(families, "larder_tls_reloads", "Times changed certificates were taken", tls.reloads());
    let help = "Times changed certificates could not be used, and the ones of before stayed";
    single_counter(families, "larder_tls_reload_failures", help, tls.failed_reloads());
    let help = "When the certificate in use ends to be valid, in seconds since 1970";
    expiry(families, "larder_tls_expiry_timestamp_seconds", help, tls);
}

/// When a certificate ends; nothing where that could not be read.
pub(super) fn expiry(families: &mut Families, name: &'static str, help: &'static str, tls: &Tls) {
    if let Some(seconds) = tls.expires() {
        single_gauge(families, name, help, seconds);
    }
}

/// What became of spans; nothing where none are made.
pub(super) fn spans(families: &mut Families, tracer: Option<&Tracer>) {
    let Some(tracer) = tracer else { return };
    let its = tracer.counts();
    let help =
        "Spans by what became of them: dropped ones found no room in the queue, failed ones the collector did not take";
    let family = families.add("larder_spans", help, Kind::Counter);
    for (outcome, count) in [("exported", &its.exported), ("dropped", &its.dropped), ("failed", &its.failed)] {
        counter(family, &[("outcome", outcome)], count.load(Relaxed));
    }
}

/// How the accounts are doing, by where they come from.
pub(super) fn accounts(families: &mut Families, accounts: &Accounts) {
    match accounts {
        Accounts::Embedded(embedded) => {
            let stats = embedded.stats();
            single_gauge(families, "larder_accounts", "Accounts of the file", stats.accounts as u64);
            single_gauge(families, "larder_accounts_tokens", "Tokens of the file", stats.tokens as u64);
            single_counter(families, "larder_accounts_reloads", "Times a changed file was taken", stats.reloads);
            let help = "Times a changed file could not be used, and the accounts of before stayed";
            single_counter(families, "larder_accounts_reload_failures", help, stats.failed_reloads);
            let help = "1 while the accounts in use are those of the file, 0 while the file is broken or gone";
            single_gauge(families, "larder_accounts_current", help, u64::from(stats.current));
        }
        Accounts::Remote(remote) => {
            let stats = remote.stats();
            let help = "Questions to the Accounts service, by how they ended";
            let family = families.add("larder_accounts_asked", help, Kind::Counter);
            for (outcome, count) in [("known", stats.known), ("unknown", stats.unknown), ("failed", stats.failed)] {
                counter(family, &[("outcome", outcome)], count);
            }
            let help = "Calls that an old answer served while the service could not be asked";
            single_counter(families, "larder_accounts_stale", help, stats.stale);
            let help = "Calls turned away because too many questions were under way";
            single_counter(families, "larder_accounts_refused", help, stats.refused);
            single_gauge(families, "larder_accounts_remembered", "Tokens whose answer is known", stats.remembered);
            single_gauge(families, "larder_accounts_asking", "Questions under way", stats.asking);
        }
    }
}
