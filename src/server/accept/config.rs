//! What a listener allows: every limit of the wire, its unit and why it is what it is.

use std::time::Duration;

/// Connections that are through TLS and preface, at most; one more is closed at once. The tutorial's own figure.
pub const MAX_CONNECTIONS: usize = 1024;
/// Connections that are not through TLS and preface, at most; one more closes the oldest of them.
pub const MAX_HANDSHAKING: usize = 256;
/// A TLS handshake ends within this time: a full one takes two round trips.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The HTTP/2 preface comes within this time after TLS. With the handshake: under 10 s for whoever never speaks.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(4);
/// A frame other than DATA, and a header block, is complete within this time after its first byte.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(8);
/// A connection without a stream for this long gets a GOAWAY. Clients reconnect when they need to.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// A connection this old gets a GOAWAY, so that clients find new replicas and new certificates are used.
pub const CONNECTION_AGE: Duration = Duration::from_secs(3600);
/// The age of each connection differs by up to this part of it, so that those of one start do not all end at once.
pub const CONNECTION_AGE_JITTER: f64 = 0.1;
/// After a GOAWAY, streams in flight may go on for this long.
pub const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(60);
/// Streams open at a time on one connection. Without it 20,000 streams cost 174 MB that did not come back.
pub const MAX_STREAMS: u32 = 1024;
/// Streams that the client has reset before they were accepted; more is an attack (rapid reset): GOAWAY.
pub const MAX_PENDING_RESETS: usize = 20;
/// Streams that we reset because of the client's errors; more is an attack (RUSTSEC-2024-0003): GOAWAY.
pub const MAX_LOCAL_RESETS: usize = 1024;
/// Decoded header list of one request. Above what the service accepts, so that it can answer with a gRPC status.
pub const MAX_HEADER_BYTES: u32 = 32 * 1024;
/// A PING goes out when nothing was heard for this long.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(4);
/// A client from which nothing at all was heard for this long, PINGs answered included, is gone.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(9);
/// Bytes that the client's kernel does not acknowledge for this long: the path is dead (TCP_USER_TIMEOUT and TCP
/// keepalive). Costs the process nothing.
pub const DEAD_PATH_TIMEOUT: Duration = Duration::from_secs(3);
/// Output of which the client takes no single byte for this long: it does not read.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(8);
/// Unsent bytes buffered per stream before its handler has to wait.
pub const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Bytes that a client may send on a stream ahead of its handler: 10 Gbit/s over 0.2 ms. A quarter of the connection's, so
/// that a few handlers that do not read leave room for the others.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes that a client may send on a connection ahead of its handlers. Times the connections, this is memory that clients can
/// take without being read: 1 GiB at the default of 1,024.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// The limits of one listener. `Default` gives the constants of this module.
#[derive(Clone, Debug, PartialEq)]
pub struct WireConfig {
    /// See [`MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// See [`MAX_HANDSHAKING`].
    pub max_handshaking: usize,
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`PREFACE_TIMEOUT`].
    pub preface_timeout: Duration,
    /// See [`HEADER_TIMEOUT`].
    pub header_timeout: Duration,
    /// See [`IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// See [`CONNECTION_AGE`].
    pub connection_age: Duration,
    /// See [`CONNECTION_AGE_JITTER`]; a part, 0.0 to 1.0.
    pub connection_age_jitter: f64,
    /// See [`CONNECTION_AGE_GRACE`].
    pub connection_age_grace: Duration,
    /// See [`MAX_STREAMS`].
    pub max_streams: u32,
    /// See [`MAX_PENDING_RESETS`].
    pub max_pending_resets: usize,
    /// See [`MAX_LOCAL_RESETS`].
    pub max_local_resets: usize,
    /// See [`MAX_HEADER_BYTES`].
    pub max_header_bytes: u32,
    /// See [`KEEPALIVE_INTERVAL`].
    pub keepalive_interval: Duration,
    /// See [`SILENCE_TIMEOUT`].
    pub silence_timeout: Duration,
    /// See [`DEAD_PATH_TIMEOUT`].
    pub dead_path_timeout: Duration,
    /// See [`STALL_TIMEOUT`].
    pub stall_timeout: Duration,
    /// See [`SEND_BUFFER_BYTES`].
    pub send_buffer_bytes: usize,
    /// See [`STREAM_WINDOW_BYTES`].
    pub stream_window_bytes: u32,
    /// See [`CONNECTION_WINDOW_BYTES`].
    pub connection_window_bytes: u32,
}

impl Default for WireConfig {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_handshaking: MAX_HANDSHAKING,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            preface_timeout: PREFACE_TIMEOUT,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            connection_age: CONNECTION_AGE,
            connection_age_jitter: CONNECTION_AGE_JITTER,
            connection_age_grace: CONNECTION_AGE_GRACE,
            max_streams: MAX_STREAMS,
            max_pending_resets: MAX_PENDING_RESETS,
            max_local_resets: MAX_LOCAL_RESETS,
            max_header_bytes: MAX_HEADER_BYTES,
            keepalive_interval: KEEPALIVE_INTERVAL,
            silence_timeout: SILENCE_TIMEOUT,
            dead_path_timeout: DEAD_PATH_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
            send_buffer_bytes: SEND_BUFFER_BYTES,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
        }
    }
}
