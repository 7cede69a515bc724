//! Operations and what they carry, to the wire and back.

use codegen_types::operation::{List, Move, Read, Remove, Stat, Write, WriteMode};
use codegen_types::{Exec, Operation, Program};

use crate::bounds::{
    ARGS_BYTES_MAX, ARGS_MAX, CONTENTS_BYTES_MAX, ENTRIES_MAX, ENV_BYTES_MAX, ENV_MAX, SHOWN_PATH_BYTES_MAX,
    SOURCE_BYTES_MAX, TOKEN_BYTES_MAX,
};
use crate::field::{bounded, contents, list, map, optional_text, path, required, text, without_nul, word, word_text};
use crate::invalid::InvalidMessage;
use crate::v1;
use crate::v1::exec::Program as WireProgram;
use crate::v1::task_request::Operation as WireOperation;

const WRITE_MODES: [(&str, WriteMode); 3] =
    [("overwrite", WriteMode::Overwrite), ("create", WriteMode::Create), ("append", WriteMode::Append)];

impl From<Operation> for WireOperation {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Exec(exec) => Self::Exec(exec.into()),
            Operation::Read(Read { path, offset, limit }) => Self::Read(v1::Read { path: path.into(), offset, limit }),
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
        }
    }
}

impl TryFrom<WireOperation> for Operation {
    type Error = InvalidMessage;

    fn try_from(wire: WireOperation) -> Result<Self, InvalidMessage> {
        Ok(match wire {
            WireOperation::Exec(exec) => Self::Exec(exec.try_into()?),
            WireOperation::Read(v1::Read { path: from, offset, limit }) => {
                Self::Read(Read { path: path(&from, "Read.path")?, offset, limit })
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

impl From<Exec> for v1::Exec {
    fn from(exec: Exec) -> Self {
        Self { program: Some(exec.program.into()), stdin: exec.stdin.into(), env: exec.env.into_iter().collect() }
    }
}

impl TryFrom<v1::Exec> for Exec {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Exec) -> Result<Self, InvalidMessage> {
        let env = map(wire.env, ENV_MAX, ENV_BYTES_MAX, "Exec.env")?;
        for (name, value) in &env {
            if name.is_empty() || name.contains('=') {
                return Err(InvalidMessage::OutOfRange { field: "Exec.env", expected: "named without `=`" });
            }
            without_nul(name, "Exec.env")?;
            without_nul(value, "Exec.env")?;
        }
        Ok(Self {
            program: required(wire.program, "Exec.program")?.try_into()?,
            stdin: contents(wire.stdin, CONTENTS_BYTES_MAX, "Exec.stdin")?,
            env,
        })
    }
}

impl From<Program> for WireProgram {
    fn from(program: Program) -> Self {
        match program {
            Program::PythonCode { code, args } => Self::PythonCode(v1::PythonCode { code, args }),
            Program::PythonFile { path, args } => Self::PythonFile(v1::PythonFile { path: path.into(), args }),
            Program::Shell { command } => Self::Shell(v1::Shell { command }),
        }
    }
}

impl TryFrom<WireProgram> for Program {
    type Error = InvalidMessage;

    fn try_from(wire: WireProgram) -> Result<Self, InvalidMessage> {
        Ok(match wire {
            WireProgram::PythonCode(v1::PythonCode { code, args: of }) => Self::PythonCode {
                code: text(code, SOURCE_BYTES_MAX, "PythonCode.code")?,
                args: args(of, "PythonCode.args")?,
            },
            WireProgram::PythonFile(v1::PythonFile { path: of, args: with }) => {
                Self::PythonFile { path: path(&of, "PythonFile.path")?, args: args(with, "PythonFile.args")? }
            }
            WireProgram::Shell(v1::Shell { command }) => {
                without_nul(&command, "Shell.command")?;
                Self::Shell { command: text(command, SOURCE_BYTES_MAX, "Shell.command")? }
            }
        })
    }
}

fn args(args: Vec<String>, field: &'static str) -> Result<Vec<String>, InvalidMessage> {
    bounded(args.iter().map(String::len).sum(), ARGS_BYTES_MAX, field)?;
    list(args, ARGS_MAX, field, |arg| without_nul(&arg, field).map(|()| arg))
}
