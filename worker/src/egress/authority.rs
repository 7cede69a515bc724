//! The certificates of one session: an authority that exists for it alone, and what programs and worker trust.
//!
//! The authority's key is in the worker's memory and nowhere else, and its certificates are shown to one sandbox, so that
//! it can deceive nobody but the session that it was made for.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The longest file of certificates, in bytes.
const CERTIFICATES_BYTES_MAX: u64 = 1 << 20;
/// The one protocol that is spoken on both sides of the proxy.
const PROTOCOL: &[u8] = b"http/1.1";

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificatesError {
    /// None can be made.
    #[error("certificates for a session cannot be made")]
    Make(#[from] rcgen::Error),
    /// They cannot be used.
    #[error("certificates for a session cannot be used")]
    Use(#[from] rustls::Error),
    /// What the host trusts cannot be read.
    #[error("the certificates that the host trusts cannot be read")]
    Read(#[from] std::io::Error),
    /// What the host trusts is not what it should be.
    #[error("the certificates that the host trusts cannot be understood")]
    Understand(#[from] rustls::pki_types::pem::Error),
    /// The host trusts nobody.
    #[error("the host has no certificates that it trusts")]
    Nobody,
}

/// An authority for one session.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Makes one.
    pub fn new() -> Result<Self, CertificatesError> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, "Proxy of one session");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// What the proxy shows to programs in place of a host.
    pub fn stand_in(&self, name: &str) -> Result<Arc<ServerConfig>, CertificatesError> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "A host behind the proxy");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

/// Whom the worker's host trusts.
pub(super) struct Trusted(Vec<CertificateDer<'static>>);

impl Trusted {
    /// Reads the operator's file, or what the system has.
    pub fn read(file: Option<&Path>) -> Result<Self, CertificatesError> {
        let certificates: Vec<_> = match file {
            Some(path) => {
                let mut bytes = Vec::new();
                std::fs::File::open(path)?.take(CERTIFICATES_BYTES_MAX).read_to_end(&mut bytes)?;
                CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>()?
            }
            // A file of the system that cannot be read is one of many; none at all is said below.
            None => rustls_native_certs::load_native_certs().certs,
        };
        if certificates.is_empty() { Err(CertificatesError::Nobody) } else { Ok(Self(certificates)) }
    }

    /// How the worker speaks with the real hosts.
    pub fn client(&self) -> Result<Arc<ClientConfig>, CertificatesError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.0.iter().cloned());
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }

    /// What programs of a session trust: the same, and its authority.
    pub fn bundle(&self, authority: &Authority) -> String {
        let mut bundle = authority.certificate.clone();
        for certificate in &self.0 {
            bundle.push_str("-----BEGIN CERTIFICATE-----\n");
            let text = STANDARD.encode(certificate);
            for line in text.as_bytes().chunks(64) {
                bundle.push_str(std::str::from_utf8(line).unwrap_or_default());
                bundle.push('\n');
            }
            bundle.push_str("-----END CERTIFICATE-----\n");
        }
        bundle
    }
}
