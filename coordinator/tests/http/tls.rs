//! HTTP inside TLS, and a certificate that is replaced.

use std::path::Path;
use std::sync::Arc;

use coordinator::config::TlsFiles;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::rig::{PATIENCE, Rig};

/// Writes a certificate for `localhost` and its key, and gives the certificate.
fn certify(files: &TlsFiles) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    std::fs::write(&files.certificate, cert.pem()).expect("a file");
    std::fs::write(&files.key, signing_key.serialize_pem()).expect("a file");
    cert.der().clone()
}

/// What `/healthz` says to a client that trusts this certificate alone.
async fn health(rig: &Rig, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let stream = TcpStream::connect(rig.address).await?;
    let mut stream = connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut said = String::new();
    // The server need not say good-bye.
    let _ended = stream.read_to_string(&mut said).await;
    Ok(said)
}

fn files(dir: &Path) -> TlsFiles {
    TlsFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") }
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_server_runs_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let first = certify(&files);
    let rig = Rig::with(|config| config.tls = Some(files.clone())).await;
    assert!(health(&rig, &first).await.unwrap().starts_with("HTTP/1.1 200"));

    std::fs::write(&files.certificate, "no certificate").unwrap();
    rig.reload.tell();
    assert!(health(&rig, &first).await.is_ok());

    let second = certify(&files);
    assert!(health(&rig, &second).await.is_err(), "it is not read before the operator says so");
    rig.reload.tell();
    let replaced = async {
        while health(&rig, &second).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, replaced).await.expect("the new certificate in time");
    assert!(health(&rig, &first).await.is_err());
}

#[tokio::test]
async fn what_is_not_encrypted_gets_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    certify(&files);
    let rig = Rig::with(|config| config.tls = Some(files)).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end in time");
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"));
}
