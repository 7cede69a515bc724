//! Operations and what they carry, to the wire and back.

use codegen_types::operation::{Edit, Kernels, List, Move, Pictures, Read, Remove, Search, Stat, Write, WriteMode};
use codegen_types::{KernelName, Operation};

use crate::bounds::{
    CONTENTS_BYTES_MAX, CONTEXT_MAX, ENTRIES_MAX, MATCHES_MAX, PATTERN_BYTES_MAX, SHOWN_PATH_BYTES_MAX, TOKEN_BYTES_MAX,
};
use crate::field::{bounded, contents, optional_text, path, required, text, word, word_text};
use crate::invalid::InvalidMessage;
use crate::v1;
use crate::v1::kernels::Action as WireKernels;
use crate::v1::task_request::Operation as WireOperation;

const WRITE_MODES: [(&str, WriteMode); 3] =
    [("overwrite", WriteMode::Overwrite), ("create", WriteMode::Create), ("append", WriteMode::Append)];

impl From<Operation> for WireOperation {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Exec(exec) => Self::Exec(exec.into()),
            Operation::Read(Read { path, offset, limit, pictures }) => {
                let draw_pictures = pictures == Pictures::Drawn;
                Self::Read(v1::Read { path: path.into(), offset, limit, draw_pictures })
            }
            Operation::Write(Write { path, contents, mode, if_match }) => Self::Write(v1::Write {
                path: path.into(),
                contents: contents.into(),
                mode: word_text(&mode, &WRITE_MODES),
                if_match,
            }),
            Operation::List(List { path, recursive, pattern, entries_max }) => {
                Self::List(v1::List { path: path.into(), recursive, pattern, entries_max })
            }
            Operation::Stat(Stat { path }) => Self::Stat(v1::Stat { path: path.into() }),
            Operation::Move(Move { from, to, overwrite }) => {
                Self::Move(v1::Move { from: from.into(), to: to.into(), overwrite })
            }
            Operation::Remove(Remove { path, recursive }) => Self::Remove(v1::Remove { path: path.into(), recursive }),
            Operation::Search(search) => Self::Search(search.into()),
            Operation::Edit(edit) => Self::Edit(edit.into()),
            Operation::Kernels(kernels) => Self::Kernels(kernels.into()),
        }
    }
}

impl TryFrom<WireOperation> for Operation {
    type Error = InvalidMessage;

    fn try_from(wire: WireOperation) -> Result<Self, InvalidMessage> {
        Ok(match wire {
            WireOperation::Exec(exec) => Self::Exec(exec.try_into()?),
            WireOperation::Read(v1::Read { path: from, offset, limit, draw_pictures }) => {
                let pictures = if draw_pictures { Pictures::Drawn } else { Pictures::AsBytes };
                Self::Read(Read { path: path(&from, "Read.path")?, offset, limit, pictures })
            }
            WireOperation::Write(write) => Self::Write(write.try_into()?),
            WireOperation::List(list) => Self::List(list.try_into()?),
            WireOperation::Stat(v1::Stat { path: of }) => Self::Stat(Stat { path: path(&of, "Stat.path")? }),
            WireOperation::Move(v1::Move { from, to, overwrite }) => {
                Self::Move(Move { from: path(&from, "Move.from")?, to: path(&to, "Move.to")?, overwrite })
            }
            WireOperation::Remove(v1::Remove { path: of, recursive }) => {
                Self::Remove(Remove { path: path(&of, "Remove.path")?, recursive })
            }
            WireOperation::Search(search) => Self::Search(search.try_into()?),
            WireOperation::Edit(edit) => Self::Edit(edit.try_into()?),
            WireOperation::Kernels(kernels) => Self::Kernels(kernels.try_into()?),
        })
    }
}

impl TryFrom<v1::Write> for Write {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Write) -> Result<Self, InvalidMessage> {
        Ok(Self {
            path: path(&wire.path, "Write.path")?,
            contents: contents(wire.contents, CONTENTS_BYTES_MAX, "Write.contents")?,
            mode: word(&wire.mode, &WRITE_MODES, "Write.mode")?,
            if_match: optional_text(wire.if_match, TOKEN_BYTES_MAX, "Write.if_match")?,
        })
    }
}

impl TryFrom<v1::List> for List {
    type Error = InvalidMessage;

    fn try_from(wire: v1::List) -> Result<Self, InvalidMessage> {
        let field = "List.entries_max";
        bounded(usize::try_from(wire.entries_max).unwrap_or(usize::MAX), ENTRIES_MAX, field)?;
        Ok(Self {
            path: path(&wire.path, "List.path")?,
            recursive: wire.recursive,
            pattern: optional_text(wire.pattern, SHOWN_PATH_BYTES_MAX, "List.pattern")?,
            entries_max: wire.entries_max,
        })
    }
}

impl From<Search> for v1::Search {
    fn from(search: Search) -> Self {
        let Search { path, pattern, literal, ignore_case, glob, context, matches_max } = search;
        Self { path: path.into(), pattern, literal, ignore_case, glob, context, matches_max }
    }
}

impl TryFrom<v1::Search> for Search {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Search) -> Result<Self, InvalidMessage> {
        let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        bounded(size(wire.context), CONTEXT_MAX, "Search.context")?;
        bounded(size(wire.matches_max), MATCHES_MAX, "Search.matches_max")?;
        Ok(Self {
            path: path(&wire.path, "Search.path")?,
            pattern: text(wire.pattern, PATTERN_BYTES_MAX, "Search.pattern")?,
            literal: wire.literal,
            ignore_case: wire.ignore_case,
            glob: optional_text(wire.glob, SHOWN_PATH_BYTES_MAX, "Search.glob")?,
            context: wire.context,
            matches_max: wire.matches_max,
        })
    }
}

impl From<Edit> for v1::Edit {
    fn from(edit: Edit) -> Self {
        let Edit { path, old, new, replace_all, if_match } = edit;
        Self { path: path.into(), old, new, replace_all, if_match }
    }
}

impl TryFrom<v1::Edit> for Edit {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Edit) -> Result<Self, InvalidMessage> {
        Ok(Self {
            path: path(&wire.path, "Edit.path")?,
            old: text(wire.old, CONTENTS_BYTES_MAX, "Edit.old")?,
            new: text(wire.new, CONTENTS_BYTES_MAX, "Edit.new")?,
            replace_all: wire.replace_all,
            if_match: optional_text(wire.if_match, TOKEN_BYTES_MAX, "Edit.if_match")?,
        })
    }
}

impl From<Kernels> for v1::Kernels {
    fn from(kernels: Kernels) -> Self {
        let action = match kernels {
            Kernels::List => WireKernels::List(v1::KernelsList {}),
            Kernels::Restart { name } => WireKernels::Restart(name.into()),
        };
        Self { action: Some(action) }
    }
}

impl TryFrom<v1::Kernels> for Kernels {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Kernels) -> Result<Self, InvalidMessage> {
        Ok(match required(wire.action, "Kernels.action")? {
            WireKernels::List(v1::KernelsList {}) => Self::List,
            WireKernels::Restart(name) => Self::Restart { name: kernel_name(name, "Kernels.restart")? },
        })
    }
}

pub(crate) fn kernel_name(name: String, field: &'static str) -> Result<KernelName, InvalidMessage> {
    let expected = "1 to 64 letters, digits, `_`, `-` or `.`";
    KernelName::try_from(name).map_err(|_| InvalidMessage::OutOfRange { field, expected })
}
