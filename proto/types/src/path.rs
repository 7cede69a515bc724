//! Paths inside a workspace: the lexical rules, which give the clear error before any file is touched.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4_096;
/// The longest component of a path, in bytes (`NAME_MAX` of Linux).
pub const COMPONENT_BYTES_MAX: usize = 255;
/// The deepest path, in components.
pub const COMPONENTS_MAX: usize = 64;

/// A relative path below a workspace: no `..` component, no NUL, bounded; `.` and repeated slashes are folded away.
/// The workspace itself is the empty path. `..foo` is a legal name.
///
/// The worker checks the same again by descriptor (`openat2`), since a string proves nothing about links.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WorkspacePath(String);

/// Why a text is not a path inside a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// It starts with a slash, and not with the workspace's own place inside the sandbox.
    #[error("absolute paths are refused: paths are relative to the workspace")]
    Absolute,
    /// It has a `..` component.
    #[error("`..` components are refused: paths stay inside the workspace")]
    ParentComponent,
    /// It has a NUL byte.
    #[error("the path holds a NUL byte")]
    Nul,
    /// It is too long.
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// One of its components is too long.
    #[error("a component of the path is longer than {COMPONENT_BYTES_MAX} bytes")]
    ComponentTooLong,
    /// It is too deep.
    #[error("the path is deeper than {COMPONENTS_MAX} components")]
    TooDeep,
}

impl WorkspacePath {
    /// The workspace itself.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Checks a path that a client wrote.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        if text.len() > PATH_BYTES_MAX {
            return Err(InvalidPath::TooLong);
        }
        if text.contains('\0') {
            return Err(InvalidPath::Nul);
        }
        if text.starts_with('/') {
            return Err(InvalidPath::Absolute);
        }
        let components: Vec<&str> = text.split('/').filter(|c| !c.is_empty() && *c != ".").collect();
        if components.contains(&"..") {
            return Err(InvalidPath::ParentComponent);
        }
        if components.len() > COMPONENTS_MAX {
            return Err(InvalidPath::TooDeep);
        }
        if components.iter().any(|c| c.len() > COMPONENT_BYTES_MAX) {
            return Err(InvalidPath::ComponentTooLong);
        }
        Ok(Self(components.join("/")))
    }

    /// The path as text; empty for the workspace itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the workspace itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|c| !c.is_empty())
    }
}

impl fmt::Display for WorkspacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

impl From<WorkspacePath> for String {
    fn from(path: WorkspacePath) -> String {
        path.0
    }
}

impl TryFrom<String> for WorkspacePath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legal_path_is_folded() {
        for (given, folded) in [("a/b", "a/b"), ("./a//b/", "a/b"), ("", ""), (".", ""), ("..foo/...", "..foo/...")] {
            assert_eq!(WorkspacePath::parse(given).map(String::from).as_deref(), Ok(folded), "{given}");
        }
    }

    #[test]
    fn a_path_that_could_leave_is_refused() {
        assert_eq!(WorkspacePath::parse("/etc/passwd"), Err(InvalidPath::Absolute));
        assert_eq!(WorkspacePath::parse("../../etc/passwd"), Err(InvalidPath::ParentComponent));
        assert_eq!(WorkspacePath::parse("a/../b"), Err(InvalidPath::ParentComponent));
        assert_eq!(WorkspacePath::parse("a\0b"), Err(InvalidPath::Nul));
        assert_eq!(WorkspacePath::parse(&"x".repeat(256)), Err(InvalidPath::ComponentTooLong));
        assert_eq!(WorkspacePath::parse(&"x/".repeat(65)), Err(InvalidPath::TooDeep));
        assert_eq!(WorkspacePath::parse(&"x".repeat(5000)), Err(InvalidPath::TooLong));
    }
}
