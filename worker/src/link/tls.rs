//! TLS to a coordinator, and from one that dials. The files are read for each connection: connections are few, and a
//! certificate that was replaced holds from the next one on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::address::Purpose;
use crate::start::TlsStart;

/// What is spoken on a connection on which the worker is called.
const LINK_PROTOCOL: &[u8] = b"codegen-link/1";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read, or has no certificate or key in it.
    #[error("{path} holds nothing that TLS could use")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PemError,
    },
    /// Certificate, key or authority are of no use.
    #[error("the certificates cannot be used")]
    Unusable(#[from] rustls::Error),
    /// There is no certificate to show to a coordinator that dials.
    #[error("to be dialled with TLS, the worker needs --tls-cert and --tls-key")]
    NoPair,
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::other(error)
    }
}

/// Shakes hands with the coordinator, which must have a certificate of the authority for its name.
pub(crate) async fn connect(
    files: &TlsStart,
    host: &str,
    stream: TcpStream,
    purpose: Purpose,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(client(files, purpose)?));
    Ok(connector.connect(name, stream).await?.into())
}

/// Shakes hands with a coordinator that dialled.
pub(crate) async fn accept(files: &TlsStart, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    Ok(TlsAcceptor::from(Arc::new(server(files)?)).accept(stream).await?.into())
}

/// Whether the files can be used, for whoever starts the worker.
pub(crate) fn check(files: &TlsStart, is_dialled: bool) -> Result<(), TlsError> {
    client(files, Purpose::Calls)?;
    if is_dialled {
        server(files)?;
    }
    Ok(())
}

fn client(files: &TlsStart, purpose: Purpose) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.authority)? {
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    let mut config = match pair(files)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match purpose {
        Purpose::Calls => vec![b"h2".to_vec()],
        Purpose::Link => vec![LINK_PROTOCOL.to_vec()],
    };
    Ok(config)
}

fn server(files: &TlsStart) -> Result<ServerConfig, TlsError> {
    let (chain, key) = pair(files)?.ok_or(TlsError::NoPair)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    // Who dials shows the ticket of a registration; that is what lets it in.
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![LINK_PROTOCOL.to_vec()];
    Ok(config)
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn pair(files: &TlsStart) -> Result<Option<Pair>, TlsError> {
    let Some(pair) = &files.pair else { return Ok(None) };
    let failed = |source| TlsError::File { path: pair.key.clone(), source };
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(failed)?;
    Ok(Some((certificates(&pair.certificate)?, key)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)
}
