//! The configuration of a replica: every flag, its `LARDER_*` (or `OTEL_*`) variable, its unit, its default and the reason for it. Read
//! once, here; nothing else in Larder looks at the environment for settings. `docs/configuration.md` is made from this file.
//!
//! Not here: accounts (a file or a service of their own), and anything that may change while a replica runs.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::Resettable;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};

use super::otlp::Headers;
use crate::cache::limits::MAX_TTL_MS;

mod check;
mod cluster;
mod telemetry;

pub use check::ConfigError;
pub use cluster::ClusterConfig;
pub use telemetry::{Compression, TelemetryConfig};

/// Flags of `larder serve`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Addresses")]
pub struct Config {
    /// Where clients call: address and port; port 0 takes a free one
    #[arg(long, env = "LARDER_LISTEN", default_value = "0.0.0.0:7070", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,

    /// Where probes ask for health: plaintext gRPC without a token, answered by a thread of its own
    #[arg(long, env = "LARDER_HEALTH_LISTEN", default_value = "0.0.0.0:7072", value_name = "ADDR:PORT")]
    pub health_listen: SocketAddr,

    /// Where operators look: HTTP with /livez, /readyz and /metrics
    #[arg(long, env = "LARDER_ADMIN_LISTEN", default_value = "0.0.0.0:7073", value_name = "ADDR:PORT")]
    pub admin_listen: SocketAddr,

    /// File that receives the addresses as JSON once the replica serves (in a cluster: once it listens), and is removed when
    /// it ends
    #[arg(long, env = "LARDER_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    #[command(flatten)]
    pub cluster: ClusterConfig,

    #[command(flatten)]
    pub accounts: AccountsConfig,

    #[command(flatten)]
    pub tls: TlsConfig,

    #[command(flatten)]
    pub memory: MemoryConfig,

    #[command(flatten)]
    pub calls: CallsConfig,

    #[command(flatten)]
    pub connections: ConnectionsConfig,

    #[command(flatten)]
    pub telemetry: TelemetryConfig,

    #[command(flatten)]
    pub process: ProcessConfig,
}

/// Who may call. Exactly one of file and URL.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Accounts")]
pub struct AccountsConfig {
    /// Accounts file (see `larder account`); read again when it changes
    #[arg(long = "accounts", env = "LARDER_ACCOUNTS", value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Accounts service to ask instead: http:// or https:// URL of a server of larder.v1.Accounts or rpc.Accounts
    #[arg(long = "accounts-url", env = "LARDER_ACCOUNTS_URL", value_name = "URL")]
    pub url: Option<String>,

    /// Which of the two services stands there; auto asks larder.v1 first and remembers
    #[arg(long = "accounts-service", env = "LARDER_ACCOUNTS_SERVICE", default_value = "auto")]
    pub service: AccountsService,

    /// CA certificates (PEM) that the Accounts service's certificate is checked against; default: those of the system
    #[arg(long = "accounts-ca", env = "LARDER_ACCOUNTS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// How long an answer of the Accounts service is used without asking again
    #[arg(long = "accounts-ttl", env = "LARDER_ACCOUNTS_TTL", default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub ttl: Duration,

    /// How long a token that the service did not know stays unknown: short, so that a new one works soon
    #[arg(long = "accounts-negative-ttl", env = "LARDER_ACCOUNTS_NEGATIVE_TTL", default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub negative_ttl: Duration,

    /// How long an old answer goes on being used while the Accounts service is down
    #[arg(long = "accounts-max-stale", env = "LARDER_ACCOUNTS_MAX_STALE", default_value = "1h", value_name = "TIME", value_parser = duration)]
    pub max_stale: Duration,

    /// How long one question to the Accounts service may take
    #[arg(long = "accounts-timeout", env = "LARDER_ACCOUNTS_TIMEOUT", default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub timeout: Duration,

    /// Serve the tutorial's API (package `rpc`) too: one key space that all callers share, readable without a token
    #[arg(long, env = "LARDER_TUTORIAL_API", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub tutorial_api: bool,
}

/// Which Accounts service a URL leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccountsService {
    /// larder.v1 first; rpc when that is UNIMPLEMENTED; remembered.
    Auto,
    /// larder.v1.Accounts.
    Larder,
    /// rpc.Accounts.
    Tutorial,
}

/// TLS for clients. Certificate, key and CA are read again when they change.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS")]
pub struct TlsConfig {
    /// Certificate chain (PEM); with --tls-key clients must use TLS (1.2 or 1.3)
    #[arg(long = "tls-cert", env = "LARDER_TLS_CERT", requires = "key", value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// Private key (PEM)
    #[arg(long = "tls-key", env = "LARDER_TLS_KEY", requires = "cert", value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// CA certificates (PEM) that clients' certificates are checked against
    #[arg(long = "tls-client-ca", env = "LARDER_TLS_CLIENT_CA", requires = "cert", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,

    /// Whether a client must have a certificate, when a client CA is given
    #[arg(long = "tls-client-auth", env = "LARDER_TLS_CLIENT_AUTH", default_value = "required")]
    pub client_auth: ClientAuth,

    /// How often the files are looked at: Kubernetes swaps symlinks, which no file event tells reliably
    #[arg(long = "tls-reload", env = "LARDER_TLS_RELOAD", default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub reload: Duration,
}

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// Refused without.
    Required,
    /// Checked if they have one.
    Optional,
}

/// How much is kept, and for how long.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Memory")]
pub struct MemoryConfig {
    /// Memory for entries (keys, values and overhead), e.g. 512MiB; default: 75 % of the container's memory limit, followed
    /// as it changes, or 25 % of the machine where there is no limit
    #[arg(long, env = "LARDER_CAPACITY", value_name = "BYTES")]
    pub capacity: Option<ByteSize>,

    /// The longest TTL that any account may ask for; its own maximum may be lower
    #[arg(long, env = "LARDER_MAX_TTL", default_value = "400days", value_name = "TIME", value_parser = duration)]
    pub max_ttl: Duration,
}

/// What calls are taken, and how many.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Calls")]
pub struct CallsConfig {
    /// Calls per second that this replica takes; 0: no limit. Items of a batch or a pipeline are calls
    #[arg(long, env = "LARDER_REQUESTS_PER_SECOND", default_value_t = 0, value_name = "CALLS")]
    pub requests_per_second: u32,

    /// Calls that may come at once on top of that
    #[arg(long, env = "LARDER_BURST", default_value_t = 100, value_name = "CALLS")]
    pub burst: u32,

    /// Calls in progress at once; one more is refused at once, so that a full replica says so instead of becoming slow. Calls
    /// without a token may take half
    #[arg(long, env = "LARDER_MAX_IN_PROGRESS", default_value_t = 10_000, value_name = "CALLS")]
    pub max_in_progress: usize,

    /// The deadline of unary calls that come without one, and the longest that a unary call may have; also how long a stream
    /// waits for its request
    #[arg(long, env = "LARDER_MAX_DEADLINE", default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub max_deadline: Duration,

    /// Metadata of one call, in bytes; 16 KiB as most gRPC servers
    #[arg(long, env = "LARDER_MAX_METADATA", default_value = "16KiB", value_name = "BYTES")]
    pub max_metadata: ByteSize,

    /// Memory for messages under way: requests over 64 KiB that have not come whole, and answers over 64 KiB that clients do
    /// not take; a call for which there is none left is refused. Default: an eighth of the capacity, 32MiB to 1GiB
    #[arg(long, env = "LARDER_MAX_HELD", value_name = "BYTES")]
    pub max_held: Option<ByteSize>,
}

/// Connections, their number and their life.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionsConfig {
    /// Connections at once; one more is closed as soon as it comes
    #[arg(long, env = "LARDER_MAX_CONNECTIONS", default_value_t = 1024, value_name = "CONNECTIONS")]
    pub max_connections: usize,

    /// Connections that have not finished TLS and the HTTP/2 preface; for one more the oldest of them is closed
    #[arg(long, env = "LARDER_MAX_HANDSHAKING", default_value_t = 256, value_name = "CONNECTIONS")]
    pub max_handshaking: usize,

    /// Streams (calls) at once on one connection
    #[arg(long, env = "LARDER_MAX_STREAMS", default_value_t = 1024, value_name = "STREAMS")]
    pub max_streams: u32,

    /// How long TLS may take
    #[arg(long, env = "LARDER_HANDSHAKE_TIMEOUT", default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub handshake_timeout: Duration,

    /// How long the HTTP/2 preface may take
    #[arg(long, env = "LARDER_PREFACE_TIMEOUT", default_value = "4s", value_name = "TIME", value_parser = duration)]
    pub preface_timeout: Duration,

    /// How long a connection may be without a stream; 0: for ever
    #[arg(long, env = "LARDER_IDLE_TIMEOUT", default_value = "10min", value_name = "TIME", value_parser = duration)]
    pub idle_timeout: Duration,

    /// How old a connection becomes (±10 %) before clients are told to open another one, so that they spread over new
    /// replicas; 0: for ever
    #[arg(long, env = "LARDER_CONNECTION_AGE", default_value = "1h", value_name = "TIME", value_parser = duration)]
    pub connection_age: Duration,

    /// How long its streams may go on after that
    #[arg(long, env = "LARDER_CONNECTION_AGE_GRACE", default_value = "1min", value_name = "TIME", value_parser = duration)]
    pub connection_age_grace: Duration,

    /// How long a header block or a control frame may take from its first byte to its last
    #[arg(long, env = "LARDER_HEADER_TIMEOUT", default_value = "8s", value_name = "TIME", value_parser = duration)]
    pub header_timeout: Duration,

    /// After how much silence a client is asked whether it is still there (HTTP/2 PING)
    #[arg(long, env = "LARDER_KEEPALIVE_INTERVAL", default_value = "4s", value_name = "TIME", value_parser = duration)]
    pub keepalive_interval: Duration,

    /// After how much silence, PINGs answered included, it is given up
    #[arg(long, env = "LARDER_SILENCE_TIMEOUT", default_value = "9s", value_name = "TIME", value_parser = duration)]
    pub silence_timeout: Duration,

    /// How long bytes may go without the client's kernel acknowledging them: then the path is dead
    #[arg(long, env = "LARDER_DEAD_PATH_TIMEOUT", default_value = "3s", value_name = "TIME", value_parser = duration)]
    pub dead_path_timeout: Duration,

    /// How long a client may take none of the bytes that wait for it
    #[arg(long, env = "LARDER_STALL_TIMEOUT", default_value = "8s", value_name = "TIME", value_parser = duration)]
    pub stall_timeout: Duration,
}

/// The process: threads, logs, its end.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
pub struct ProcessConfig {
    /// Threads that serve; 0: one per core
    #[arg(long, env = "LARDER_WORKERS", default_value_t = 0, value_name = "THREADS")]
    pub workers: usize,

    /// After SIGTERM, how long calls are taken as before while health says NOT_SERVING: the time that news of it needs
    #[arg(long, env = "LARDER_DRAIN_DELAY", default_value = "2s", value_name = "TIME", value_parser = duration)]
    pub drain_delay: Duration,

    /// After that, how long calls in progress, and in a cluster the handing over of keys, may take to end; Kubernetes' grace
    /// period must be longer than both
    #[arg(long, env = "LARDER_DRAIN_TIMEOUT", default_value = "20s", value_name = "TIME", value_parser = duration)]
    pub drain_timeout: Duration,

    /// What is logged: a level (error, warn, info, debug, trace) or directives such as info,larder::access=off
    #[arg(long, env = "LARDER_LOG", default_value = "info,larder::access=warn", value_name = "FILTER")]
    pub log: String,

    /// How it is logged
    #[arg(long, env = "LARDER_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// One setting as it is in force: the variable's name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub variable: String,
    pub value: String,
}

/// A parser of nothing but [`Config`]: for tests, documentation and the defaults of `larder dev`.
#[derive(Parser)]
#[command(name = "serve", no_binary_name = true)]
pub struct Standalone {
    #[command(flatten)]
    pub config: Config,
}

impl Config {
    /// Reads flags from a list, as from a command line, and nothing from the environment.
    ///
    /// # Errors
    /// clap's, which names the flag and what it takes.
    pub fn from_flags<I, T>(flags: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let command = Standalone::command().mut_args(|arg| arg.env(Resettable::Reset));
        Standalone::from_arg_matches(&command.try_get_matches_from(flags)?).map(|parsed| parsed.config)
    }

    /// The longest TTL in milliseconds, never over the contract's own maximum.
    #[must_use]
    pub fn max_ttl_ms(&self) -> u64 {
        u64::try_from(self.memory.max_ttl.as_millis()).map_or(MAX_TTL_MS, |asked| asked.min(MAX_TTL_MS))
    }
}

/// The settings in force, in the order of the help. No setting is a secret (tokens and keys are named by file) but the metadata
/// for a collector, of which only the names are told; and a URL with a password in it is refused before this is printed.
#[must_use]
pub fn effective(matches: &ArgMatches) -> Vec<Setting> {
    let show = |raw: &OsStr| raw.to_string_lossy().into_owned();
    Standalone::command()
        .get_arguments()
        .filter_map(|arg| {
            let variable = arg.get_env()?.to_string_lossy().into_owned();
            let id = arg.get_id().as_str();
            let mut values = matches.get_raw(id).into_iter().flatten();
            let value = match matches.try_get_one::<Headers>(id) {
                Ok(Some(headers)) => headers.redacted(),
                _ => values.next().map(show).unwrap_or_default(),
            };
            Some(Setting { variable, value })
        })
        .collect()
}

/// Durations as people write them ("90s", "5min", "1h 30m"); a bare 0 is allowed.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number and a unit, like 500ms, 30s or 5min"))
}
