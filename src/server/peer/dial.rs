//! From an address of a peer port to HTTP/2 on it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rpc::coalesce::Coalesce;
use crate::rpc::hear_out::HearOut;
use crate::rpc::http2::{Http2, Io, handshake};
use crate::server::accept::config::DEAD_PATH_TIMEOUT;
use crate::server::connection::watch_path;
use crate::server::tls::Tls;

/// A connection is made, TLS and HTTP/2 included, within this time: a member that cannot do it in a second is taken for
/// silent anyway.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that the other may send ahead on a stream: a page, so that a page takes one round trip.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// Nobody listens there.
    #[error("the connection was refused")]
    Refused,
    #[error("`{0}` is no address; it must be IP:PORT")]
    Address(String),
    #[error("no connection within {} ms", CONNECT_TIMEOUT.as_millis())]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS failed; check both certificates, the CA and the configured name: {0}")]
    Tls(io::Error),
    #[error("HTTP/2 failed: {0}")]
    Http2(h2::Error),
    #[error("it takes connections and says nothing")]
    Silent,
    #[error(
        "it ended the connection before it said anything; if it refused this replica's certificate, its log says why"
    )]
    Ungreeted,
}

/// Connects.
pub(super) async fn dial(address: &str, tls: Option<&Tls>) -> Result<Http2, DialError> {
    timeout(CONNECT_TIMEOUT, connect(address, tls)).await.unwrap_or(Err(DialError::Timeout))
}

async fn connect(address: &str, tls: Option<&Tls>) -> Result<Http2, DialError> {
    let to: SocketAddr = address.parse().map_err(|_| DialError::Address(address.to_owned()))?;
    let socket = TcpStream::connect(to).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused,
        _ => DialError::Connect(error),
    })?;
    socket.set_nodelay(true).map_err(DialError::Connect)?;
    watch_path(&SockRef::from(&socket), DEAD_PATH_TIMEOUT).map_err(DialError::Connect)?;
    let socket = HearOut::new(socket);
    let io: Io = match tls.and_then(Tls::connector) {
        None => Box::new(Coalesce::new(socket)),
        Some((connector, name)) => {
            Box::new(connector.connect(name, Coalesce::new(socket)).await.map_err(DialError::Tls)?)
        }
    };
    handshake(io, STREAM_WINDOW_BYTES).await.map_err(DialError::Http2)
}
