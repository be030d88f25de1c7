//! TLS of a listener: rustls with ring, TLS 1.2 and 1.3, ALPN `h2`, client certificates on request.
//!
//! Certificate, key and client CA are read again every few seconds and swapped whole when their content has changed and
//! is good; connections that are open keep what they began with. Content, not time or inode, is compared, because
//! Kubernetes swaps a symlink above the files. Files that cannot be used leave the old ones in place, and one error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest as _, Sha256};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use zeroize::Zeroizing;

use self::name::OfName;
use super::drain;
use super::peer::seldom::Seldom;

mod name;

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// How often the files are read.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// The files of a listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM: the leaf first, then its intermediates.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// Whether clients show certificates, and whose.
    pub clients: ClientCertificates,
    /// See [`RELOAD_INTERVAL`].
    pub reload_interval: Duration,
}

/// Whether clients show certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Ignored,
    /// They are asked; what they show must be signed by a CA of this PEM file.
    Optional(PathBuf),
    /// Who shows none signed by a CA of this PEM file is refused.
    Required(PathBuf),
    /// As `Required`, and it must be for this name: replicas among themselves, whose addresses are in no certificate. The
    /// same certificate, CA and name serve for connections to them ([`Tls::connector`]).
    Peers { ca: PathBuf, name: ServerName<'static> },
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}; check that it exists and that this user may read it")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} holds no usable {what} in PEM")]
    Pem {
        /// Which.
        path: PathBuf,
        /// "certificate" or "private key".
        what: &'static str,
    },
    /// Key and certificate do not fit, or the CA is unusable.
    #[error("the certificate {certificate} cannot be used; check that the key belongs to it")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// rustls's word.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The current TLS configuration of a listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsConfig,
    current: ArcSwap<Configs>,
    /// Digest of the files that were last tried, good or bad.
    tried: parking_lot::Mutex<[u8; 32]>,
    is_kept_fresh: AtomicBool,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
}

/// What is made of the files.
#[derive(Debug)]
struct Configs {
    server: Arc<ServerConfig>,
    /// For connections to other replicas.
    client: Option<Arc<ClientConfig>>,
    /// When the leaf ends to be valid, in seconds since 1970.
    expires: Option<u64>,
}

/// The content of the files.
struct Material {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    ca: Vec<u8>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, is not PEM, or key and certificate do not fit.
    pub fn load(files: TlsConfig) -> Result<Self, TlsError> {
        let material = Material::read(&files)?;
        let current = ArcSwap::from_pointee(material.configs(&files)?);
        Ok(Self(Arc::new(Inner {
            files,
            current,
            tried: parking_lot::Mutex::new(material.digest()),
            is_kept_fresh: AtomicBool::new(false),
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
        })))
    }

    /// Times that changed files were taken.
    pub fn reloads(&self) -> u64 {
        self.0.reloads.load(Ordering::Relaxed)
    }

    /// Times that changed files could not be used.
    pub fn failed_reloads(&self) -> u64 {
        self.0.failed_reloads.load(Ordering::Relaxed)
    }

    /// When the certificate in use ends to be valid, in seconds since 1970.
    pub fn expires(&self) -> Option<u64> {
        self.0.current.load().expires
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.current.load().server))
    }

    /// For the next connection to another replica, and the name that its certificate must be for; only with
    /// [`ClientCertificates::Peers`].
    pub(super) fn connector(&self) -> Option<(TlsConnector, ServerName<'static>)> {
        let ClientCertificates::Peers { name, .. } = &self.0.files.clients else { return None };
        let client = self.0.current.load().client.clone()?;
        Some((TlsConnector::from(client), name.clone()))
    }

    /// Reads the files again and again, until `drain` begins. A second call on the same files ends at once.
    pub async fn keep_fresh(self, mut drain: drain::Watch) {
        if self.0.is_kept_fresh.swap(true, Ordering::Relaxed) {
            return;
        }
        loop {
            tokio::select! {
                _ = drain.started() => return,
                () = tokio::time::sleep(self.0.files.reload_interval) => {}
            }
            let tls = self.clone();
            // A panic has told so itself; the old files stay.
            let _ = tokio::task::spawn_blocking(move || tls.reload()).await;
        }
    }

    /// Takes the files if they have changed and are good.
    fn reload(&self) {
        let Inner { files, current, tried, reloads, failed_reloads, .. } = &*self.0;
        let material = Material::read(files);
        // One digest for "cannot be read", so that this too is said once.
        let digest = material.as_ref().map_or([0; 32], Material::digest);
        if std::mem::replace(&mut *tried.lock(), digest) == digest {
            return;
        }
        match material.and_then(|material| material.configs(files)) {
            Ok(configs) => {
                current.store(Arc::new(configs));
                reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(certificate = %files.certificate.display(), "took the changed TLS files");
            }
            Err(error) => {
                failed_reloads.fetch_add(1, Ordering::Relaxed);
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "cannot take the changed TLS files; the old ones stay in use");
            }
        }
    }
}

impl Material {
    fn read(files: &TlsConfig) -> Result<Self, TlsError> {
        let ca = match &files.clients {
            ClientCertificates::Ignored => Vec::new(),
            ClientCertificates::Optional(ca)
            | ClientCertificates::Required(ca)
            | ClientCertificates::Peers { ca, .. } => bytes(ca)?,
        };
        Ok(Self { certificate: bytes(&files.certificate)?, key: Zeroizing::new(bytes(&files.key)?), ca })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.certificate, &*self.key, &self.ca] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// Parses and checks everything.
    fn configs(&self, files: &TlsConfig) -> Result<Configs, TlsError> {
        let client = match &files.clients {
            ClientCertificates::Peers { ca, .. } => Some(Arc::new(self.client_config(files, ca)?)),
            _ => None,
        };
        Ok(Configs { server: Arc::new(self.server_config(files)?), client, expires: self.expires(files) })
    }

    fn expires(&self, files: &TlsConfig) -> Option<u64> {
        let (chain, _) = self.identity(files).ok()?;
        let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
        u64::try_from(leaf.validity().not_after.timestamp()).ok()
    }

    fn server_config(&self, files: &TlsConfig) -> Result<ServerConfig, TlsError> {
        let unusable = |error: rustls::Error| unusable(files, error);
        let (chain, key) = self.identity(files)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(VERSIONS)
            .map_err(unusable)?;
        let builder = match self.client_verifier(&files.clients, provider)? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn client_config(&self, files: &TlsConfig, ca: &Path) -> Result<ClientConfig, TlsError> {
        let unusable = |error: rustls::Error| unusable(files, error);
        let (chain, key) = self.identity(files)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS).map_err(unusable)?;
        let builder = builder.with_root_certificates(self.roots(ca)?);
        let mut config = builder.with_client_auth_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn identity(&self, files: &TlsConfig) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::Pem { path: files.key.clone(), what: "private key" })?;
        Ok((chain, key))
    }

    fn roots(&self, path: &Path) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(path, &self.ca)? {
            roots.add(root).map_err(|_| no_ca(path))?;
        }
        Ok(roots)
    }

    fn client_verifier(
        &self,
        clients: &ClientCertificates,
        provider: Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let path = match clients {
            ClientCertificates::Ignored => return Ok(None),
            ClientCertificates::Optional(ca)
            | ClientCertificates::Required(ca)
            | ClientCertificates::Peers { ca, .. } => ca,
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots(path)?), provider);
        let verifier = match clients {
            ClientCertificates::Optional(_) => verifier.allow_unauthenticated(),
            _ => verifier,
        };
        let verifier = verifier.build().map_err(|_| no_ca(path))?;
        Ok(Some(match clients {
            ClientCertificates::Peers { name, .. } => {
                Arc::new(OfName { chain: verifier, name: name.clone(), seldom: Seldom::default() })
            }
            _ => verifier,
        }))
    }
}

fn no_ca(path: &Path) -> TlsError {
    TlsError::Pem { path: path.to_owned(), what: "CA certificate" }
}

fn unusable(files: &TlsConfig, source: rustls::Error) -> TlsError {
    TlsError::Unusable { certificate: files.certificate.clone(), source: source.into() }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::Pem { path: path.to_owned(), what: "certificate" })
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
