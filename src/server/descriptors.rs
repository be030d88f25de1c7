//! File descriptors: as many as the configuration lets clients open connections, and some for everything else. When they run
//! out nothing is accepted any more, probes included, and a replica that answers no probe is killed.
//!
//! So the soft limit is raised as far as needed and allowed (as Go's runtime does), and where that is not enough, fewer
//! connections are taken than configured.

use rustix::process::{Resource, getrlimit, setrlimit};

use super::config::Config;
use super::peer::MAX_CONNECTIONS as MAX_PEER_CONNECTIONS;

/// Files beside connections: listeners, probes, scrapes, timers, the accounts file, certificates.
const OTHER_FILES: u64 = 128;

/// Connections from other replicas, and as many to them.
const PEER_FILES: u64 = 2 * MAX_PEER_CONNECTIONS as u64;

/// Raises the limit of open files, or lowers the limits of connections to what it allows, and says so.
pub fn make_room(config: &mut Config) {
    let (needed, peers) = needed(config);
    let connections = &mut config.connections;
    let mut limit = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if limit.current.is_some_and(|soft| soft < needed) {
        let raised = limit.maximum.map_or(needed, |hard| hard.min(needed));
        limit.current = limit.current.max(Some(raised));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "cannot raise the limit of open files");
            limit = getrlimit(Resource::Nofile);
        }
    }
    let Some(limit) = limit.current.filter(|limit| *limit < needed) else { return };
    let configured = (connections.max_connections, connections.max_handshaking);
    let (max_connections, max_handshaking) = shares(limit, configured, peers);
    tracing::warn!(
        limit,
        needed,
        max_connections,
        max_handshaking,
        "open files allow fewer connections, of clients or of replicas, than there may be; raise ulimit -n"
    );
    connections.max_connections = max_connections;
    connections.max_handshaking = max_handshaking;
}

/// How many files a replica may open, and how many of them for connections with others.
fn needed(config: &Config) -> (u64, u64) {
    let peers = if config.cluster.has_members() { PEER_FILES } else { 0 };
    let clients = config.connections.max_connections + config.connections.max_handshaking;
    (clients as u64 + peers + OTHER_FILES, peers)
}

/// How many connections of clients, and how many handshaking ones, a limit of open files allows of those configured. What
/// clients leave is other replicas', who wait for one another's keys: they have half of it for certain.
fn shares(limit: u64, (connections, handshaking): (usize, usize), peers: u64) -> (usize, usize) {
    let rest = limit - OTHER_FILES.min(limit / 2);
    let rest = usize::try_from(rest - peers.min(rest / 2)).unwrap_or(usize::MAX);
    let handshaking = handshaking.min(rest / 4).max(1);
    (connections.min(rest.saturating_sub(handshaking)).max(1), handshaking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_is_shared_and_leaves_files_for_everything_else() {
        for (limit, shared) in [(64, (24, 8)), (1024, (672, 224)), (1300, (916, 256)), (1, (1, 1))] {
            assert_eq!(shares(limit, (1024, 256), 0), shared, "{limit} open files");
        }
    }

    #[test]
    fn only_a_replica_among_others_needs_files_for_them() {
        let needed = |flags: &[&str]| needed(&Config::from_flags(flags).unwrap());
        let alone = ["--accounts", "a", "--advertise", "127.0.0.1:7070"];
        assert_eq!(needed(&alone[..2]), (1024 + 256 + 128, 0));
        let cluster = [&alone[..], &["--members-file", "m", "--uid", "u"]].concat();
        assert_eq!(needed(&cluster), (1024 + 256 + 128 + 8192, 8192));
    }

    #[test]
    fn other_replicas_have_files_too_and_take_none_that_they_cannot_use() {
        for (limit, shared) in [(1024, (336, 112)), (2000, (702, 234)), (4096, (1024, 256)), (1, (1, 1))] {
            assert_eq!(shares(limit, (1024, 256), PEER_FILES), shared, "{limit} open files");
        }
        assert_eq!(shares(1024, (1024, 256), 100), (597, 199), "the half that they do not need is the clients'");
    }
}
