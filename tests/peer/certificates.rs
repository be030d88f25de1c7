//! Mutual TLS: one CA, one name, and files that change.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use larder::ownership::message::Request;
use larder::server::peer::{CallError, ForwardError, Forwarded};
use larder::server::tls::{ClientCertificates, Tls, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::ServerName;
use tempfile::TempDir;

use crate::pair::{Asker, Echo, Owner, Stub, eventually, get};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate of `ca` for `name`, and who is trusted.
fn write(directory: &Path, ca: &Ca, name: &str, trusted: &Ca) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    fs::write(directory.join("tls.crt"), params.signed_by(&key, ca).unwrap().pem()).unwrap();
    fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(directory.join("ca.crt"), trusted.pem()).unwrap();
}

/// A replica's TLS: a certificate of `ca` for `name`; others must be of `trusted`, for `larder-peer`.
fn tls(directory: &TempDir, ca: &Ca, name: &str, trusted: &Ca) -> Tls {
    let directory = directory.path();
    write(directory, ca, name, trusted);
    Tls::load(TlsConfig {
        certificate: directory.join("tls.crt"),
        key: directory.join("tls.key"),
        clients: ClientCertificates::Peers {
            ca: directory.join("ca.crt"),
            name: ServerName::try_from("larder-peer").unwrap(),
        },
        reload_interval: Duration::from_millis(20),
    })
    .unwrap()
}

fn pair(a: Option<Tls>, b: Option<Tls>) -> (Asker, Owner) {
    (Asker::new_as("larder", a, Stub::new("a")), Owner::start_as("larder", b, Stub::new("b"), Echo::new()))
}

#[tokio::test]
async fn replicas_of_one_ca_and_name_talk() {
    let (directory_a, directory_b, ca) = (TempDir::new().unwrap(), TempDir::new().unwrap(), ca());
    let a = tls(&directory_a, &ca, "larder-peer", &ca);
    let (asker, owner) = pair(Some(a), Some(tls(&directory_b, &ca, "larder-peer", &ca)));
    let came = asker.peers.forward(&owner.id(), &owner.address(), &get("x")).await;
    assert!(matches!(came, Ok(Forwarded::Answer(Ok(_)))), "{came:?}");
    assert!(asker.call(&owner.address(), &owner.id(), Request::Ping).await.is_ok());
}

#[tokio::test]
async fn a_wrong_name_a_wrong_ca_and_no_certificate_are_refused_on_either_side() {
    let (one, other) = (ca(), ca());
    for (a, b) in [
        (Some((&one, "larder-peer")), Some((&one, "elsewhere"))),
        (Some((&one, "elsewhere")), Some((&one, "larder-peer"))),
        (Some((&one, "larder-peer")), Some((&other, "larder-peer"))),
        (Some((&other, "larder-peer")), Some((&one, "larder-peer"))),
        (None, Some((&one, "larder-peer"))),
        (Some((&one, "larder-peer")), None),
    ] {
        let (directory_a, directory_b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let a = a.map(|(ca, name)| tls(&directory_a, ca, name, &one));
        let b = b.map(|(ca, name)| tls(&directory_b, ca, name, &one));
        let (asker, owner) = pair(a, b);
        let came = asker.peers.forward(&owner.id(), &owner.address(), &get("x")).await;
        assert_eq!(came, Err(ForwardError::Refused));
        let came = asker.call(&owner.address(), &owner.id(), Request::Ping).await;
        assert_eq!(came.err(), Some(CallError::Lost), "it may be there, and may be heard later");
        assert!(owner.echo.seen.lock().is_empty() && owner.desk.stamps.load(SeqCst) == 0);
    }
}

#[tokio::test]
async fn certificates_rotate_under_forwards() {
    let (directory_a, directory_b, ca) = (TempDir::new().unwrap(), TempDir::new().unwrap(), ca());
    let (a, b) = (tls(&directory_a, &ca, "larder-peer", &ca), tls(&directory_b, &ca, "larder-peer", &ca));
    let (watched, keeper) = (a.clone(), larder::server::drain::channel());
    let _kept = tokio::spawn(a.clone().keep_fresh(keeper.1));
    let (asker, owner) = pair(Some(a), Some(b.clone()));
    let forward = async || asker.peers.forward(&owner.id(), &owner.address(), &get("x")).await;
    assert!(forward().await.is_ok());
    let next = self::ca();
    for round in 1..=3 {
        write(directory_a.path(), &next, "larder-peer", &next);
        write(directory_b.path(), &next, "larder-peer", &next);
        eventually("both took the files", || {
            futures::FutureExt::now_or_never(forward());
            watched.reloads() >= round && b.reloads() >= round
        })
        .await;
        assert!(forward().await.is_ok(), "the open connection goes on");
        assert!(asker.call(&owner.address(), &owner.id(), Request::Ping).await.is_ok());
        asker.peers.keep_only(&crate::pair::topology(&[]));
        let again = async {
            while forward().await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again).await.expect("new connections use the new files");
    }
}
