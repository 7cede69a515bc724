//! TLS: certificate and key from two files, read again when the operator says so (SIGHUP).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsFiles;
use crate::reload::Reloads;

/// How long a handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

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
}

/// TLS for connections that come in. Cheap to clone; all clones are read again together.
#[derive(Clone)]
pub(super) struct Tls {
    files: TlsFiles,
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads both files.
    pub(super) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(RwLock::new(read(&files)?));
        Ok(Self { files, current })
    }

    /// Reads the files again whenever told, for ever. Those that cannot be used change nothing.
    pub(super) async fn follow(self, mut reloads: Reloads) {
        loop {
            reloads.next().await;
            let files = self.files.clone();
            match tokio::task::spawn_blocking(move || read(&files)).await {
                Ok(Ok(config)) => {
                    *self.current.write() = config;
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

    /// Shakes hands, in time.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.read()));
        tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await?
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let of = |path: &PathBuf| {
        let path = path.clone();
        move |source| TlsError::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate).map_err(of(&files.certificate))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(of(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(of(&files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
