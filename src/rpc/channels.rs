//! Client connections: from a target as a person writes it to a lazily connected `Channel`.
//!
//! Not here: which member a call goes to, retries, and pools; a `Channel` is one HTTP/2 connection that is made again when it
//! breaks.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::coalesce::Coalesce;

/// The port of Larder's gRPC API, where a target names none.
pub const DEFAULT_PORT: u16 = 7070;

/// Time for the connection to be made, TLS included. The call's own deadline is usually shorter and wins.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a connection with calls on it is asked whether it lives. gRPC servers resent less than 10 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// How long the answer may take before the connection is given up.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that the server may send ahead on one stream: a slow reader of a dump holds back the server, not its own memory.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// The same for the connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Where a server is: a host name or an address, a port, and whether to speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As in a URI: IPv6 in brackets.
    host: String,
    port: u16,
    /// `None`: as the TLS options say.
    tls: Option<bool>,
}

/// What a client wants of TLS. Holds paths, never keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities that the server's certificate may come from; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate chain and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must have; `None`: the target's host.
    pub server_name: Option<String>,
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no target; give HOST:PORT, http://HOST:PORT or https://HOST:PORT")]
pub struct TargetError(String);

/// Why there can be no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("cannot read the TLS file {path}: {problem}", path = .path.display())]
    File { path: PathBuf, problem: io::Error },
    #[error("the TLS options are given but the target says http://; use https://, or leave the scheme out")]
    TlsWithoutHttps,
    #[error("the TLS options do not work: {0}")]
    Tls(String),
}

/// A channel that connects when it is first used, and again after a break.
///
/// # Errors
/// When the TLS files cannot be used. That no server answers shows in the first call.
pub fn connect(target: &Target, tls: &Tls) -> Result<Channel, ChannelError> {
    let secure = target.is_secure(tls)?;
    let mut endpoint = Endpoint::from_shared(target.uri(secure))
        .map_err(|error| ChannelError::Tls(error.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    if secure {
        endpoint = endpoint.tls_config(tls.config()?).map_err(|error| ChannelError::Tls(causes(&error)))?;
    }
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(dial)))
}

/// An error and what caused it, as one sentence: transports hide the useful part at the bottom.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

async fn dial(uri: Uri) -> io::Result<TokioIo<Coalesce<TcpStream>>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(DEFAULT_PORT))).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(Coalesce::new(stream)))
}

impl Target {
    /// A replica at "ip:port" or "[ip]:port", reached as this one is.
    ///
    /// # Errors
    /// When it is no such address.
    pub fn at(&self, address: &str) -> Result<Self, TargetError> {
        let target: Self = address.parse()?;
        Ok(Self { tls: self.tls, ..target })
    }

    /// As a socket takes it: IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether to speak TLS.
    ///
    /// # Errors
    /// [`ChannelError::TlsWithoutHttps`].
    pub fn is_secure(&self, tls: &Tls) -> Result<bool, ChannelError> {
        let secure = self.tls.unwrap_or(tls.is_given());
        if tls.is_given() && !secure { Err(ChannelError::TlsWithoutHttps) } else { Ok(secure) }
    }

    /// The URI of a method's path there.
    #[must_use]
    pub fn uri_of(&self, path: &str) -> String {
        format!("{}{path}", self.uri(self.tls.unwrap_or(false)))
    }

    fn uri(&self, secure: bool) -> String {
        format!("{}://{}:{}", if secure { "https" } else { "http" }, self.host, self.port)
    }
}

impl Default for Target {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT, tls: None }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let no_target = || TargetError(text.to_owned());
        let (tls, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(false), rest),
            Some(("https", rest)) => (Some(true), rest),
            Some(_) => return Err(no_target()),
        };
        let authority: http::uri::Authority =
            rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| no_target())?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host).ok_or_else(no_target)? {
            "" => DEFAULT_PORT,
            port => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(no_target)?,
        };
        if host.is_empty() || port == 0 {
            return Err(no_target());
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tls {
            Some(secure) => f.write_str(&self.uri(secure)),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Tls {
    fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// The content of a file of authorities. One without a certificate would mean: trust nobody; say so before the first call
    /// fails.
    ///
    /// # Errors
    /// When it cannot be read or has none.
    pub fn authorities(&self, path: &Path) -> Result<Vec<u8>, ChannelError> {
        let pem = self.read(path)?;
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(ChannelError::Tls(format!("there is no PEM certificate in {}", path.display())));
        }
        Ok(pem)
    }

    /// The content of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>, ChannelError> {
        std::fs::read(path).map_err(|problem| ChannelError::File { path: path.to_owned(), problem })
    }

    fn config(&self) -> Result<ClientTlsConfig, ChannelError> {
        let mut config = match &self.ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.authorities(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.certificate {
            config = config.identity(Identity::from_pem(self.read(certificate)?, self.read(key)?));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name.clone());
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_written_as_people_do() {
        let table = [
            ("127.0.0.1:7070", "127.0.0.1:7070"),
            ("http://larder:80", "http://larder:80"),
            ("https://cache.example.org:443/", "https://cache.example.org:443"),
            ("localhost", "localhost:7070"),
            ("[::1]:9", "[::1]:9"),
            ("[::1]", "[::1]:7070"),
        ];
        for (text, shown) in table {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for bad in [
            "",
            ":7070",
            "host:0",
            "host:port",
            "host:70000",
            "ftp://host:1",
            "host:1/path",
            "u@host:1",
            "a b:1",
            "::1",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tls_options_and_http_contradict_each_other() {
        let tls = Tls { server_name: Some("larder".to_owned()), ..Tls::default() };
        let target = "http://localhost:1".parse().unwrap();
        assert!(matches!(connect(&target, &tls), Err(ChannelError::TlsWithoutHttps)));
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let tls = Tls { ca: Some("Cargo.toml".into()), ..Tls::default() };
        let error = connect(&"localhost:1".parse().unwrap(), &tls).unwrap_err();
        assert!(error.to_string().contains("Cargo.toml"), "{error}");
        let tls = Tls { ca: Some("no/such/file".into()), ..Tls::default() };
        let error = connect(&"localhost:1".parse().unwrap(), &tls).unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }
}
