//! From a target to HTTP/2 on it.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use crate::rpc::channels::{ChannelError, Target, Tls, causes};
use crate::rpc::coalesce::Coalesce;
use crate::rpc::hear_out::HearOut;
use crate::rpc::http2::{Http2, Io, handshake};

/// Bytes that the replica may send ahead on one stream: a slow reader of a dump holds back the replica, not its own memory.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// TLS to every replica: all show a certificate for one name, that of the seeds, since members are known by address.
#[derive(Clone)]
pub(super) struct Secure {
    options: Tls,
    name: ServerName<'static>,
    /// What the options gave at first; files are read again for each connection, as they are replaced.
    config: Arc<ClientConfig>,
}

impl Secure {
    /// `None`: plain text.
    ///
    /// # Errors
    /// When the TLS files cannot be used.
    pub(super) fn new(seed: &Target, options: &Tls) -> Result<Option<Self>, ChannelError> {
        if !seed.is_secure(options)? {
            return Ok(None);
        }
        let name = options.server_name.as_deref().unwrap_or(seed.host()).to_owned();
        let wrong = |_| ChannelError::Tls(format!("`{name}` is no name that a certificate can have"));
        let name = ServerName::try_from(name.clone()).map_err(wrong)?;
        Ok(Some(Self { options: options.clone(), name, config: config(options)? }))
    }

    /// The current configuration: the files may have been replaced.
    fn config(&self) -> Arc<ClientConfig> {
        if self.options.certificate.is_none() && self.options.ca.is_none() {
            return Arc::clone(&self.config);
        }
        // Half-written files are whole a moment later; until then what there was is good.
        config(&self.options).unwrap_or_else(|_| Arc::clone(&self.config))
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("options", &self.options).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Connects. The error is a sentence.
pub(super) async fn dial(target: &Target, tls: Option<&Secure>) -> Result<Http2, String> {
    let socket = HearOut::new(connect(target).await?);
    let io: Io = match tls {
        None => Box::new(Coalesce::new(socket)),
        Some(tls) => {
            let connector = TlsConnector::from(tls.config());
            let stream = connector.connect(tls.name.clone(), Coalesce::new(socket)).await;
            Box::new(stream.map_err(|error| format!("TLS: {}", causes(&error)))?)
        }
    };
    handshake(io, STREAM_WINDOW_BYTES).await.map_err(|error| format!("HTTP/2: {error}"))
}

/// A socket to any address that the target's name has, beginning with one by chance: so clients spread over them.
async fn connect(target: &Target) -> Result<TcpStream, String> {
    let found = lookup_host((target.host(), target.port())).await;
    let mut addresses: Vec<_> = found.map_err(|error| format!("the name cannot be looked up: {error}"))?.collect();
    if addresses.is_empty() {
        return Err("the name has no address".to_owned());
    }
    let first = rand::random_range(0..addresses.len());
    addresses.rotate_left(first);
    let socket = TcpStream::connect(&*addresses).await.map_err(|error| causes(&error))?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(socket)
}

fn config(options: &Tls) -> Result<Arc<ClientConfig>, ChannelError> {
    let mut roots = RootCertStore::empty();
    match &options.ca {
        Some(path) => {
            let pem = options.authorities(path)?;
            for authority in CertificateDer::pem_slice_iter(&pem).flatten() {
                roots.add(authority).map_err(|error| ChannelError::Tls(format!("{}: {error}", path.display())))?;
            }
        }
        None => {
            for authority in rustls_native_certs::load_native_certs().certs {
                // Some system has an odd one among a hundred.
                let _ = roots.add(authority);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ChannelError::Tls(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match &options.certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let unusable = |path: &std::path::Path, error: &dyn std::fmt::Display| {
                ChannelError::Tls(format!("{}: {error}", path.display()))
            };
            let chain = CertificateDer::pem_slice_iter(&options.read(certificate)?).flatten().collect();
            let key_pem = options.read(key)?;
            let key_der = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| unusable(key, &error))?;
            builder.with_client_auth_cert(chain, key_der).map_err(|error| unusable(certificate, &error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
