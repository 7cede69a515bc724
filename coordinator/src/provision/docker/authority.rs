//! The certificates by which worker containers check the coordinator: those of a file of the operator's, copied into a directory
//! that is mounted, so that containers that run find later ones, too.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};

/// The name of the copy in its directory.
pub(super) const FILE: &str = "ca.pem";
/// How the label of every kind of private key ends.
const KEY_LABEL: &[u8] = b"PRIVATE KEY-----";
/// Letters of a line of PEM.
const LINE: usize = 64;

/// Why workers cannot be given what they check the coordinator by.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The operator's file cannot be read.
    #[error("{path}, by which workers check this server, cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Workers would be given a private key.
    #[error(
        "{path} holds a private key, and workers are given this file: name one with certificates alone with WORKER_TLS_CA"
    )]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// It is not PEM.
    #[error("{path} holds no certificates that workers could check this server by")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PemError,
    },
    /// There is none in it.
    #[error("{path} holds no certificate that workers could check this server by")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The copy cannot be kept.
    #[error("{path} cannot be kept for workers")]
    Write {
        /// The copy.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The operator's file and its copy.
pub(super) struct Authority {
    source: PathBuf,
    directory: PathBuf,
}

impl Authority {
    /// Copies the certificates of `source` into this directory, which is made.
    pub(super) fn open(source: &Path, directory: PathBuf) -> Result<Self, AuthorityError> {
        let authority = Self { source: source.to_owned(), directory };
        let failed = |source| AuthorityError::Write { path: authority.directory.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(&authority.directory).map_err(failed)?;
        // Whatever the umask is, the image's user looks into it.
        fs::set_permissions(&authority.directory, Permissions::from_mode(0o755)).map_err(failed)?;
        authority.follow()?;
        Ok(authority)
    }

    /// The directory with the copy.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Copies the certificates again where they are others by now.
    pub(super) fn follow(&self) -> Result<(), AuthorityError> {
        let path = &self.source;
        let pem = fs::read(path).map_err(|source| AuthorityError::Read { path: path.clone(), source })?;
        let certificates = certificates(path, &pem)?;
        let copy = self.directory.join(FILE);
        if fs::read_to_string(&copy).is_ok_and(|kept| kept == certificates) {
            return Ok(());
        }
        self.replace(&copy, &certificates).map_err(|source| AuthorityError::Write { path: copy, source })
    }

    fn replace(&self, copy: &Path, certificates: &str) -> io::Result<()> {
        let aside = self.directory.join(format!("{FILE}.new"));
        // One that an earlier life left can be written to no more.
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::write(&aside, certificates)?;
        fs::set_permissions(&aside, Permissions::from_mode(0o444))?;
        fs::rename(&aside, copy)
    }
}

/// The certificates alone, in PEM. A file with a private key is refused whole: it is another than was meant.
fn certificates(path: &Path, pem: &[u8]) -> Result<String, AuthorityError> {
    let path = || path.to_owned();
    if pem.windows(KEY_LABEL.len()).any(|part| part == KEY_LABEL) {
        return Err(AuthorityError::Key { path: path() });
    }
    let mut text = String::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|source| AuthorityError::Malformed { path: path(), source })?;
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = STANDARD.encode(&certificate);
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(LINE));
            text.push_str(&rest);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    if text.is_empty() { Err(AuthorityError::Empty { path: path() }) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["coordinator".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn ders(pem: &[u8]) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn workers_are_given_certificates_and_nothing_else_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let ((one, _), (other, _)) = (pair(), pair());
        let source = dir.path().join("source.pem");
        let request = "-----BEGIN CERTIFICATE REQUEST-----\nc2VjcmV0\n-----END CERTIFICATE REQUEST-----\n";
        fs::write(&source, format!("# password: hunter2\n{one}{request}{other}")).unwrap();
        let authority = Authority::open(&source, dir.path().join("authority")).unwrap();
        let copy = authority.directory().join(FILE);
        let kept = fs::read_to_string(&copy).unwrap();
        assert_eq!(ders(kept.as_bytes()), ders(format!("{one}{other}").as_bytes()));
        assert!(kept.lines().all(|line| line.len() <= LINE) && !kept.contains("hunter2") && !kept.contains("REQUEST"));
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(fs::metadata(authority.directory()).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_file_with_a_private_key_is_refused_and_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = pair();
        let source = dir.path().join("both.pem");
        let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for key in [key.as_str(), sealed] {
            fs::write(&source, format!("{certificate}{key}")).unwrap();
            let refused = Authority::open(&source, dir.path().join("authority")).err().unwrap();
            assert!(matches!(refused, AuthorityError::Key { .. }) && refused.to_string().contains("WORKER_TLS_CA"));
            assert!(!dir.path().join("authority").join(FILE).exists());
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("none.pem");
        fs::write(&source, "nothing").unwrap();
        let refused = Authority::open(&source, dir.path().join("authority")).err().unwrap();
        assert!(matches!(refused, AuthorityError::Empty { .. }));
        let refused = Authority::open(&dir.path().join("missing"), dir.path().join("authority")).err().unwrap();
        assert!(matches!(refused, AuthorityError::Read { .. }));
    }

    #[test]
    fn a_container_that_has_the_directory_finds_a_renewed_certificate_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let ((before, _), (after, key)) = (pair(), pair());
        let source = dir.path().join("source.pem");
        fs::write(&source, &before).unwrap();
        let authority = Authority::open(&source, dir.path().join("authority")).unwrap();
        // What is mounted is the directory that there was then, whatever its path leads to later.
        let mounted = File::open(authority.directory()).unwrap();
        let seen = || {
            let file = rustix::fs::openat(&mounted, FILE, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
            ders(io::read_to_string(File::from(file.unwrap())).unwrap().as_bytes())
        };
        fs::write(&source, &after).unwrap();
        authority.follow().unwrap();
        assert_eq!(seen(), ders(after.as_bytes()));
        fs::write(&source, format!("{before}{key}")).unwrap();
        assert!(authority.follow().is_err());
        assert_eq!(seen(), ders(after.as_bytes()), "what cannot be used changes nothing");
    }
}
