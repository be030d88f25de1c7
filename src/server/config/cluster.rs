//! Flags of a replica among others. Without a source of members a replica is alone, and none of them means anything.

use std::net::{AddrParseError, IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use rustls_pki_types::ServerName;

use super::check::ConfigError;
use super::duration;
use crate::cluster::Family;

/// Other replicas: where they are told of, and how they talk.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterConfig {
    /// File that lists the members: versioned JSON, read again when it changes. Without a source of members a replica is alone
    #[arg(long, env = "LARDER_MEMBERS_FILE", value_name = "FILE")]
    pub members_file: Option<PathBuf>,

    /// Kubernetes Service whose EndpointSlices list the members instead
    #[arg(long, env = "LARDER_MEMBERS_SERVICE", value_name = "NAME")]
    pub members_service: Option<String>,

    /// Its namespace; default: this pod's own
    #[arg(long, env = "LARDER_MEMBERS_NAMESPACE", requires = "members_service", value_name = "NAME")]
    pub members_namespace: Option<String>,

    /// Which of their addresses members of a dual-stack Service have on the ring, ipv4 or ipv6, the same at all replicas;
    /// default: that of --advertise
    #[arg(long, env = "LARDER_ADDRESS_FAMILY", value_name = "FAMILY")]
    pub address_family: Option<Family>,

    /// Where other replicas call
    #[arg(long, env = "LARDER_PEER_LISTEN", default_value = "0.0.0.0:7071", value_name = "ADDR:PORT")]
    pub peer_listen: SocketAddr,

    /// This replica's place on the ring, as the source of members lists it; default: --listen, and its port where none is given
    #[arg(long, env = "LARDER_ADVERTISE", value_name = "IP[:PORT]", value_parser = place)]
    pub advertise: Option<SocketAddr>,

    /// What the source of members calls this replica (in Kubernetes the pod's UID); never used again by another
    #[arg(long, env = "LARDER_UID", value_name = "UID")]
    pub uid: Option<String>,

    /// The cluster's name; replicas of another are refused, so that two clusters never mix by a mistaken selector
    #[arg(long, env = "LARDER_CLUSTER", default_value = "larder", value_name = "NAME")]
    pub cluster: String,

    /// Certificate chain (PEM) that this replica shows to others; with key and CA, replicas use mutual TLS
    #[arg(long, env = "LARDER_PEER_TLS_CERT", requires_all = ["peer_tls_key", "peer_tls_ca"], value_name = "FILE")]
    pub peer_tls_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, env = "LARDER_PEER_TLS_KEY", requires = "peer_tls_cert", value_name = "FILE")]
    pub peer_tls_key: Option<PathBuf>,

    /// CA certificates (PEM) that other replicas' certificates are checked against, in both directions
    #[arg(long, env = "LARDER_PEER_TLS_CA", requires = "peer_tls_cert", value_name = "FILE")]
    pub peer_tls_ca: Option<PathBuf>,

    /// The name in other replicas' certificates: one for all, as their addresses come and go
    #[arg(long, env = "LARDER_PEER_TLS_NAME", default_value = "larder", value_name = "NAME", value_parser = server_name)]
    pub peer_tls_name: ServerName<'static>,

    /// Bytes per second at which keys are taken over from other replicas at most, less while requests keep the workers busy,
    /// a quarter while some wait for keys that move; 0: as fast as that goes
    #[arg(long, env = "LARDER_HANDOFF_RATE", default_value = "64MiB", value_name = "BYTES")]
    pub handoff_rate: ByteSize,

    /// After SIGTERM, how long a replica stays at least, for those whose news of the members is late; less only for
    /// development and tests
    #[arg(long, env = "LARDER_LINGER", default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub linger: Duration,
}

/// The slowest pace at which a hand-off would end within a life, in bytes per second: one entry of the largest size.
const MIN_HANDOFF_RATE: u64 = 4 * 1024 * 1024;

/// Bytes of a uid: what a Kubernetes UID has, and room.
const MAX_UID_BYTES: usize = 128;

impl ClusterConfig {
    /// Whether there is a source of members; otherwise the replica is alone.
    #[must_use]
    pub fn has_members(&self) -> bool {
        self.members_file.is_some() || self.members_service.is_some()
    }

    /// Checks what the flags say together.
    pub(super) fn check(&self, listen: SocketAddr) -> Result<(), ConfigError> {
        let error = |text: &str| Err(ConfigError::new(text));
        if self.members_file.is_some() && self.members_service.is_some() {
            return error("--members-file and --members-service are both given; keep the one that is meant");
        }
        if !self.has_members() {
            return self.check_alone();
        }
        let rate = self.handoff_rate.as_u64();
        if (1..MIN_HANDOFF_RATE).contains(&rate) {
            return error("--handoff-rate is under 4MiB per second, one entry of the largest size; give it more, or 0");
        }
        if self.uid.as_ref().is_some_and(|uid| uid.is_empty() || uid.len() > MAX_UID_BYTES) {
            return error("--uid has no character, or over 128; give it what the source of members calls this replica");
        }
        if self.uid.is_none() {
            return error(
                "a source of members needs --uid, what it calls this replica (in Kubernetes the pod's UID, by the downward API)",
            );
        }
        if self.cluster.is_empty() {
            return error("--cluster is empty; give the cluster a name");
        }
        if self.advertise.is_none() && is_no_place(listen.ip()) {
            return error(
                "--listen takes every address, so this replica's place on the ring is unknown; name it with --advertise IP[:PORT], as the source of members lists it",
            );
        }
        if self.advertise.is_some_and(|place| is_no_place(place.ip())) {
            return error("--advertise is no address that others could call; give it the replica's own IP address");
        }
        Ok(())
    }

    /// Flags that do nothing without a source of members, and that nobody gives without meaning it.
    fn check_alone(&self) -> Result<(), ConfigError> {
        let given = [(self.advertise.is_some(), "--advertise"), (self.peer_tls_cert.is_some(), "--peer-tls-cert")];
        match given.iter().find(|(given, _)| *given) {
            Some((_, flag)) => Err(ConfigError::new(&format!(
                "{flag} is given, but no source of members; name one with --members-file or --members-service"
            ))),
            None => Ok(()),
        }
    }
}

/// An address with a port, or alone, as Kubernetes tells a pod its own: then the port is 0, which is that of `--listen`.
fn place(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    alone.or_else(|_| text.parse()).map_err(|error: AddrParseError| format!("{error}; write it like 10.0.0.1:7070"))
}

/// A name as certificates have it.
fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    let name = ServerName::try_from(text.to_owned());
    name.map_err(|error| format!("{error}; write a DNS name, as it is in the certificates"))
}

fn is_no_place(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}
