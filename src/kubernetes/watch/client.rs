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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn as answer_with;
    use kube::config::AuthInfo;
    use parking_lot::Mutex;
    use rustls::ServerConfig;
    use rustls_pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Who a server is, and the PEM of it.
    fn identity() -> (ServerConfig, String) {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        (builder.with_single_cert(vec![signed.cert.der().clone()], key).unwrap(), signed.cert.pem())
    }

    /// Answers one call on each connection, as the next of `identities`; the tokens that came.
    async fn serve(identities: Vec<ServerConfig>) -> (Uri, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&tokens);
        tokio::spawn(async move {
            for identity in identities {
                let (socket, _) = listener.accept().await.unwrap();
                // Who does not trust it hangs up.
                let Ok(tls) = TlsAcceptor::from(Arc::new(identity)).accept(socket).await else { continue };
                let answer = |request: Request<Incoming>| {
                    seen.lock().push(request.headers()[AUTHORIZATION].to_str().unwrap().to_owned());
                    async { Ok::<_, Infallible>(Response::new(String::new())) }
                };
                let _ = http1::Builder::new()
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(tls), answer_with(answer))
                    .await;
            }
        });
        (uri, tokens)
    }

    #[tokio::test]
    async fn token_and_ca_are_read_again_when_their_files_were_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (token, ca) = (folder.path().join("token"), folder.path().join("ca.crt"));
        let ((first, first_ca), (second, second_ca)) = (identity(), identity());
        std::fs::write(&token, "one\n").unwrap();
        std::fs::write(&ca, first_ca).unwrap();
        let (uri, tokens) = serve(vec![first, second.clone(), second.clone(), second]).await;
        let mut config = Config::new(uri);
        config.root_cert_file = Some(ca.clone());
        config.auth_info = AuthInfo { token_file: Some(token.to_str().unwrap().to_owned()), ..AuthInfo::default() };
        let client = client(config).unwrap();
        let ask = || client.request_text(Request::get("/").body(Vec::new()).unwrap());

        ask().await.unwrap();
        std::fs::write(&token, "two").unwrap();
        ask().await.unwrap_err();
        std::fs::write(&ca, second_ca).unwrap();
        ask().await.unwrap();
        // Not there while it is replaced: the one of before.
        std::fs::remove_file(&token).unwrap();
        ask().await.unwrap();
        assert_eq!(*tokens.lock(), ["Bearer one", "Bearer two", "Bearer two"]);
    }
}
