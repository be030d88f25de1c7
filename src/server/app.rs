//! Joins everything, without logic: reads top to bottom as the life of a replica. [`build`] returns what it bound; [`run`] is
//! that with a runtime and signals around it.
//!
//! Threads: the workers serve calls; `health` answers probes, so that a busy worker never looks dead; the thread that calls
//! [`run`] is the control thread: accounts, certificates, housekeeping, the admin port, signals.

mod cluster;
mod exporters;
mod housekeeping;
mod ports;
mod ready_file;
mod settings;
mod shutdown;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use self::cluster::Prepared;
use self::exporters::Exporters;
pub use self::ports::Addresses;
use self::ports::Ports;
use self::ready_file::ReadyFile;
pub use self::shutdown::Shutdown;
use super::accept::{Wire, WireConfig, WireHandle};
use super::accounts::Accounts;
use super::accounts::remote::RemoteError;
use super::accounts::watch::{OpenError, POLL_INTERVAL};
use super::admin;
use super::clock::Clock;
use super::config::{AccountsConfig, Config, ConfigError};
use super::drain::{self, Trigger};
use super::health::Health;
use super::liveness::Pulse;
use super::memory::Kernel;
use super::metrics::Metrics;
use super::probes::Probes;
use super::readiness::Readiness;
use super::stack::Stack;
use super::tls::{Tls, TlsError};
use super::wall::Parts;
use super::workers::Workers;
use crate::cache::store::Store;
use crate::kubernetes::ClientError;
use crate::rpc::channels::{ChannelError, TargetError};

pub use super::drain::Outcome;

/// A running replica: where it listens, and how to end it.
#[derive(Debug)]
pub struct Bound {
    pub addresses: Addresses,
    pub shutdown: Shutdown,
}

/// Why a replica could not start. `Display` says what to check.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot listen on {address}: {source}; choose another with {flag}")]
    Bind { flag: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Accounts(#[from] OpenError),
    #[error(transparent)]
    RemoteAccounts(#[from] RemoteError),
    #[error("there are no accounts; name a file with --accounts or a service with --accounts-url")]
    NoAccounts,
    #[error("{error}{source}", source = chain(.error))]
    Tls { error: TlsError },
    #[error("the members cannot be asked for: {error}")]
    Members { error: ClientError },
    #[error(transparent)]
    Configuration(#[from] ConfigError),
    #[error("the collector cannot be told anything: {0}")]
    Endpoint(#[from] TargetError),
    #[error("the collector cannot be told anything: {error}")]
    Collector { error: ChannelError },
    #[error("the memory of this machine is unknown; say with --capacity how much the entries may take")]
    Capacity,
    #[error("cannot write the ready file {path}: {source}")]
    ReadyFile { path: PathBuf, source: io::Error },
    #[error("the system gives no thread or timer: {0}; check the limits of threads and open files")]
    System(#[from] io::Error),
}

/// How long the health port may take to end after everything else.
const HEALTH_DRAIN: Duration = Duration::from_millis(200);

/// Starts a replica; must be called in a tokio runtime, which becomes its control thread and must go on running. Returns when
/// it serves; in a cluster, when it listens: it serves as soon as the others have cleared it, which its health tells.
///
/// # Errors
/// When an address is taken, a file is wrong, or the system gives no threads.
pub async fn build(config: &Config, clock: Clock) -> Result<Bound, AppError> {
    config.ready_file.as_deref().map(ready_file::clear);
    // Bind first: an address that is taken is the most frequent mistake, and nobody is told of a port before it is there.
    let ports = Ports::bind(config)?;
    let addresses = ports.addresses()?;
    let readiness = Readiness::default();
    let (accounts_token, listeners_token) = (readiness.token("accounts"), readiness.token("listeners"));
    let mut tasks = JoinSet::new();

    let capacity = settings::capacity(config, &Kernel::default()).ok_or(AppError::Capacity)?;
    let workers = Workers::start(config.process.workers)?;
    let store = Arc::new(Store::new(settings::store(capacity, workers.count())));
    let others = ports.peer.map(|port| Prepared::new(config, port, addresses.grpc, &store, &clock)).transpose()?;
    let accounts = accounts(&config.accounts, &mut tasks)?;
    let tls = settings::tls(config).map(Tls::load).transpose().map_err(|error| AppError::Tls { error })?;
    let health = Health::default();
    let metrics = Arc::new(Metrics::new(workers.count()));
    let (tracer, mut exporters) = Exporters::start(config)?;
    let parts = Parts {
        cluster: others.as_ref().map(Prepared::cluster),
        store,
        accounts,
        config: settings::wall(config, workers.count(), capacity),
        clock,
        health: health.clone(),
        metrics: Arc::clone(&metrics),
        tracer,
    };
    let (trigger, watch) = drain::channel();
    let stack = Stack::new(parts, watch.clone());
    let wall = Arc::clone(stack.wall());
    drop(accounts_token);

    let wire = Wire::start(&workers, ports.grpc, settings::wire(config), tls.clone(), stack, watch)?;
    metrics.attach(Arc::clone(wire.stats()), tls);
    let (prober, health_trigger, health_wire) = prober(ports.health, &health, &mut tasks)?;
    let start = |others: Prepared| others.start(config, &workers, &wall, readiness.token("members"));
    let members = others.map(start).transpose()?;
    exporters.start_metrics(config, &wall)?;
    drop(listeners_token);

    let pages = settings::pages(&readiness, &health, &wall);
    tasks.spawn(async move { drop(admin::serve(ports.admin, pages).await) });
    housekeeping::start(&mut tasks, &wall, config.memory.capacity.is_none());
    let serve = housekeeping::serve_when_ready(readiness, health.clone(), addresses, capacity);
    if members.is_some() {
        tasks.spawn(serve);
    } else {
        serve.await;
    }
    let ready_file = ReadyFile::write(config.ready_file.as_deref(), &addresses)?;
    let shutdown = Shutdown {
        delay: config.process.drain_delay,
        timeout: config.process.drain_timeout,
        health,
        trigger,
        wire,
        members,
        workers,
        health_trigger,
        health_wire,
        prober,
        tasks,
        exporters,
        _ready_file: ready_file,
    };
    Ok(Bound { addresses, shutdown })
}

/// Runs a replica on this thread until SIGTERM or an interrupt; `started` is called once it
/// serves, or, in a cluster, listens.
///
/// # Errors
/// Those of [`build`].
pub fn run(config: &Config, started: impl FnOnce(&Addresses)) -> Result<Outcome, AppError> {
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    control.block_on(async {
        let mut signals = shutdown::Signals::listen()?;
        let bound = build(config, Clock::start()).await?;
        started(&bound.addresses);
        tokio::select! {
            () = signals.terminated() => {}
            () = bound.shutdown.broken() => tracing::error!("the hand-off's thread has ended; so does this replica"),
        }
        Ok(bound.shutdown.run(&mut signals).await)
    })
}

impl AppError {
    /// Whether the configuration is to be changed, as opposed to the machine.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::System(_))
    }
}

/// Answers probes: a thread of its own, so that a busy worker never looks dead, and this thread's pulse, so that a stuck one does.
fn prober(
    port: TcpListener,
    health: &Health,
    tasks: &mut JoinSet<()>,
) -> Result<(Workers, Trigger, WireHandle), AppError> {
    let prober = Workers::start(1)?;
    let (trigger, watch) = drain::channel();
    let pulse = Pulse::default();
    tasks.spawn(pulse.clone().beat());
    prober.handle(0).spawn(pulse.watch(health.clone()));
    let wire = Wire::start(&prober, port, WireConfig::default(), None, Probes::new(health), watch)?;
    Ok((prober, trigger, wire))
}

fn accounts(config: &AccountsConfig, tasks: &mut JoinSet<()>) -> Result<Accounts, AppError> {
    match (&config.file, &config.url) {
        (Some(path), _) => {
            let (accounts, watch) = Accounts::file(path)?;
            tasks.spawn(watch.run(POLL_INTERVAL));
            Ok(accounts)
        }
        (None, Some(url)) => Ok(Accounts::remote(&settings::remote(config, url), &Handle::current())?),
        (None, None) => Err(AppError::NoAccounts),
    }
}

/// What a failure says of its cause.
fn chain(error: &TlsError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}
