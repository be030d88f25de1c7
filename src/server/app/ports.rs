//! The ports of a replica. All are bound before anything else is done: an address that is taken is the most frequent mistake.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::AppError;
use crate::server::config::Config;
use crate::server::{accept, admin};

/// Where a replica listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub grpc: SocketAddr,
    /// Where other replicas call; none: this one is alone.
    pub peer: Option<SocketAddr>,
    pub health: SocketAddr,
    pub admin: SocketAddr,
}

/// Listeners that nobody is served on yet.
pub(super) struct Ports {
    pub(super) grpc: TcpListener,
    /// None: this replica is alone.
    pub(super) peer: Option<TcpListener>,
    pub(super) health: TcpListener,
    pub(super) admin: TcpListener,
}

impl Ports {
    pub(super) fn bind(config: &Config) -> Result<Self, AppError> {
        let peer = || listen("--peer-listen", config.cluster.peer_listen, accept::bind);
        Ok(Self {
            grpc: listen("--listen", config.listen, accept::bind)?,
            peer: config.cluster.has_members().then(peer).transpose()?,
            health: listen("--health-listen", config.health_listen, accept::bind)?,
            admin: listen("--admin-listen", config.admin_listen, admin::bind)?,
        })
    }

    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            grpc: self.grpc.local_addr()?,
            peer: self.peer.as_ref().map(TcpListener::local_addr).transpose()?,
            health: self.health.local_addr()?,
            admin: self.admin.local_addr()?,
        })
    }
}

fn listen(
    flag: &'static str,
    address: SocketAddr,
    bind: impl FnOnce(SocketAddr) -> io::Result<TcpListener>,
) -> Result<TcpListener, AppError> {
    bind(address).map_err(|source| AppError::Bind { flag, address, source })
}
