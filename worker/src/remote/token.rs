//! The file with the token that lets a worker join.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use codegen_proto::Secret;

/// The longest token that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 512;

/// Why there is no token. Never holds what was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The file cannot be read.
    #[error("the file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read or replace the token.
    #[error("the file {path} {why}; it must be this user's with mode 0600 or 0400, or root's with at most 0440")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It holds no token.
    #[error("the token file {path} does not hold one line of at most {TOKEN_BYTES_MAX} bytes")]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the token, from a file that nobody else can read or write.
pub(crate) fn read(path: &Path) -> Result<Secret, TokenError> {
    let failed = |source| TokenError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Of the open file, so that it is the one that is read.
    if let Some(why) = exposure(&file.metadata().map_err(failed)?) {
        return Err(TokenError::Exposed { path: path.to_owned(), why });
    }
    let mut text = String::new();
    file.take(TOKEN_BYTES_MAX + 2).read_to_string(&mut text).map_err(failed)?;
    let token = text.trim_end_matches(['\n', '\r']);
    let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_empty() || token.len() as u64 > TOKEN_BYTES_MAX || !printable {
        return Err(TokenError::NoToken { path: path.to_owned() });
    }
    Ok(Secret::new(token))
}

/// Whether a file with a private key is for nobody else to read or write.
pub(crate) fn check_private(path: &Path) -> Result<(), TokenError> {
    let failed = |source| TokenError::Read { path: path.to_owned(), source };
    match exposure(&std::fs::metadata(path).map_err(failed)?) {
        Some(why) => Err(TokenError::Exposed { path: path.to_owned(), why }),
        None => Ok(()),
    }
}

/// What is wrong with who may read a file. A secret that an orchestrator mounts is root's and readable by a group.
fn exposure(metadata: &Metadata) -> Option<String> {
    const OTHERS: u32 = 0o007;
    const GROUP: u32 = 0o070;
    const GROUP_BUT_READING: u32 = 0o030;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let me = rustix::process::geteuid().as_raw();
    if !metadata.is_file() {
        Some("is no plain file".to_owned())
    } else if owner != me && owner != 0 {
        Some(format!("belongs to user {owner}"))
    } else if mode & OTHERS != 0 || mode & GROUP_BUT_READING != 0 || (mode & GROUP != 0 && owner != 0) {
        Some(format!("has mode {mode:04o}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_that_others_could_read_or_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "cgm_secret\n").unwrap();
        let read_with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        for mode in [0o600, 0o400] {
            assert_eq!(read_with(mode).unwrap().expose(), "cgm_secret");
        }
        for mode in [0o604, 0o644, 0o660, 0o620, 0o602, 0o444] {
            let refused = read_with(mode).unwrap_err().to_string();
            assert!(refused.contains(&format!("{mode:04o}")) && !refused.contains("cgm_secret"), "{refused}");
        }
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(read_with(0o440).is_ok(), is_root, "a mounted secret is root's");
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for text in ["", "\n", "two\nlines", &"x".repeat(600), "tab\there"] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let refused = read(&path).unwrap_err();
            assert!(matches!(refused, TokenError::NoToken { .. }), "{refused}");
        }
        assert!(matches!(read(dir.path()), Err(TokenError::Exposed { .. } | TokenError::Read { .. })));
        assert!(matches!(read(&dir.path().join("none")), Err(TokenError::Read { .. })));
    }
}
