//! Why an archive is refused.

use codegen_types::path::{InvalidPath, PATH_BYTES_MAX};
use codegen_types::{ErrorCode, Failure};
use tar::EntryType;

/// An archive is refused, at one entry or as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The entry's name in the archive, as far as it can be shown.
    pub entry: Option<String>,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// There is no end.
    #[error("the archive is cut")]
    Cut,
    /// Something comes after the end.
    #[error("something follows the end of the archive")]
    AfterEnd,
    /// A header is no header of a tar, or contradicts itself.
    #[error("a header of the archive is damaged")]
    Header,
    /// What goes before an entry is too much.
    #[error("a header before an entry is too long")]
    TooLong,
    /// The name is no text.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// The name leads out of the workspace.
    #[error(transparent)]
    Path(InvalidPath),
    /// It is of another kind.
    #[error("{0} is not taken: only files and directories are")]
    Kind(&'static str),
    /// Its name is another entry's, or it is above one.
    #[error("there is another entry in this place")]
    Twice,
    /// It is below a file.
    #[error("it is below an entry that is a file")]
    BelowFile,
    /// The file is too large.
    #[error("{size} bytes are too many, a file may have {max}")]
    FileTooLarge {
        /// As its header says, in bytes.
        size: u64,
        /// In bytes.
        max: u64,
    },
    /// There are too many entries.
    #[error("the archive has more than {max} entries")]
    TooManyEntries {
        /// The most.
        max: usize,
    },
    /// There is too much in it.
    #[error("the files of the archive have more than {max} bytes")]
    TooManyBytes {
        /// The most.
        max: u64,
    },
    /// Names are too long together.
    #[error("the names of the archive have more than {max} bytes")]
    TooManyNames {
        /// The most.
        max: usize,
    },
}

impl Refused {
    /// At this entry.
    pub(super) fn of(name: &str, why: Why) -> Self {
        Self { entry: Some(name.chars().take(PATH_BYTES_MAX).collect()), why }
    }
}

impl From<Why> for Refused {
    fn from(why: Why) -> Self {
        Self { entry: None, why }
    }
}

impl Why {
    /// Whether there is too much of something.
    pub const fn is_too_much(&self) -> bool {
        matches!(
            self,
            Self::FileTooLarge { .. }
                | Self::TooManyEntries { .. }
                | Self::TooManyBytes { .. }
                | Self::TooManyNames { .. }
        )
    }
}

impl From<Why> for Failure {
    fn from(why: Why) -> Self {
        let code = match why {
            Why::Path(_) => ErrorCode::PathViolation,
            Why::FileTooLarge { .. } => ErrorCode::FileTooLarge,
            _ => ErrorCode::InvalidArgument,
        };
        Self::new(code, why.to_string())
    }
}

/// A kind in words.
pub(super) const fn said(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a FIFO",
        EntryType::GNUSparse => "a sparse file",
        _ => "an entry of this kind",
    }
}
