//! TLS: versions, client certificates, and certificates that change while the server runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::server::accept::{Ended, WireConfig};
use larder::server::tls::{ClientCertificates, Tls, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Client, Server, eventually, until_closed};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `localhost` and its key, in PEM.
fn leaf(ca: &Ca) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

fn write(directory: &Path, (certificate, key): &(String, String)) {
    fs::write(directory.join("tls.crt"), certificate).unwrap();
    fs::write(directory.join("tls.key"), key).unwrap();
}

fn files(directory: &Path, clients: ClientCertificates) -> TlsConfig {
    TlsConfig {
        certificate: directory.join("tls.crt"),
        key: directory.join("tls.key"),
        clients,
        reload_interval: Duration::from_millis(20),
    }
}

/// A server with a leaf of `ca` in `directory`.
fn start(directory: &TempDir, ca: &Ca, clients: ClientCertificates, config: WireConfig) -> (Server, Tls) {
    write(directory.path(), &leaf(ca));
    let tls = Tls::load(files(directory.path(), clients)).unwrap();
    (Server::start_with(config, Some(tls.clone())), tls)
}

/// A client that trusts `ca`, and shows `certificate` if there is one.
fn trusting(
    ca: &Ca,
    certificate: Option<&(String, String)>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

async fn connect(server: &Server, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, server.socket().await).await
}

/// What `/peer` answers over a new connection; with TLS 1.3 a refused client certificate shows only then.
async fn peer(server: &Server, config: Arc<ClientConfig>) -> Option<String> {
    let client = Client::over(connect(server, config).await.ok()?).await.ok()?;
    let answer = client.call("/peer", Bytes::new()).await.ok()?;
    Some(String::from_utf8(answer.to_vec()).unwrap())
}

#[tokio::test]
async fn tls_1_2_and_1_3_both_work() {
    let (directory, ca) = (TempDir::new().unwrap(), ca());
    let (server, _) = start(&directory, &ca, ClientCertificates::Ignored, WireConfig::default());
    for version in BOTH {
        let stream = connect(&server, trusting(&ca, None, &[version])).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let client = Client::over(stream).await.unwrap();
        let value = vec![7; 300_000];
        assert_eq!(client.echo(value.clone()).await.unwrap(), value);
    }
}

#[tokio::test]
async fn an_optional_client_certificate_is_checked_if_it_is_shown() {
    let (directory, ca, clients, others) = (TempDir::new().unwrap(), ca(), ca(), ca());
    let path = directory.path().join("ca.crt");
    fs::write(&path, clients.pem()).unwrap();
    let (server, _) = start(&directory, &ca, ClientCertificates::Optional(path), WireConfig::default());
    assert!(peer(&server, trusting(&ca, None, BOTH)).await.unwrap().ends_with("true None"));
    let shown = peer(&server, trusting(&ca, Some(&leaf(&clients)), BOTH)).await.unwrap();
    assert!(shown.contains("true Some("), "{shown}");
    assert_eq!(peer(&server, trusting(&ca, Some(&leaf(&others)), BOTH)).await, None);
    server.ended(Ended::TlsFailed, 1).await;
}

#[tokio::test]
async fn a_required_client_certificate_must_be_shown() {
    let (directory, ca, clients) = (TempDir::new().unwrap(), ca(), ca());
    let path = directory.path().join("ca.crt");
    fs::write(&path, clients.pem()).unwrap();
    let (server, _) = start(&directory, &ca, ClientCertificates::Required(path), WireConfig::default());
    for version in BOTH {
        assert_eq!(peer(&server, trusting(&ca, None, &[version])).await, None);
        assert!(peer(&server, trusting(&ca, Some(&leaf(&clients)), &[version])).await.is_some());
    }
    server.ended(Ended::TlsFailed, 2).await;
}

#[tokio::test]
async fn a_changed_certificate_is_taken_and_open_connections_live_on() {
    let (directory, old, new) = (TempDir::new().unwrap(), ca(), ca());
    let (server, tls) = start(&directory, &old, ClientCertificates::Ignored, WireConfig::default());
    let before = Client::over(connect(&server, trusting(&old, None, BOTH)).await.unwrap()).await.unwrap();
    write(directory.path(), &leaf(&new));
    eventually("the new files are taken", || tls.reloads() == 1).await;
    assert!(peer(&server, trusting(&new, None, BOTH)).await.is_some());
    assert_eq!(peer(&server, trusting(&old, None, BOTH)).await, None);
    assert_eq!(before.echo("hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_changed_client_ca_is_taken() {
    let (directory, ca, old, new) = (TempDir::new().unwrap(), ca(), ca(), ca());
    let path = directory.path().join("ca.crt");
    fs::write(&path, old.pem()).unwrap();
    let (server, tls) = start(&directory, &ca, ClientCertificates::Required(path.clone()), WireConfig::default());
    let old_client = trusting(&ca, Some(&leaf(&old)), BOTH);
    assert!(peer(&server, Arc::clone(&old_client)).await.is_some());
    fs::write(&path, new.pem()).unwrap();
    eventually("the new CA is taken", || tls.reloads() == 1).await;
    // Nor does a resumed session get it in.
    assert_eq!(peer(&server, old_client).await, None);
    assert!(peer(&server, trusting(&ca, Some(&leaf(&new)), BOTH)).await.is_some());
}

#[cfg(unix)]
#[tokio::test]
async fn a_swapped_symlink_is_seen_as_kubernetes_does_it() {
    let (directory, old, new) = (TempDir::new().unwrap(), ca(), ca());
    let root = directory.path();
    for (name, ca) in [("..1", &old), ("..2", &new)] {
        fs::create_dir(root.join(name)).unwrap();
        write(&root.join(name), &leaf(ca));
    }
    std::os::unix::fs::symlink("..1", root.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), root.join(file)).unwrap();
    }
    let tls = Tls::load(files(root, ClientCertificates::Ignored)).unwrap();
    let server = Server::start_with(WireConfig::default(), Some(tls.clone()));
    assert!(peer(&server, trusting(&old, None, BOTH)).await.is_some());
    std::os::unix::fs::symlink("..2", root.join("..next")).unwrap();
    fs::rename(root.join("..next"), root.join("..data")).unwrap();
    eventually("the new files are taken", || tls.reloads() >= 1).await;
    assert!(peer(&server, trusting(&new, None, BOTH)).await.is_some());
}

#[tokio::test]
async fn a_broken_new_file_leaves_the_old_ones_in_use() {
    let (directory, ca) = (TempDir::new().unwrap(), ca());
    let (server, tls) = start(&directory, &ca, ClientCertificates::Ignored, WireConfig::default());
    fs::write(directory.path().join("tls.crt"), "no certificate").unwrap();
    eventually("it is noticed", || tls.failed_reloads() == 1).await;
    assert!(peer(&server, trusting(&ca, None, BOTH)).await.is_some());
    write(directory.path(), &leaf(&ca));
    eventually("good files are taken again", || tls.reloads() == 1).await;
    assert!(peer(&server, trusting(&ca, None, BOTH)).await.is_some());
}

#[tokio::test]
async fn a_half_open_hello_is_closed_by_the_handshake_timeout_and_a_good_client_gets_in() {
    let (directory, ca) = (TempDir::new().unwrap(), ca());
    let config = WireConfig { handshake_timeout: Duration::from_millis(300), ..WireConfig::default() };
    let (server, _) = start(&directory, &ca, ClientCertificates::Ignored, config);
    let mut halves = Vec::new();
    for _ in 0..100 {
        let mut socket = server.socket().await;
        // The record header of a ClientHello of 512 bytes, and its first bytes.
        socket.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
        halves.push(socket);
    }
    assert!(peer(&server, trusting(&ca, None, BOTH)).await.is_some());
    for half in &mut halves {
        until_closed(half).await;
    }
    server.ended(Ended::TlsTimeout, 100).await;
}

#[tokio::test]
async fn a_plain_client_on_a_tls_port_is_closed() {
    let (directory, ca) = (TempDir::new().unwrap(), ca());
    let (server, _) = start(&directory, &ca, ClientCertificates::Ignored, WireConfig::default());
    assert!(Client::over(server.socket().await).await.unwrap().echo("hello").await.is_err());
    server.ended(Ended::TlsFailed, 1).await;
}

#[test]
fn a_key_of_another_certificate_is_refused_with_a_sentence() {
    let (directory, ca) = (TempDir::new().unwrap(), ca());
    write(directory.path(), &(leaf(&ca).0, leaf(&ca).1));
    let error = Tls::load(files(directory.path(), ClientCertificates::Ignored)).unwrap_err();
    assert!(error.to_string().contains("check that the key belongs to it"), "{error}");
    fs::remove_file(directory.path().join("tls.key")).unwrap();
    let error = Tls::load(files(directory.path(), ClientCertificates::Ignored)).unwrap_err();
    assert!(error.to_string().contains("tls.key"), "{error}");
}
