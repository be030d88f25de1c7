//! Over TLS, with and without a client certificate.

use std::path::{Path, PathBuf};

use larder::server::accounts::file::File;
use larder::server::app;
use larder::server::clock::Clock;
use larder::server::config::Config;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::Larder;
use super::support::{TOKEN, account};

/// PEM files of an authority, a server and a client, and an accounts file.
struct Files(tempfile::TempDir);

impl Files {
    fn make() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        files.write("ca.pem", &authority.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(authority, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![format!("{name}.test")]).unwrap();
            files.write(&format!("{name}.pem"), &certificate.signed_by(&key, &issuer).unwrap().pem());
            files.write(&format!("{name}.key"), &key.serialize_pem());
        }
        let accounts = File { accounts: vec![account("one", TOKEN)] };
        files.write("accounts.json", &serde_json::to_string(&accounts).unwrap());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn commands_work_over_tls_and_only_with_the_right_authority_and_certificate() {
    let files = Files::make();
    let (accounts, cert, key, ca) =
        (files.path("accounts.json"), files.path("server.pem"), files.path("server.key"), files.path("ca.pem"));
    let config = Config::from_flags([
        "--listen=127.0.0.1:0",
        "--health-listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
        "--workers=1",
        "--drain-delay=0s",
        "--capacity=64MiB",
        "--accounts",
        text(&accounts),
        "--tls-cert",
        text(&cert),
        "--tls-key",
        text(&key),
        "--tls-client-ca",
        text(&ca),
    ])
    .unwrap();
    let bound = app::build(&config, Clock::start()).await.unwrap();
    let address = bound.addresses.grpc;
    tokio::task::spawn_blocking(move || {
        let trusting =
            || Larder::at(address).with("LARDER_TLS_CA", text(&ca)).with("LARDER_TLS_SERVER_NAME", "server.test");
        let known = || {
            let client = files.path("client.pem");
            trusting()
                .with("LARDER_CLIENT_CERT", text(&client))
                .with("LARDER_CLIENT_KEY", text(&files.path("client.key")))
        };
        known().ok(&["store", "k", "v"]);
        assert_eq!(known().ok(&["get", "k"]), "v");
        let table = [
            (Larder::at(address), "wants TLS"),
            (trusting(), "--tls-cert"),
            (known().with("LARDER_TLS_SERVER_NAME", "other.test"), "other.test"),
            (known().with("LARDER_TLS_CA", text(&files.path("client.pem"))), "invalid peer certificate"),
        ];
        for (larder, wanted) in table {
            let said = larder.run(&["get", "k"]);
            assert_eq!(said.status, 69, "{}", said.err);
            assert!(said.err.contains(wanted), "{}", said.err);
        }
    })
    .await
    .unwrap();
    bound.shutdown.now().await;
}
