//! Replicas that talk over mutual TLS, as their flags say it, each in a process of its own.

use std::path::Path;

use larder::client::StoreOptions;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::process::Process;
use super::test_cluster::{self, TestCluster, page, wait};
use super::{all_there, fill};

type Ca = CertifiedIssuer<'static, KeyPair>;

pub fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The flags of a replica for its peers whose certificate `ca` made; it trusts `trusted`.
pub fn flags(directory: &Path, ca: &Ca, trusted: &Ca) -> Vec<String> {
    std::fs::create_dir(directory).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["replicas.larder".to_owned()]).unwrap();
    let write = |name: &str, pem: String| {
        let path = directory.join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    vec![
        format!("--peer-tls-cert={}", write("tls.crt", params.signed_by(&key, ca).unwrap().pem())),
        format!("--peer-tls-key={}", write("tls.key", key.serialize_pem())),
        format!("--peer-tls-ca={}", write("ca.crt", trusted.pem())),
        "--peer-tls-name=replicas.larder".to_owned(),
    ]
}

#[tokio::test]
async fn replicas_with_certificates_are_one_cache_and_take_nobody_in_who_has_none_or_is_of_another_cluster() {
    let mut cluster = TestCluster::empty(&[]);
    let directory = cluster.members_file().with_file_name("certificates");
    std::fs::create_dir(&directory).unwrap();
    let (ours, theirs) = (ca(), ca());
    let mut replicas = Vec::new();
    for uid in ["a", "b", "c"] {
        let flags = flags(&directory.join(uid), &ours, &ours);
        replicas.push(Process::join(&mut cluster, uid, &flags).await);
    }
    for replica in &replicas {
        replica.settled(3).await;
    }
    fill(&test_cluster::client(replicas[0].grpc)).await;
    all_there(&test_cluster::client(replicas[1].grpc)).await;
    assert!(replicas[0].metric("larder_peer_forwards_total").await > 0);

    // None of these ever gets a clear from anybody, so none is ready; and the others go on.
    let of_another_cluster = [flags(&directory.join("d"), &ours, &ours), vec!["--cluster=another".to_owned()]].concat();
    let mut strangers = Vec::new();
    for (uid, flags) in
        [("d", of_another_cluster), ("e", Vec::new()), ("f", flags(&directory.join("f"), &theirs, &ours))]
    {
        let before = refused(&replicas).await;
        let stranger = Process::start(&mut cluster, uid, &flags).await;
        wait(&format!("{uid} is refused"), async || {
            let now = refused(&replicas).await;
            if uid == "d" { now.0 > before.0 } else { now.1 > before.1 }
        })
        .await;
        assert_eq!(page(stranger.admin, "/readyz").await, (503, "waiting for: members\n".to_owned()), "{uid}");
        strangers.push(stranger);
    }
    let client = test_cluster::client(replicas[2].grpc);
    all_there(&client).await;
    client.store("another", "value", StoreOptions::default()).await.unwrap();
    for stranger in &strangers {
        assert_eq!(page(stranger.admin, "/readyz").await.0, 503);
        assert_eq!(stranger.metric("larder_store_entries").await, 0);
    }
    drop(strangers);

    // What a leaver has goes over these connections too.
    assert!(replicas.remove(0).end(&mut cluster, "a").await);
    replicas[0].settled(2).await;
    all_there(&test_cluster::client(replicas[0].grpc)).await;
}

/// How often they all have turned away a replica of another cluster, and a certificate.
async fn refused(replicas: &[Process]) -> (u64, u64) {
    let mut all = (0, 0);
    for replica in replicas {
        all.0 += replica.metric("larder_peer_strangers_total").await;
        all.1 += replica.metric("larder_peer_connections_ended_total{reason=\"tls_failed\"}").await;
    }
    all
}
