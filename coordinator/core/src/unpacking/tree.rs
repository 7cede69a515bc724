//! What entries an archive had so far.

use std::collections::BTreeMap;

use codegen_types::WorkspacePath;

use super::refused::Why;

/// The most that names have together, in bytes.
const NAMES_BYTES_MAX: usize = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
}

/// Entries by path.
#[derive(Debug, Default)]
pub(super) struct Tree {
    entries: BTreeMap<String, Kind>,
    /// What the paths hold together, in bytes.
    bytes: usize,
}

impl Tree {
    /// One more entry. A directory may come again, and after what is in it.
    ///
    /// # Errors
    /// It does not go with those before it, or there are too many names.
    pub(super) fn add(&mut self, path: &WorkspacePath, kind: Kind) -> Result<(), Why> {
        let path = path.as_str();
        let is_file = |above: &str| self.entries.get(above) == Some(&Kind::File);
        if path.match_indices('/').any(|(at, _)| is_file(&path[..at])) {
            return Err(Why::BelowFile);
        }
        match (self.entries.get(path), kind) {
            (Some(Kind::Directory), Kind::Directory) => return Ok(()),
            (Some(_), _) => return Err(Why::Twice),
            (None, Kind::File) if self.has_below(path) => return Err(Why::Twice),
            (None, _) => {}
        }
        self.bytes += path.len();
        if self.bytes > NAMES_BYTES_MAX {
            return Err(Why::TooManyNames { max: NAMES_BYTES_MAX });
        }
        self.entries.insert(path.to_owned(), kind);
        Ok(())
    }

    fn has_below(&self, path: &str) -> bool {
        let above = format!("{path}/");
        self.entries.range(above.clone()..).next().is_some_and(|(next, _)| next.starts_with(&above))
    }

    /// Directories without an entry in them.
    pub(super) fn bare(&self) -> Vec<WorkspacePath> {
        let directories = self.entries.iter().filter(|(_, kind)| **kind == Kind::Directory).map(|(path, _)| path);
        directories.filter(|path| !self.has_below(path)).filter_map(|path| WorkspacePath::parse(path).ok()).collect()
    }
}
