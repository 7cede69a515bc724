//! The tools for files: one file per tool, or per pair that shares its words.

mod edit;
mod listing;
mod moving;
mod read;
mod reply;
mod search;
mod write;

pub(super) use edit::{FsEditInput, edit};
pub(crate) use listing::FileView;
pub(super) use listing::{ENTRIES_MAX, FsListInput, FsListOutput, FsStatInput, list, stat};
pub(super) use moving::{FsDeleteInput, FsMoveInput, delete, mv};
pub(super) use read::{FsReadInput, read};
pub(super) use reply::{file_reply, line};
pub(super) use search::{FsSearchInput, FsSearchOutput, search};
pub(super) use write::{FsWriteInput, write};
