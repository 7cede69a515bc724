//! The pip that is fetched when the host has none: one release, known by its digest, whoever it comes from.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use codegen_types::TaskId;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::runtimes::{StartError, memory_file};

/// The newest release that runs on every Python that runs here.
pub(super) const FILE: &str = "pip-26.0.1-py3-none-any.whl";
const SHA256: &str = "bdb1b08f4274833d62c1aa29e20907365a2ceb950410df15fc9521bad440122b";
const BYTES: usize = 1_787_723;
/// Where it is kept, below the directory of the workspaces. No session's name begins so, and no sandbox shows it.
const DIRECTORY: &str = ".pip";

/// Where this worker keeps it.
#[derive(Debug, Clone)]
pub(super) struct PinnedPip {
    directory: PathBuf,
}

/// A file in memory that holds the wheel, or is to hold it once the installation has fetched it.
#[derive(Debug)]
pub(super) struct Wheel {
    file: OwnedFd,
    is_there: bool,
}

/// What the bootstrap must know to fetch it.
#[derive(Debug, Serialize)]
pub(super) struct Fetch<'a> {
    page: String,
    file: &'static str,
    sha256: &'static str,
    bytes: usize,
    certificates: Option<&'a str>,
}

impl<'a> Fetch<'a> {
    /// From this index, checking its host by these certificates if there are any.
    pub fn from(index: &str, certificates: Option<&'a str>) -> Self {
        Self { page: format!("{index}/pip/"), file: FILE, sha256: SHA256, bytes: BYTES, certificates }
    }
}

impl Wheel {
    /// Whether it must be fetched.
    pub const fn is_missing(&self) -> bool {
        !self.is_there
    }

    /// The file for another process.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }

    /// What an installation put there, if it is the wheel.
    fn fetched(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; BYTES];
        match File::from(self.share()?).read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Some(bytes).filter(|bytes| is_the_wheel(bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl PinnedPip {
    /// Kept below the directory of the workspaces.
    pub fn below(base_workspace: &Path) -> Self {
        Self { directory: base_workspace.join(DIRECTORY) }
    }

    /// The wheel as it was kept, or an empty file for it. What is kept and is not the wheel counts as nothing.
    pub async fn wheel(&self) -> Result<Wheel, StartError> {
        let path = self.directory.join(FILE);
        let read = tokio::task::spawn_blocking(move || match std::fs::read(&path) {
            Ok(bytes) if is_the_wheel(&bytes) => bytes,
            Ok(_) => {
                tracing::warn!(path = %path.display(), "what is kept as pip is something else; it is fetched again");
                Vec::new()
            }
            Err(_) => Vec::new(),
        });
        let bytes = read.await.map_err(|error| StartError::Descriptors(io::Error::other(error)))?;
        Ok(Wheel { is_there: !bytes.is_empty(), file: memory_file(&bytes)? })
    }

    /// Keeps what an installation fetched for those after it. Says whether it was the wheel.
    pub async fn keep(&self, wheel: &Wheel) -> bool {
        let fetched = wheel.fetched();
        let Ok(Some(bytes)) = fetched else { return false };
        let this = self.clone();
        let kept = tokio::task::spawn_blocking(move || this.write(&bytes)).await.map_err(io::Error::other);
        if let Err(error) = kept.and_then(|kept| kept) {
            tracing::warn!(%error, "pip could not be kept and will be fetched again");
        }
        true
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let unfinished = self.directory.join(format!("{FILE}.{}", TaskId::mint()));
        let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
        let written = written.and_then(|mut file| file.write_all(bytes));
        let kept = written.and_then(|()| std::fs::rename(&unfinished, self.directory.join(FILE)));
        if kept.is_err() {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_file(&unfinished);
        }
        kept
    }
}

fn is_the_wheel(bytes: &[u8]) -> bool {
    let digest = || Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.len() == BYTES && digest() == SHA256
}
