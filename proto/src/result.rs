//! What operations gave.

use codegen_types::egress::CONTACTS_MAX;
use codegen_types::event::{ChangeKind, Edited, FileChange, FileKind, FileStat, KernelInfo};
use codegen_types::{Contact, Exit, OperationResult, Package, ResourceUse};

use crate::bounds::{
    CONTENTS_BYTES_MAX, DIFF_BYTES_MAX, ENTRIES_MAX, FILE_CHANGES_MAX, HOSTS_MAX, KERNELS_MAX, MESSAGE_BYTES_MAX,
    NAME_BYTES_MAX, NOTES_MAX, PACKAGES_MAX, SHOWN_PATH_BYTES_MAX, TOKEN_BYTES_MAX,
};
use crate::field::{contents, cut, list, optional_text, path, required, text, word, word_text};
use crate::invalid::InvalidMessage;
use crate::operation::kernel_name;
use crate::v1;
use crate::v1::finished::Result as WireResult;

const CHANGES: [(&str, ChangeKind); 3] =
    [("created", ChangeKind::Created), ("modified", ChangeKind::Modified), ("deleted", ChangeKind::Deleted)];

const KINDS: [(&str, FileKind); 4] = [
    ("file", FileKind::File),
    ("directory", FileKind::Directory),
    ("symlink", FileKind::Symlink),
    ("other", FileKind::Other),
];

impl From<OperationResult> for v1::Finished {
    fn from(result: OperationResult) -> Self {
        let result = match result {
            OperationResult::Exec(exit) => WireResult::Exec(exit.into()),
            OperationResult::Read { contents, stat } => {
                WireResult::Read(v1::ReadResult { contents: contents.into(), stat: Some(stat.into()) })
            }
            OperationResult::Write { stat, created } => {
                WireResult::Write(v1::WriteResult { stat: Some(stat.into()), created })
            }
            OperationResult::List { entries, truncated } => WireResult::List(v1::ListResult {
                entries: entries.into_iter().map(v1::FileStat::from).collect(),
                truncated,
            }),
            OperationResult::Stat { stat } => WireResult::Stat(stat.into()),
            OperationResult::Move { stat } => WireResult::Moved(stat.into()),
            OperationResult::Remove { removed } => WireResult::Remove(v1::RemoveResult { removed }),
            OperationResult::Search(found) => WireResult::Search(found.into()),
            OperationResult::Edit(Edited { stat, replaced, diff }) => {
                WireResult::Edit(v1::EditResult { stat: Some(stat.into()), replaced, diff })
            }
            OperationResult::Kernels { kernels } => WireResult::Kernels(v1::KernelsResult {
                kernels: kernels.into_iter().map(v1::KernelInfo::from).collect(),
            }),
        };
        Self { result: Some(result) }
    }
}

impl TryFrom<v1::Finished> for OperationResult {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Finished) -> Result<Self, InvalidMessage> {
        Ok(match required(wire.result, "Finished.result")? {
            WireResult::Exec(exit) => Self::Exec(exit.try_into()?),
            WireResult::Read(read) => Self::Read {
                contents: contents(read.contents, CONTENTS_BYTES_MAX, "ReadResult.contents")?,
                stat: required(read.stat, "ReadResult.stat")?.try_into()?,
            },
            WireResult::Write(write) => {
                Self::Write { stat: required(write.stat, "WriteResult.stat")?.try_into()?, created: write.created }
            }
            WireResult::List(listing) => Self::List {
                entries: list(listing.entries, ENTRIES_MAX, "ListResult.entries", FileStat::try_from)?,
                truncated: listing.truncated,
            },
            WireResult::Stat(stat) => Self::Stat { stat: stat.try_into()? },
            WireResult::Moved(stat) => Self::Move { stat: stat.try_into()? },
            WireResult::Remove(removal) => Self::Remove { removed: removal.removed },
            WireResult::Search(found) => Self::Search(found.try_into()?),
            WireResult::Edit(v1::EditResult { stat, replaced, diff }) => Self::Edit(Edited {
                stat: required(stat, "EditResult.stat")?.try_into()?,
                replaced,
                diff: text(diff, DIFF_BYTES_MAX, "EditResult.diff")?,
            }),
            WireResult::Kernels(v1::KernelsResult { kernels }) => {
                Self::Kernels { kernels: list(kernels, KERNELS_MAX, "KernelsResult.kernels", KernelInfo::try_from)? }
            }
        })
    }
}

impl From<Exit> for v1::Exit {
    fn from(exit: Exit) -> Self {
        Self {
            code: exit.code,
            signal: exit.signal,
            wall_ms: exit.used.wall_ms,
            cpu_ms: exit.used.cpu_ms,
            memory_peak_bytes: exit.used.memory_peak_bytes,
            files_changed: exit.files_changed.into_iter().map(v1::FileChange::from).collect(),
            files_changed_truncated: exit.files_changed_truncated,
            leftovers_killed: exit.leftovers_killed,
            notes: exit.notes.into_iter().map(cut).collect(),
            output_file: exit.output_file.map(String::from),
            hosts: exit.hosts,
            packages: exit
                .packages
                .into_iter()
                .map(|Package { name, version }| v1::Package { name, version })
                .collect(),
            contacts: exit.contacts.into_iter().map(v1::Contact::from).collect(),
        }
    }
}

impl TryFrom<v1::Exit> for Exit {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Exit) -> Result<Self, InvalidMessage> {
        let used =
            ResourceUse { wall_ms: wire.wall_ms, cpu_ms: wire.cpu_ms, memory_peak_bytes: wire.memory_peak_bytes };
        Ok(Self {
            code: wire.code,
            signal: wire.signal,
            used,
            files_changed: list(wire.files_changed, FILE_CHANGES_MAX, "Exit.files_changed", FileChange::try_from)?,
            files_changed_truncated: wire.files_changed_truncated,
            leftovers_killed: wire.leftovers_killed,
            notes: list(wire.notes, NOTES_MAX, "Exit.notes", |note| text(note, MESSAGE_BYTES_MAX, "Exit.notes"))?,
            output_file: wire.output_file.map(|file| path(&file, "Exit.output_file")).transpose()?,
            hosts: list(wire.hosts, HOSTS_MAX, "Exit.hosts", |host| text(host, TOKEN_BYTES_MAX, "Exit.hosts"))?,
            packages: list(wire.packages, PACKAGES_MAX, "Exit.packages", package)?,
            contacts: list(wire.contacts, CONTACTS_MAX, "Exit.contacts", Contact::try_from)?,
        })
    }
}

impl From<FileChange> for v1::FileChange {
    fn from(change: FileChange) -> Self {
        Self { path: change.path.into(), change: word_text(&change.change, &CHANGES), size: change.size }
    }
}

impl TryFrom<v1::FileChange> for FileChange {
    type Error = InvalidMessage;

    fn try_from(wire: v1::FileChange) -> Result<Self, InvalidMessage> {
        Ok(Self {
            path: path(&wire.path, "FileChange.path")?,
            change: word(&wire.change, &CHANGES, "FileChange.change")?,
            size: wire.size,
        })
    }
}

fn package(wire: v1::Package) -> Result<Package, InvalidMessage> {
    Ok(Package {
        name: text(wire.name, NAME_BYTES_MAX, "Package.name")?,
        version: text(wire.version, NAME_BYTES_MAX, "Package.version")?,
    })
}

impl From<KernelInfo> for v1::KernelInfo {
    fn from(kernel: KernelInfo) -> Self {
        let KernelInfo { name, busy, waiting, calls, started_ms, memory_bytes } = kernel;
        Self { name: name.into(), busy, waiting, calls, started_ms, memory_bytes }
    }
}

impl TryFrom<v1::KernelInfo> for KernelInfo {
    type Error = InvalidMessage;

    fn try_from(wire: v1::KernelInfo) -> Result<Self, InvalidMessage> {
        let v1::KernelInfo { name, busy, waiting, calls, started_ms, memory_bytes } = wire;
        Ok(Self { name: kernel_name(name, "KernelInfo.name")?, busy, waiting, calls, started_ms, memory_bytes })
    }
}

impl From<FileStat> for v1::FileStat {
    fn from(stat: FileStat) -> Self {
        Self {
            path: stat.path,
            kind: word_text(&stat.kind, &KINDS),
            size: stat.size,
            modified_ms: stat.modified_ms,
            etag: stat.etag,
            mode: stat.mode,
            target: stat.target,
        }
    }
}

impl TryFrom<v1::FileStat> for FileStat {
    type Error = InvalidMessage;

    fn try_from(wire: v1::FileStat) -> Result<Self, InvalidMessage> {
        Ok(Self {
            path: text(wire.path, SHOWN_PATH_BYTES_MAX, "FileStat.path")?,
            kind: word(&wire.kind, &KINDS, "FileStat.kind")?,
            size: wire.size,
            modified_ms: wire.modified_ms,
            etag: optional_text(wire.etag, TOKEN_BYTES_MAX, "FileStat.etag")?,
            mode: wire.mode,
            target: optional_text(wire.target, SHOWN_PATH_BYTES_MAX, "FileStat.target")?,
        })
    }
}
