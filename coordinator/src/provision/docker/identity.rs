//! What a worker container joins with: a name of its own, and a token for that name alone, in a file that is mounted.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use codegen_types::{Failure, Incarnation};

use super::authority::{Authority, AuthorityError};
use super::options::Spoken;
use crate::caller;
use crate::identity::{NewToken, Scope, TokenState, Tokens};
use crate::workers::BOUND_PREFIX;

/// The user that the worker's image runs as.
const IMAGE_UID: u32 = 1000;
/// Letters of a random name that are kept: enough that no two workers of one coordinator have the same.
const NAME_LETTERS: usize = 12;

/// What workers join with cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// A file of the coordinator's own.
    #[error("{path} cannot be used")]
    Directory {
        /// The file, or the directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What they check the coordinator by.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Why a worker has nothing to join with.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("no token can be made: {}", .0.message)]
    Refused(Failure),
    #[error("its token cannot be written")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The files that a worker's container is given.
pub(super) struct WorkerFiles {
    /// Its token.
    pub(super) token: PathBuf,
    /// The directory with the certificates by which it checks the coordinator, where TLS is spoken.
    pub(super) authority: Option<PathBuf>,
}

/// Makes and withdraws what workers join with.
pub(super) struct Identities {
    directory: PathBuf,
    owner: String,
    authority: Option<Authority>,
    tokens: Tokens,
}

impl Identities {
    /// Of the coordinator to which this directory belongs. It is known by a random name that is kept there.
    pub(super) fn open(directory: &Path, spoken: &Spoken, tokens: Tokens) -> Result<Self, OwnerError> {
        let failed = |source| OwnerError::Directory { path: directory.to_owned(), source };
        // Its files are mounted by the engine, as root, whatever the mode of the directory is.
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let path = directory.join("owner");
        let owner = match fs::read_to_string(&path) {
            Ok(owner) if is_owner(&owner) => owner,
            Ok(_) => return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "`owner` holds no name"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let owner = random();
                fs::write(&path, &owner).map_err(failed)?;
                owner
            }
            Err(error) => return Err(failed(error)),
        };
        let authority = match spoken {
            Spoken::PlaintextLocal | Spoken::PlaintextAnywhere => None,
            Spoken::Tls { authority } => Some(Authority::open(authority, directory.join("authority"))?),
        };
        Ok(Self { directory: directory.to_owned(), owner, authority, tokens })
    }

    /// By what the engine's containers of this coordinator are known.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// A name for another worker.
    pub(super) fn new_name(&self) -> String {
        format!("codegen-{}-{}", self.owner, random())
    }

    /// Makes the token of a worker and gives the file that holds it, with what else it needs.
    pub(super) async fn issue(&self, name: &str) -> Result<WorkerFiles, TokenError> {
        let new = NewToken {
            principal: format!("{BOUND_PREFIX}{name}"),
            scopes: [Scope::Worker].into_iter().collect(),
            lifetime_seconds: None,
            note: Some("of a worker container".to_owned()),
        };
        let (_, text) = self.tokens.create(new, &caller::this_user()).await.map_err(TokenError::Refused)?;
        let path = self.path(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
        writeln!(file, "{}", text.expose())?;
        if rustix::process::geteuid().is_root() {
            fchown(&file, Some(IMAGE_UID), Some(IMAGE_UID))?;
        }
        self.follow_authority()?;
        let authority = self.authority.as_ref().map(|authority| authority.directory().to_owned());
        Ok(WorkerFiles { token: path, authority })
    }

    /// Has workers find the authority's certificates as they are by now.
    pub(super) fn follow_authority(&self) -> Result<(), AuthorityError> {
        self.authority.as_ref().map_or(Ok(()), Authority::follow)
    }

    /// Withdraws the token of a worker that is gone.
    pub(super) async fn withdraw(&self, name: &str) {
        let principal = format!("{BOUND_PREFIX}{name}");
        for token in self.tokens.list() {
            if token.principal.as_str() == principal
                && token.state == TokenState::Active
                && let Err(failure) = self.tokens.revoke(&token.id, &caller::this_user()).await
            {
                tracing::warn!(name, why = failure.message, "the token of a worker that is gone could not be revoked");
            }
        }
        if let Err(error) = fs::remove_file(self.path(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(name, %error, "the token file of a worker that is gone could not be removed");
        }
    }

    /// The names of workers that have a good token.
    pub(super) fn known(&self) -> Vec<String> {
        let prefix = format!("{BOUND_PREFIX}codegen-{}-", self.owner);
        let good = self.tokens.list().into_iter().filter(|token| token.state == TokenState::Active);
        let ours = good.filter(|token| token.principal.as_str().starts_with(&prefix));
        ours.filter_map(|token| token.principal.as_str().strip_prefix(BOUND_PREFIX).map(str::to_owned)).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.token"))
    }
}

fn random() -> String {
    let text = Incarnation::mint().to_string();
    text.chars().rev().filter(char::is_ascii_alphanumeric).take(NAME_LETTERS).collect()
}

fn is_owner(text: &str) -> bool {
    text.len() == NAME_LETTERS && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
