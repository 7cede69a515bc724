//! A certificate that is replaced under a server that runs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::front::{Place, SOON, poll, signal};

/// Writes a certificate for `localhost` and its key, and gives the certificate.
fn certify(certificate: &Path, key: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(certificate, cert.pem()).unwrap();
    std::fs::write(key, signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// What `/healthz` says to a client that trusts this certificate alone.
fn health(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let connection = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(SOON))?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut said = String::new();
    // The server need not say good-bye.
    let _ended = stream.read_to_string(&mut said);
    Ok(said)
}

#[test]
fn a_server_that_is_told_to_shows_its_new_certificate_and_ends_nothing() {
    let place = Place::new();
    let (certificate, key) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    let first = certify(&certificate, &key);
    let mut command = place.command(&["serve", "--http", "127.0.0.1:0", "--tls-cert"]);
    command.arg(&certificate).arg("--tls-key").arg(&key);
    let mut server = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(server.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    let url = said.split_whitespace().last().unwrap();
    let address = url.trim_start_matches("https://").trim_end_matches("/mcp").parse().unwrap();
    assert!(health(address, &first).unwrap().starts_with("HTTP/1.1 200"));

    let second = certify(&certificate, &key);
    assert!(health(address, &second).is_err(), "it is not read before somebody says so");
    signal(server.id(), Signal::HUP);
    poll("the new certificate is shown", || health(address, &second).ok());
    assert!(health(address, &first).is_err());

    signal(server.id(), Signal::TERM);
    assert!(poll("the server ends", || server.try_wait().unwrap()).success());
}
