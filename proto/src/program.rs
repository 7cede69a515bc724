//! Programs and how they are run, to the wire and back.

use codegen_types::operation::ScriptSource;
use codegen_types::{Exec, Network, Program};

use crate::bounds::{
    ARGS_BYTES_MAX, ARGS_MAX, CONTENTS_BYTES_MAX, ENV_BYTES_MAX, ENV_MAX, NAME_BYTES_MAX, PACKAGES_MAX,
    SHOWN_PATH_BYTES_MAX, SOURCE_BYTES_MAX,
};
use crate::field::{bounded, contents, list, map, optional_text, path, required, text, without_nul};
use crate::invalid::InvalidMessage;
use crate::operation::kernel_name;
use crate::v1;
use crate::v1::exec::Program as WireProgram;
use crate::v1::script::Source as WireSource;

impl From<Exec> for v1::Exec {
    fn from(exec: Exec) -> Self {
        let Exec { program, stdin, env, kernel, network } = exec;
        let packages = match network {
            Network::None => None,
            Network::Packages { index_url } => Some(v1::PackageNetwork { index_url }),
        };
        Self {
            program: Some(program.into()),
            stdin: stdin.into(),
            env: env.into_iter().collect(),
            kernel: kernel.map(String::from),
            packages,
        }
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
            kernel: wire.kernel.map(|name| kernel_name(name, "Exec.kernel")).transpose()?,
            network: wire.packages.map_or(Ok(Network::None), |packages| {
                let index_url = optional_text(packages.index_url, SHOWN_PATH_BYTES_MAX, "PackageNetwork.index_url")?;
                Ok(Network::Packages { index_url })
            })?,
        })
    }
}

impl From<Program> for WireProgram {
    fn from(program: Program) -> Self {
        match program {
            Program::PythonCode { code, args } => Self::PythonCode(v1::PythonCode { code, args }),
            Program::PythonFile { path, args } => Self::PythonFile(v1::PythonFile { path: path.into(), args }),
            Program::Shell { command } => Self::Shell(v1::Shell { command }),
            Program::Script { runtime, source, args } => {
                let source = match source {
                    ScriptSource::Code(code) => WireSource::Code(code),
                    ScriptSource::File(path) => WireSource::Path(path.into()),
                };
                Self::Script(v1::Script { runtime, source: Some(source), args })
            }
            Program::Install { requirements, upgrade } => Self::Install(v1::Install { requirements, upgrade }),
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
            WireProgram::Script(v1::Script { runtime, source, args: with }) => Self::Script {
                runtime: text(runtime, NAME_BYTES_MAX, "Script.runtime")?,
                source: match required(source, "Script.source")? {
                    WireSource::Code(code) => ScriptSource::Code(text(code, SOURCE_BYTES_MAX, "Script.code")?),
                    WireSource::Path(of) => ScriptSource::File(path(&of, "Script.path")?),
                },
                args: args(with, "Script.args")?,
            },
            WireProgram::Install(v1::Install { requirements, upgrade }) => Self::Install {
                requirements: list(requirements, PACKAGES_MAX, "Install.requirements", |requirement| {
                    without_nul(&requirement, "Install.requirements")?;
                    text(requirement, SHOWN_PATH_BYTES_MAX, "Install.requirements")
                })?,
                upgrade,
            },
        })
    }
}

fn args(args: Vec<String>, field: &'static str) -> Result<Vec<String>, InvalidMessage> {
    bounded(args.iter().map(String::len).sum(), ARGS_BYTES_MAX, field)?;
    list(args, ARGS_MAX, field, |arg| without_nul(&arg, field).map(|()| arg))
}
