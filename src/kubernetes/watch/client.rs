//! A client for the API server, as this pod's service account: HTTP/1.1 over TLS, with the token of a file.
//!
//! Not kube's own, which can also do whatever a kubeconfig may ask for: YAML, JSON paths, programs that are run for a token. No pod
//! needs that, and it is a megabyte of the image. The files of token and CA change while a pod lives, so the token is read anew
//! for each call and the CA for each connection; there is a call or two per minute.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Uri};
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::{BoxError, Layer as _, Service, ServiceExt as _, service_fn};

/// Within this time there is a connection to the API server, or none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connecting = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;

/// Does not connect. Within a tokio runtime only.
///
/// # Errors
/// When the files of the token or the CA cannot be read.
pub fn client(config: Config) -> Result<Client, BoxError> {
    let uri = config.base_uri_layer();
    let namespace = config.default_namespace.clone();
    let mut last = config.auth_info.token_file.as_ref().map(authorization).transpose()?;
    tls(&config)?;
    let token_file = config.auth_info.token_file.clone();
    let http = Http::builder(TokioExecutor::new()).build(service_fn(move |to| connect(&config, to)));
    let service = http.map_request(move |mut request: Request<Body>| {
        // A token that cannot be read this time is still the one of before.
        if let Some(read) = token_file.as_ref().and_then(|file| authorization(file).ok()) {
            last = Some(read);
        }
        if let Some(value) = &last {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        request
    });
    Ok(Client::new(uri.layer(service), namespace))
}

fn connect(config: &Config, to: Uri) -> Connecting {
    let tls = tls(config);
    Box::pin(async move {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls?).https_only().enable_http1();
        let connection = timeout(CONNECT_TIMEOUT, builder.wrap_connector(http).call(to)).await;
        connection.map_err(|_| format!("no connection within {CONNECT_TIMEOUT:?}"))?
    })
}

fn tls(config: &Config) -> Result<ClientConfig, BoxError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &config.root_cert_file {
        let unusable = |error: &dyn std::fmt::Display| format!("the CA {}: {error}", file.display());
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))? {
            let certificate = certificate.map_err(|error| unusable(&error))?;
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// The header that a token in a file makes.
fn authorization(file: impl AsRef<Path>) -> Result<HeaderValue, BoxError> {
    let file = file.as_ref();
    let read = std::fs::read_to_string(file).map_err(|error| format!("the token {}: {error}", file.display()))?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", read.trim()))?;
    value.set_sensitive(true);
    Ok(value)
}
