//! The log's keys: one signs checkpoints, its public half verifies them, and one hides short secrets.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::SigningKey;
use signed_note::{Signer as _, StandardSigner, StandardVerifier, Verifier as _};

use crate::checkpoint;
use crate::hash::{hex, unhex};

pub(crate) const KEY_DIR: &str = "keys";
const SIGNING_FILE: &str = "checkpoint.key";
/// The public half, in C2SP form.
pub(crate) const PUBLIC_FILE: &str = "checkpoint.vkey";
const REDACTION_FILE: &str = "redaction.key";
/// The type byte of Ed25519 in C2SP keys.
const ED25519: u8 = 1;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key file cannot be read or written.
    #[error("the key file `{file}` cannot be used")]
    Io {
        /// Which.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A key file does not hold what it should.
    #[error("the key file `{0}` is damaged")]
    Damaged(&'static str),
    /// The operating system gives no random bytes.
    #[error("no random bytes are to be had")]
    Random(#[from] getrandom::Error),
}

/// The keys of one log. Its id is part of the signing key's name.
pub(crate) struct Keys {
    signing: String,
    signer: StandardSigner,
    vkey: String,
    log_id: String,
    redaction: [u8; 32],
}

impl Keys {
    /// New keys, and with them a new log id.
    pub(crate) fn mint() -> Result<Self, KeyError> {
        Self::mint_for(&format!("log_{}", hex(&random::<16>()?)))
    }

    /// New keys for a log that is already there.
    pub(crate) fn mint_for(log_id: &str) -> Result<Self, KeyError> {
        let name = checkpoint::origin(log_id);
        let signing_key = SigningKey::from_bytes(&random()?);
        let vkey = signed_note::new_ed25519_verifier_key(&name, &signing_key.verifying_key());
        let key_id = StandardVerifier::new(&vkey).map_err(|_| KeyError::Damaged(PUBLIC_FILE))?.key_id();
        let secret = BASE64.encode([&[ED25519], signing_key.as_bytes().as_slice()].concat());
        Self::assemble(format!("PRIVATE+KEY+{name}+{key_id:08x}+{secret}"), vkey, random()?)
    }

    fn assemble(signing: String, vkey: String, redaction: [u8; 32]) -> Result<Self, KeyError> {
        let signer = StandardSigner::new(&signing).map_err(|_| KeyError::Damaged(SIGNING_FILE))?;
        let verifier = StandardVerifier::new(&vkey).map_err(|_| KeyError::Damaged(PUBLIC_FILE))?;
        if (signer.name(), signer.key_id()) != (verifier.name(), verifier.key_id()) {
            return Err(KeyError::Damaged(PUBLIC_FILE));
        }
        let log_id = checkpoint::log_id_of_origin(signer.name()).ok_or(KeyError::Damaged(SIGNING_FILE))?.to_owned();
        Ok(Self { signing, signer, vkey, log_id, redaction })
    }

    /// Reads the keys below a log's directory; `None` when there is no signing key.
    pub(crate) fn load(log_dir: &Path) -> Result<Option<Self>, KeyError> {
        let Some(signing) = read(log_dir, SIGNING_FILE)? else { return Ok(None) };
        let vkey = read(log_dir, PUBLIC_FILE)?.ok_or(KeyError::Damaged(PUBLIC_FILE))?;
        let redaction = read(log_dir, REDACTION_FILE)?.ok_or(KeyError::Damaged(REDACTION_FILE))?;
        let redaction = unhex(&redaction).and_then(|bytes| bytes.try_into().ok());
        Self::assemble(signing, vkey, redaction.ok_or(KeyError::Damaged(REDACTION_FILE))?).map(Some)
    }

    /// Writes the keys below a log's directory. The signing key comes last: with it, the log exists.
    pub(crate) fn store(&self, log_dir: &Path) -> Result<(), KeyError> {
        let dir = log_dir.join(KEY_DIR);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| KeyError::Io { file: KEY_DIR, source })?;
        let files = [
            (REDACTION_FILE, hex(&self.redaction)),
            (PUBLIC_FILE, self.vkey.clone()),
            (SIGNING_FILE, self.signing.clone()),
        ];
        for (file, contents) in files {
            write(&dir, file, &contents).map_err(|source| KeyError::Io { file, source })?;
        }
        Ok(())
    }

    pub(crate) fn log_id(&self) -> &str {
        &self.log_id
    }

    #[cfg(test)]
    pub(crate) const fn signer(&self) -> &StandardSigner {
        &self.signer
    }

    pub(crate) fn into_signer(self) -> StandardSigner {
        self.signer
    }

    pub(crate) fn vkey(&self) -> &str {
        &self.vkey
    }

    pub(crate) const fn redaction(&self) -> [u8; 32] {
        self.redaction
    }
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn read(log_dir: &Path, file: &'static str) -> Result<Option<String>, KeyError> {
    match std::fs::read(log_dir.join(KEY_DIR).join(file)) {
        Ok(text) => {
            let text = String::from_utf8(text).map_err(|_| KeyError::Damaged(file))?;
            Ok(Some(text.trim_end().to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyError::Io { file, source }),
    }
}

fn write(dir: &Path, file: &str, contents: &str) -> io::Result<()> {
    let temporary = dir.join(format!(".{file}.new"));
    let mut handle =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    handle.write_all(format!("{contents}\n").as_bytes())?;
    handle.sync_all()?;
    std::fs::rename(&temporary, dir.join(file))?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_read_back_and_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Keys::load(dir.path()).unwrap().is_none());
        let keys = Keys::mint().unwrap();
        keys.store(dir.path()).unwrap();
        let again = Keys::load(dir.path()).unwrap().unwrap();
        assert_eq!((again.log_id(), again.vkey(), again.redaction()), (keys.log_id(), keys.vkey(), keys.redaction()));
        for file in [SIGNING_FILE, PUBLIC_FILE, REDACTION_FILE] {
            let mode = dir.path().join(KEY_DIR).join(file).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
