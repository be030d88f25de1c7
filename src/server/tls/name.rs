//! Client certificates that must be for one name. rustls checks names of servers only.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::server::peer::seldom::Seldom;

/// Takes what `chain` takes if it is for `name`.
#[derive(Debug)]
pub(super) struct OfName {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) name: ServerName<'static>,
    pub(super) seldom: Seldom,
}

impl OfName {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, chain, now)?;
        verify_server_name(&ParsedCertificate::try_from(leaf)?, &self.name)?;
        Ok(verified)
    }
}

impl ClientCertVerifier for OfName {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, intermediates, now).inspect_err(|error| {
            // The other hears only that its connection ends.
            if self.seldom.may_say("certificate", "") {
                let name = self.name.to_str();
                tracing::warn!(%error, %name, "refused the certificate of a replica; it must be of the CA, and for the name");
            }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
