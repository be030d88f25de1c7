//! File descriptors: as many as the configuration lets clients open connections, and some for everything else. When they run
//! out nothing is accepted any more, probes included, and a replica that answers no probe is killed.
//!
//! So the soft limit is raised as far as needed and allowed (as Go's runtime does), and where that is not enough, fewer
//! connections are taken than configured.

use rustix::process::{Resource, getrlimit, setrlimit};

use super::config::ConnectionsConfig;

/// Files beside connections: listeners, probes, scrapes, timers, the accounts file, certificates.
const OTHER_FILES: u64 = 128;

/// Raises the limit of open files, or lowers the limits of connections to what it allows, and says so.
pub fn make_room(connections: &mut ConnectionsConfig) {
    let needed = (connections.max_connections + connections.max_handshaking) as u64 + OTHER_FILES;
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
    let (max_connections, max_handshaking) = shares(limit, connections.max_handshaking);
    tracing::warn!(
        limit,
        needed,
        max_connections,
        max_handshaking,
        "open files allow fewer connections than configured; raise ulimit -n, or lower --max-connections"
    );
    connections.max_connections = max_connections;
    connections.max_handshaking = max_handshaking;
}

/// How many connections, and how many handshaking ones of at most `handshaking`, a limit of open files allows.
fn shares(limit: u64, handshaking: usize) -> (usize, usize) {
    let rest = usize::try_from(limit - OTHER_FILES.min(limit / 2)).unwrap_or(usize::MAX);
    let handshaking = handshaking.min(rest / 4).max(1);
    (rest.saturating_sub(handshaking).max(1), handshaking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_is_shared_and_leaves_files_for_everything_else() {
        for (limit, shared) in [(64, (24, 8)), (1024, (672, 224)), (1300, (916, 256)), (1, (1, 1))] {
            assert_eq!(shares(limit, 256), shared, "{limit} open files");
        }
    }
}
