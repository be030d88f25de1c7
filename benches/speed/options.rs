//! What can be asked of the harness.

use clap::{Parser, Subcommand};

use crate::noop::Runtime;

/// Measures Larder against its peers; see benches/README.md.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench speed --")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Options {
    /// Given by `cargo bench`; without it nothing is measured.
    #[arg(long, hide = true)]
    pub bench: bool,
    /// Rounds; every server is measured once in each, and medians are taken over them.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Windows of each round; the servers take turns in them.
    #[arg(long, default_value_t = 3)]
    pub windows: usize,
    /// Milliseconds of load before each window.
    #[arg(long, default_value_t = 200)]
    pub warm_up_ms: u64,
    /// Milliseconds of each window.
    #[arg(long, default_value_t = 500)]
    pub window_ms: u64,
    /// Worker threads of every server.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 2)]
    pub client_threads: usize,
    /// Keys of each value size.
    #[arg(long, default_value_t = 10_000)]
    pub keys: usize,
    /// Sizes of the values, in bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1_024])]
    pub bytes: Vec<usize>,
    /// Connections x requests in flight on each.
    #[arg(long, value_delimiter = ',', default_values_t = ["16x1".to_owned(), "4x16".to_owned()])]
    pub shapes: Vec<String>,
    /// What is measured: get, store, pipeline.
    #[arg(long, value_delimiter = ',', default_values_t = ["get", "store", "pipeline"].map(str::to_owned))]
    pub verbs: Vec<String>,
    /// Only these servers: larder, bare, default, redis, memcached.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Another build of larder than the one of this run.
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_larder"), hide_default_value = true)]
    pub larder: String,
    /// Only what is seen from outside: Larder without and with traces and metrics, against itself; with a collector of its own.
    #[arg(long)]
    pub telemetry: bool,
    /// With --telemetry: an older build of larder, to compare with.
    #[arg(long, value_name = "PROGRAM", requires = "telemetry")]
    pub before: Option<String>,
    /// Leave it to the kernel who runs on which core.
    #[arg(long)]
    pub no_pin: bool,
    /// Starts of `larder serve` whose time to SERVING is measured; 0: none.
    #[arg(long, default_value_t = 10)]
    pub starts: usize,
    /// Judge, but exit 0 when a criterion is missed, for machines that are never quiet; what fails still exits 1.
    #[arg(long)]
    pub report_only: bool,
    #[command(subcommand)]
    pub mode: Option<Mode>,
}

/// What the harness runs itself as.
#[derive(Debug, Subcommand)]
pub enum Mode {
    /// Takes traces and metrics, and forgets them.
    #[command(hide = true)]
    Collect,
    /// Serves a constant value with tonic.
    #[command(hide = true)]
    Serve {
        runtime: Runtime,
        #[arg(long)]
        threads: usize,
        #[arg(long)]
        bytes: usize,
    },
}
