//! What no single flag can say about itself: settings that do not go together, and values that would not work.

use std::time::Duration;

use super::Config;
use crate::cache::limits::MAX_TTL_MS;

/// A configuration that cannot work. `Display` says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// The least capacity that is worth starting with, in bytes: one entry of the maximum size, twice.
const MIN_CAPACITY: u64 = 8 * 1024 * 1024;

/// The least metadata that a call can do with, in bytes.
const MIN_METADATA: u64 = 1024;

/// Threads: more than this is a mistake of units.
const MAX_WORKERS: usize = 1024;

impl ConfigError {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Config {
    /// Checks what the flags say together.
    ///
    /// # Errors
    /// With a sentence that names the flags and what to change.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_accounts()?;
        self.cluster.check(self.listen)?;
        let error = |text: &str| Err(ConfigError(text.to_owned()));
        let at_least_one = [
            (self.connections.max_connections, "--max-connections"),
            (self.connections.max_handshaking, "--max-handshaking"),
            (self.connections.max_streams as usize, "--max-streams"),
            (self.calls.max_in_progress, "--max-in-progress"),
            (self.calls.burst as usize, "--burst"),
        ];
        if let Some((_, flag)) = at_least_one.iter().find(|(value, _)| *value == 0) {
            return Err(ConfigError(format!("{flag} is 0, so nothing could be served; give it at least 1")));
        }
        let positive = [
            (self.connections.handshake_timeout, "--handshake-timeout"),
            (self.connections.preface_timeout, "--preface-timeout"),
            (self.connections.header_timeout, "--header-timeout"),
            (self.connections.keepalive_interval, "--keepalive-interval"),
            (self.connections.dead_path_timeout, "--dead-path-timeout"),
            (self.connections.stall_timeout, "--stall-timeout"),
            (self.calls.max_deadline, "--max-deadline"),
            (self.tls.reload, "--tls-reload"),
            (self.memory.max_ttl, "--max-ttl"),
            (self.process.drain_timeout, "--drain-timeout"),
        ];
        if let Some((_, flag)) = positive.iter().find(|(value, _)| *value == Duration::ZERO) {
            return Err(ConfigError(format!("{flag} is 0, so nothing could ever finish; give it at least 1ms")));
        }
        if self.connections.silence_timeout <= self.connections.keepalive_interval {
            return error(
                "--silence-timeout is not over --keepalive-interval, so a silent client would be cut before it was asked; raise the first or lower the second",
            );
        }
        if self.memory.capacity.is_some_and(|capacity| capacity.as_u64() < MIN_CAPACITY) {
            return error("--capacity is under 8MiB, which two entries of the largest size fill; give it more");
        }
        if self.calls.max_held.is_some_and(|held| held.as_u64() < MIN_CAPACITY) {
            return error("--max-held is under 8MiB, which two messages of the largest size fill; give it more");
        }
        if self.calls.max_metadata.as_u64() < MIN_METADATA {
            return error("--max-metadata is under 1KiB, which gRPC's own headers and a token may fill; give it more");
        }
        if self.memory.max_ttl > Duration::from_millis(MAX_TTL_MS) {
            return error("--max-ttl is over 400days, the longest that an entry may live; give it less");
        }
        if self.process.workers > MAX_WORKERS {
            return Err(ConfigError(format!("--workers is over {MAX_WORKERS}; give the number of cores, or 0")));
        }
        self.telemetry.check()?;
        self.check_ports()
    }

    fn check_ports(&self) -> Result<(), ConfigError> {
        let mut ports = vec![self.listen, self.health_listen, self.admin_listen];
        if self.cluster.has_members() {
            ports.push(self.cluster.peer_listen);
        }
        for (n, one) in ports.iter().enumerate() {
            if one.port() != 0 && ports[n + 1..].contains(one) {
                return Err(ConfigError(format!(
                    "{one} is given twice; --listen, --peer-listen, --health-listen and --admin-listen need addresses of their own"
                )));
            }
        }
        Ok(())
    }

    fn check_accounts(&self) -> Result<(), ConfigError> {
        let error = |text: &str| Err(ConfigError(text.to_owned()));
        match (&self.accounts.file, &self.accounts.url) {
            (None, None) => error(
                "there are no accounts; name a file with --accounts (make one with `larder account add`) or a service with --accounts-url",
            ),
            (Some(_), Some(_)) => error("--accounts and --accounts-url are both given; keep the one that is meant"),
            (Some(_), None) => Ok(()),
            (None, Some(url)) => check_url(url),
        }
    }
}

fn check_url(url: &str) -> Result<(), ConfigError> {
    let problem = match url.parse::<http::Uri>() {
        Err(_) => "is no URL",
        Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => "does not begin with http:// or https://",
        Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            "has a user or password in it, which would be printed; the service is to be reached without"
        }
        Ok(_) => return Ok(()),
    };
    Err(ConfigError(format!("--accounts-url {problem}; write it like https://accounts.example:443")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(flags: &str) -> Result<(), String> {
        let flags = flags.split_whitespace();
        Config::from_flags(flags).map_err(|error| error.to_string())?.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_with_a_sentence_that_names_the_flag() {
        for (flags, named) in [
            ("", "--accounts"),
            ("--accounts a.json --accounts-url http://b", "both"),
            ("--accounts-url ftp://b", "http://"),
            ("--accounts-url http://user:secret@b", "password"),
            ("--accounts a --max-connections 0", "--max-connections"),
            ("--accounts a --max-streams 0", "--max-streams"),
            ("--accounts a --handshake-timeout 0", "--handshake-timeout"),
            ("--accounts a --stall-timeout 0", "--stall-timeout"),
            ("--accounts a --silence-timeout 1s", "--keepalive-interval"),
            ("--accounts a --capacity 1MiB", "--capacity"),
            ("--accounts a --max-held 1MiB", "--max-held"),
            ("--accounts a --max-metadata 1", "--max-metadata"),
            ("--accounts a --max-ttl 401days", "--max-ttl"),
            ("--accounts a --workers 5000", "--workers"),
            ("--accounts a --listen 127.0.0.1:1 --admin-listen 127.0.0.1:1", "127.0.0.1:1"),
            ("--accounts a --tls-cert c", "--tls-key"),
            ("--accounts a --idle-timeout soon", "--idle-timeout"),
            ("--accounts a --listen here", "--listen"),
            ("--accounts a --members-file m --members-service s", "both"),
            ("--accounts a --members-file m --listen 10.0.0.1:1", "--uid"),
            ("--accounts a --members-file m --uid u", "--advertise"),
            ("--accounts a --members-service s --uid u --advertise 0.0.0.0:1", "--advertise"),
            ("--accounts a --members-service s --uid u --advertise 10.0.0.1:1 --handoff-rate 1KiB", "--handoff-rate"),
            ("--accounts a --members-service s --uid u --advertise 10.0.0.1:1 --cluster=", "--cluster"),
            (
                "--accounts a --members-service s --uid u --advertise 10.0.0.1:1 --admin-listen 0.0.0.0:7071",
                "--peer-listen",
            ),
            ("--accounts a --advertise 10.0.0.1:1", "--members-file"),
            ("--accounts a --peer-tls-cert c --peer-tls-key k --peer-tls-ca c", "--members-file"),
            ("--accounts a --peer-tls-cert c", "--peer-tls-key"),
            ("--accounts a --members-namespace n", "--members-service"),
        ] {
            let said = checked(flags).expect_err(flags);
            assert!(said.contains(named), "{flags}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
        assert_eq!(checked("--accounts a.json"), Ok(()));
        assert_eq!(checked("--accounts-url https://accounts:443"), Ok(()));
    }
}
