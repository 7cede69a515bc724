//! Which life of this worker came before this one, as its directory of workspaces tells.
//!
//! A life's name is known to the worker, its coordinator and its operators alone. Whoever knows the name of the life
//! before has its disk, and so need not wait until that life has been silent for long.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use codegen_types::Incarnation;

/// Its name among the workspaces, which is no session's.
const FILE: &str = ".incarnation";

/// This life and the one before it.
#[derive(Debug)]
pub(crate) struct Lineage {
    file: PathBuf,
    present: Incarnation,
    follows: Option<Incarnation>,
}

impl Lineage {
    /// What the directory of workspaces has of an earlier life; a file that cannot be read is none.
    pub fn of(base: &Path, present: Incarnation) -> Self {
        let file = base.join(FILE);
        let follows = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        Self { file, present, follows }
    }

    /// The life before this one.
    pub const fn follows(&self) -> Option<Incarnation> {
        self.follows
    }

    /// Notes that this life has joined, for the one after it.
    pub fn joined(&self) {
        if let Err(error) = self.write() {
            tracing::warn!(%error, file = %self.file.display(), "the next life of this worker will not be known at once");
        }
    }

    /// A file that is cut short by the end of the machine names nobody.
    fn write(&self) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.file)?;
        writeln!(file, "{}", self.present)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_life_that_has_joined_is_known_to_the_one_after_it_and_to_nobody_else() {
        let base = tempfile::tempdir().unwrap();
        let (first, second) = (Incarnation::mint(), Incarnation::mint());
        let lineage = Lineage::of(base.path(), first);
        assert_eq!(lineage.follows(), None);
        assert_eq!(Lineage::of(base.path(), second).follows(), None, "it has not joined");
        lineage.joined();
        assert_eq!(Lineage::of(base.path(), second).follows(), Some(first));
        let mode = fs::metadata(base.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(base.path().join(FILE), "nobody").unwrap();
        assert_eq!(Lineage::of(base.path(), second).follows(), None);
    }
}
