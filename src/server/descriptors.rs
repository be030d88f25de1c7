//! Whether the process may open as many files as the configuration lets clients open connections. Not here: raising the
//! limit, which is for whoever starts the process.

use std::fs;

use super::config::Config;

/// Files beside connections: listeners, probes, scrapes, timers, the accounts file, certificates.
const OTHER_FILES: u64 = 128;

/// Warns when connections could use up the file descriptors: then nothing is accepted, not even probes.
pub fn check(config: &Config) {
    let Some(limit) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(soft_limit) else { return };
    let needed = config.connections.max_connections as u64 + OTHER_FILES;
    if limit < needed {
        tracing::warn!(limit, needed, "--max-connections is more than open files allow; raise ulimit -n, or lower it");
    }
}

/// The soft limit of open files; `None` when there is none.
fn soft_limit(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read_as_the_kernel_writes_it() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             127051               127051               processes\n\
                      Max open files            64                   4096                 files\n";
        assert_eq!(soft_limit(limits), Some(64));
        assert_eq!(soft_limit("Max open files            unlimited            unlimited            files\n"), None);
    }
}
