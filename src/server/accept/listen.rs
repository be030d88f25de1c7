//! The listening socket.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps until they are accepted; more are told to try again. Cut to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Connections that are accepted after the end began: those that the kernel kept then, and no endless stream of new ones.
const MAX_LAST: usize = BACKLOG as usize;

/// Where connections come from. A trait so that a test can make it fail.
pub(super) trait Accept: Send + 'static {
    /// The next connection. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;

    /// Closes, after those that have come and were not accepted: closed with them, they would be reset, whatever they have
    /// sent by then.
    fn close(self) -> impl Iterator<Item = (TcpStream, SocketAddr)> + Send;
}

/// Accepts from the system. The sockets are taken out of this runtime again: they go to another worker's.
#[derive(Debug)]
pub(super) struct SystemListener(tokio::net::TcpListener);

/// Binds a listener; `[::]:0` listens on both families. SO_REUSEADDR, so that a restart need not wait.
///
/// # Errors
/// The system's own: the address is in use, is not of this machine, or needs a privilege.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl SystemListener {
    /// Must be called within the runtime that will accept.
    pub(super) fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener).map(Self)
    }
}

impl Accept for SystemListener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, address) = self.0.accept().await?;
        Ok((socket.into_std()?, address))
    }

    fn close(self) -> impl Iterator<Item = (TcpStream, SocketAddr)> + Send {
        let listener = self.0.into_std().ok();
        // Asked of the system itself: the runtime may not have heard of the last ones.
        std::iter::from_fn(move || listener.as_ref()?.accept().ok()).take(MAX_LAST)
    }
}
