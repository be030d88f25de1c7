//! The flags that say which server, as whom, and for how long; and how a command that talks to it is run.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use zeroize::Zeroizing;

use super::exit::{self, Problem};
use crate::client::{Client, Config, Retries, Routing, Target, Tls, Token};

/// How long a call of a bulk command may take: it shares the connection with megabytes of others.
pub const BULK_TIMEOUT: Duration = Duration::from_secs(30);

/// How a bulk command bears with servers that are busy or begin again: for some seconds. It has a window of calls and waits in each of
/// them, so that it needs no narrow budget to be no storm.
pub const BULK_RETRIES: Retries = Retries { attempts: 24, percent: 400, per_second: 100 };

/// Threads that read and write files. The allocator keeps what a thread has used, so there are few: with a thread per call a
/// load of 367 MiB took 507 MiB.
const FILE_THREADS: usize = 4;

/// Which server, as whom, and for how long.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct Connect {
    /// Any replica: HOST:PORT, http://HOST:PORT or https://HOST:PORT; several, separated by commas, stand in for each other
    #[arg(
        long,
        env = "LARDER_TARGET",
        default_value = "127.0.0.1:7070",
        value_name = "TARGET,…",
        value_delimiter = ','
    )]
    pub target: Vec<Target>,

    /// Which replica a call goes to: the owner of its key, or always the target, which forwards it
    #[arg(long, env = "LARDER_ROUTING", default_value = "owners", value_name = "WHERE")]
    routing: Where,

    /// Token of the account; other users of this machine can see a flag, so prefer the variable or a file
    #[arg(long, env = "LARDER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<GivenToken>,

    /// File that holds the token; wins over --token
    #[arg(long, env = "LARDER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How long a call may take, connecting included [default: 1s; load and dump: 30s]
    #[arg(long, env = "LARDER_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,

    /// Make every check, change nothing; versions are 0
    #[arg(long)]
    pub dry_run: bool,

    /// CA certificates (PEM) that the server's certificate is checked against; default: those of the system
    #[arg(long, env = "LARDER_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// Certificate chain (PEM) to show to the server
    #[arg(long, env = "LARDER_CLIENT_CERT", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, env = "LARDER_CLIENT_KEY", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Name that the server's certificate must have; default: the target's host
    #[arg(long, env = "LARDER_TLS_SERVER_NAME", value_name = "NAME")]
    pub tls_server_name: Option<String>,
}

/// [`Routing`], as it is typed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Where {
    Owners,
    Target,
}

/// A token as it was typed. Checked later: the parser of the command line would print a wrong one.
#[derive(Clone)]
struct GivenToken(Zeroizing<String>);

/// Runs a command to its end. One thread is enough for what a terminal asks.
pub fn run(command: impl Future<Output = Result<(), Problem>>) -> ExitCode {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_all().max_blocking_threads(FILE_THREADS).build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::failure(&format!("cannot start: {error}")),
    };
    match runtime.block_on(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => problem.exit(),
    }
}

/// A time as people write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number and a unit, like 500ms, 30s or 5min"))
}

/// A time to live: at least a millisecond, since 0 means another thing on the wire.
pub fn ttl(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("0 is no time to live; leave --ttl out for the account's default".to_owned()),
        ttl => Ok(ttl),
    }
}

impl Connect {
    /// The client that the flags describe. Must be called inside a runtime.
    pub fn client(self) -> Result<Client, Problem> {
        Ok(Client::new(self.config(Config::DEFAULT_TIMEOUT)?)?)
    }

    /// The same for a bulk command, which is patient.
    pub fn bulk_client(self) -> Result<Client, Problem> {
        Ok(Client::new(Config { retries: BULK_RETRIES, ..self.config(BULK_TIMEOUT)? })?)
    }

    /// The same, for one target and no other replica.
    pub fn only(&self, target: Target) -> Self {
        Self { target: vec![target], routing: Where::Target, ..self.clone() }
    }

    /// What the flags say, with a default for the timeout.
    pub fn config(self, timeout: Duration) -> Result<Config, Problem> {
        let token = self.token()?;
        let tls =
            Tls { ca: self.tls_ca, certificate: self.tls_cert.zip(self.tls_key), server_name: self.tls_server_name };
        let routing = match self.routing {
            Where::Owners => Routing::Owners,
            Where::Target => Routing::Seeds,
        };
        let (timeout, token_file, dry_run) = (self.timeout.unwrap_or(timeout), self.token_file, self.dry_run);
        Ok(Config { routing, token, token_file, tls, timeout, dry_run, ..Config::with_seeds(self.target) })
    }

    fn token(&self) -> Result<Option<Token>, Problem> {
        let (text, from) = if let Some(path) = &self.token_file {
            let from = path.display().to_string();
            let text = std::fs::read_to_string(path);
            (Zeroizing::new(text.map_err(|error| Problem::usage(&format!("cannot read {from}: {error}")))?), from)
        // A variable that is set to nothing is how a shell unsets it for one command.
        } else if let Some(given) = self.token.as_ref().filter(|given| !given.0.is_empty()) {
            (given.0.clone(), "--token or LARDER_TOKEN".to_owned())
        } else {
            return Ok(None);
        };
        Token::new(text.trim()).map(Some).map_err(|error| Problem::usage(&format!("{from}: {error}")))
    }
}

impl FromStr for GivenToken {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl std::fmt::Debug for GivenToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenToken(..)")
    }
}
