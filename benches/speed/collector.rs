//! A collector as a child process: takes OTLP over gRPC and forgets it. Its CPU time is its own, and it is on the load
//! generator's cores.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::runtime::Builder;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, async_trait};
use tower::ServiceExt as _;

use crate::peers::Peer;

/// A running collector; dropping it ends the process.
#[derive(Debug)]
pub struct Collecting {
    child: Child,
    address: String,
}

struct Forgets;

impl Collecting {
    /// Starts this same program in its collector's mode.
    pub fn start() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        let spawned = command.arg("collect").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("the collector does not start: {error}"))?;
        let mut address = String::new();
        let output = child.stdout.take().ok_or("the collector has no output")?;
        BufReader::new(output).read_line(&mut address).map_err(|error| error.to_string())?;
        Ok(Self { child, address: address.trim().to_owned() })
    }

    /// What a variant of Larder is told.
    pub fn flags(&self, peer: Peer) -> Vec<String> {
        let endpoint = format!("http://{}", self.address);
        let flags: &[&str] = match peer {
            Peer::Traced => {
                &["--otlp-traces-endpoint", &endpoint, "--traces-sampler=traceidratio", "--traces-sampler-arg=0.01"]
            }
            Peer::AllTraced => &["--otlp-traces-endpoint", &endpoint],
            Peer::Measured => &["--otlp-metrics-endpoint", &endpoint, "--metrics-interval=1s"],
            _ => &[],
        };
        flags.iter().map(ToString::to_string).collect()
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Collects until standard input ends, which it does when the parent is gone. The first line of output is the address.
pub fn serve() -> io::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let incoming = {
        let _guard = runtime.enter();
        TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?
    };
    writeln!(io::stdout(), "{}", incoming.local_addr()?)?;
    io::stdout().flush()?;
    thread::spawn(move || {
        let both = tower::service_fn(|request: http::Request<tonic::body::Body>| async move {
            if request.uri().path().contains("MetricsService") {
                MetricsServiceServer::new(Forgets).oneshot(request).await
            } else {
                TraceServiceServer::new(Forgets).oneshot(request).await
            }
        });
        runtime.block_on(Server::builder().serve_with_incoming(both, incoming))
    });
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

#[async_trait]
impl TraceService for Forgets {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[async_trait]
impl MetricsService for Forgets {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}
