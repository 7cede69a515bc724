//! TLS: certificate, key and authorities from files, read again when the operator says so (SIGHUP), or once they are others.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::config::TlsFiles;
use crate::reload::Reloads;

/// How long a handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How often the files are looked at: who renews a certificate cannot always send a signal, as in a pod.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// What is spoken inside TLS on a connection on which a worker is called.
pub const LINK_PROTOCOL: &[u8] = b"codegen-link/1";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has no certificate or key in it.
    #[error("{path} holds nothing that TLS could use")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PemError,
    },
    /// Certificate and key do not go together, or are of a kind that is not known.
    #[error("the certificate and its key cannot be used")]
    Pair(#[from] rustls::Error),
    /// No certificate of a client could be checked.
    #[error("{path} holds no certificate of an authority")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// What connections are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Clients over HTTP.
    Http,
    /// Workers. A certificate of this authority says who they are; without it tokens alone do.
    Workers {
        /// The authority's certificates, in PEM.
        authority: Option<PathBuf>,
    },
}

/// TLS for connections that come in, and for those to workers. Cheap to clone; all clones are read again together.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    purpose: Purpose,
    current: Arc<RwLock<Arc<Configs>>>,
}

struct Configs {
    /// Which files these were.
    marks: Marks,
    server: Arc<ServerConfig>,
    /// Whose certificates say who a worker is; absent where there is no authority.
    peers: Option<Arc<dyn ClientCertVerifier>>,
    /// For dialling workers; absent where there is no authority to check them by.
    client: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles, purpose: Purpose) -> Result<Self, TlsError> {
        let current = Arc::new(RwLock::new(read(&files, &purpose)?));
        Ok(Self { files, purpose, current })
    }

    /// Reads the files again whenever told, and once they are others, for ever. Those that cannot be used change nothing.
    pub async fn follow(self, mut reloads: Reloads) {
        let mut seen = self.current.read().marks;
        loop {
            let is_told = tokio::time::timeout(LOOK_INTERVAL, reloads.next()).await.is_ok();
            let marks = marks(&self.files, &self.purpose);
            if !is_told && marks == seen {
                continue;
            }
            seen = marks;
            let (files, purpose) = (self.files.clone(), self.purpose.clone());
            match tokio::task::spawn_blocking(move || read(&files, &purpose)).await {
                Ok(Ok(configs)) => {
                    *self.current.write() = configs;
                    tracing::info!(certificate = %self.files.certificate.display(), "the certificate was read again");
                }
                Ok(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "the certificate cannot be used; the one before stays");
                }
                Err(error) => tracing::error!(%error, "the certificate could not be read"),
            }
        }
    }

    /// Shakes hands with who connected, in time.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<server::TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.read().server));
        tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await?
    }

    /// Whether whoever shows this chain, its own certificate first, is trusted at this moment: it has not expired, and its
    /// authority is still one.
    pub fn trusts(&self, chain: &[CertificateDer<'static>]) -> bool {
        let peers = self.current.read().peers.clone();
        let (Some(peers), Some((own, others))) = (peers, chain.split_first()) else { return false };
        peers.verify_client_cert(own, others, UnixTime::now()).is_ok()
    }

    /// Whether workers can be dialled: there is an authority that says who they are.
    pub fn can_dial(&self) -> bool {
        self.current.read().client.is_some()
    }

    /// Shakes hands with a worker that was dialled, in time.
    pub async fn connect(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
    ) -> std::io::Result<client::TlsStream<TcpStream>> {
        let config = self.current.read().client.clone();
        let config = config.ok_or_else(|| std::io::Error::other("no authority says who a worker is"))?;
        let connector = TlsConnector::from(config);
        tokio::time::timeout(HANDSHAKE_PATIENCE, connector.connect(name, stream)).await?
    }
}

/// What tells a file from the one that is put in its place, and from itself once it was written to; nothing while there is none.
type Mark = Option<(u64, u64, i64, i64)>;
/// Those of certificate, key and authority.
type Marks = [Mark; 3];

fn marks(files: &TlsFiles, purpose: &Purpose) -> Marks {
    let authority = match purpose {
        Purpose::Workers { authority } => authority.as_deref(),
        Purpose::Http => None,
    };
    let mark = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    [mark(&files.certificate), mark(&files.key), authority.and_then(mark)]
}

fn read(files: &TlsFiles, purpose: &Purpose) -> Result<Arc<Configs>, TlsError> {
    // Looked at first: what changes while it is read is read once more.
    let marks = marks(files, purpose);
    let chain = certificates(&files.certificate)?;
    let failed = |source| TlsError::File { path: files.key.clone(), source };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let authority = match purpose {
        Purpose::Workers { authority: Some(path) } => Some((path, roots(path)?)),
        Purpose::Workers { authority: None } | Purpose::Http => None,
    };
    let peers = match &authority {
        None => None,
        Some((path, roots)) => {
            let failed = |source| TlsError::Authority { path: path.to_path_buf(), source };
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider));
            // Who shows no certificate may have a token.
            Some(verifier.allow_unauthenticated().build().map_err(failed)?)
        }
    };
    let builder = match &peers {
        None => builder.with_no_client_auth(),
        Some(peers) => builder.with_client_cert_verifier(Arc::clone(peers)),
    };
    let mut server = builder.with_single_cert(chain.clone(), key.clone_key())?;
    server.alpn_protocols = match purpose {
        Purpose::Http => vec![b"http/1.1".to_vec()],
        Purpose::Workers { .. } => vec![b"h2".to_vec(), LINK_PROTOCOL.to_vec()],
    };
    let client = authority.map(|(_, roots)| dialling(provider, roots, chain, key)).transpose()?;
    Ok(Arc::new(Configs { marks, server: Arc::new(server), peers, client }))
}

/// What workers are dialled with: they are held to the authority, and are shown our own certificate.
fn dialling(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut client = builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![LINK_PROTOCOL.to_vec()];
    Ok(Arc::new(client))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(Arc::new(roots))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reload::Reload;

    fn write(files: &TlsFiles) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_read_without_a_signal_and_one_that_cannot_be_used_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles { certificate: dir.path().join("crt"), key: dir.path().join("key") };
        write(&files);
        let tls = Tls::load(files.clone(), Purpose::Http).unwrap();
        let reload = Reload::default();
        tokio::spawn(tls.clone().follow(reload.follow()));
        let current = || Arc::clone(&tls.current.read());
        // Time stands still but for these, and goes on only when nothing else is to be done.
        let looks = async || tokio::time::sleep(LOOK_INTERVAL * 3).await;
        let first = current();
        looks().await;
        assert!(Arc::ptr_eq(&first, &current()), "the same files are not read again");
        std::fs::write(&files.certificate, "half of it").unwrap();
        looks().await;
        assert!(Arc::ptr_eq(&first, &current()));
        write(&files);
        looks().await;
        assert!(!Arc::ptr_eq(&first, &current()));
    }
}
