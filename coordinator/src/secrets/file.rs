//! The file of secrets, encrypted with age, and the identity that opens it.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use age::secrecy::{ExposeSecret as _, SecretString};
use age::x25519::Identity;
use serde::{Deserialize, Serialize};

use super::SecretView;

/// Who opens the file. The operator may put an own identity there, or a link to one.
const IDENTITY: &str = "secrets.identity";
const FILE: &str = "secrets.age";
const NEW_FILE: &str = "secrets.age.new";
/// The longest of these files, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What a secret says; never shown.
#[derive(Clone)]
pub struct SecretText(SecretString);

impl SecretText {
    /// Wraps what a secret says.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// What it says, for handing it on.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(hidden)")
    }
}

// For questions of commands, which are compared in tests alone; nobody is let in by it.
impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for SecretText {}

// For the encrypted file and the socket of commands, whose other end is the same user.
impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// A secret as the file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    #[serde(flatten)]
    pub view: SecretView,
    pub value: SecretText,
}

/// Why the file of secrets cannot be used. Nothing of what is in it is repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum VaultError {
    #[error("{} cannot be read or written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} can be read by others than its owner; let its mode be 0600", .0.display())]
    Open(PathBuf),
    #[error("{} is no age identity", .0.display())]
    NoIdentity(PathBuf),
    #[error("the secrets cannot be encrypted")]
    Encrypt(#[source] age::EncryptError),
    #[error("{} cannot be decrypted with the identity beside it", path.display())]
    Decrypt { path: PathBuf, source: age::DecryptError },
    #[error("{} has something else in it than secrets", .0.display())]
    Malformed(PathBuf),
    #[error("reading the secrets was given up")]
    Task(#[source] tokio::task::JoinError),
}

/// Where secrets are kept. Reading and writing blocks.
pub(super) struct Vault {
    directory: PathBuf,
}

impl Vault {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// All secrets; none where none was ever kept.
    pub fn read(&self) -> Result<Vec<Kept>, VaultError> {
        let path = self.directory.join(FILE);
        let Some(bytes) = read(&path)? else { return Ok(Vec::new()) };
        let identity = self.identity()?.ok_or_else(|| VaultError::NoIdentity(self.directory.join(IDENTITY)))?;
        let plain =
            age::decrypt(&identity, &bytes).map_err(|source| VaultError::Decrypt { path: path.clone(), source })?;
        serde_json::from_slice(&plain).map_err(|_| VaultError::Malformed(path))
    }

    /// Keeps these and no others, on disk when it returns.
    pub fn write(&self, kept: &[Kept]) -> Result<(), VaultError> {
        let identity = self.identity()?.map_or_else(|| self.mint(), Ok)?;
        let plain = serde_json::to_vec(kept).map_err(|_| VaultError::Malformed(self.directory.join(FILE)))?;
        let bytes = age::encrypt(&identity.to_public(), &plain).map_err(VaultError::Encrypt)?;
        let (fresh, path) = (self.directory.join(NEW_FILE), self.directory.join(FILE));
        // What an interrupted write left is nothing that anybody has.
        let _ = fs::remove_file(&fresh);
        create(&fresh, &bytes)
            .and_then(|()| fs::rename(&fresh, &path))
            .and_then(|()| sync(&self.directory))
            .map_err(io_at(&path))
    }

    /// Who opens the file, if there is somebody.
    fn identity(&self) -> Result<Option<Identity>, VaultError> {
        let path = self.directory.join(IDENTITY);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let mode = fs::metadata(&path).map_err(io_at(&path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(VaultError::Open(path));
        }
        let text = SecretText::new(String::from_utf8_lossy(&bytes));
        // A file of `age-keygen` begins with comments.
        let line = text.expose().lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        line.and_then(|line| line.parse().ok()).map(Some).ok_or(VaultError::NoIdentity(path))
    }

    /// Makes somebody who opens the file.
    fn mint(&self) -> Result<Identity, VaultError> {
        let (identity, path) = (Identity::generate(), self.directory.join(IDENTITY));
        let text = SecretText(identity.to_string());
        create(&path, text.expose().as_bytes()).and_then(|()| sync(&self.directory)).map_err(io_at(&path))?;
        Ok(identity)
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> VaultError + '_ {
    |source| VaultError::Io { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, VaultError> {
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io_at(path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_at(path)(error)),
    };
    Ok(Some(bytes))
}

fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}
