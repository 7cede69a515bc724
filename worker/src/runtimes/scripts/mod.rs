//! Runtimes beside Python and the shell, such as Node: rows of a table, used when the host has their interpreter.
//!
//! Source text is given as an argument, as `node -e` and its like take it: standard input stays the program's own,
//! nothing is written to the workspace, and modules are found from there. The kernel bounds one argument to 128 KiB;
//! longer programs are files of the workspace.

mod found;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use codegen_types::operation::ScriptSource;
use codegen_types::{ErrorCode, Failure};

use super::environment::Environment;
use super::{Command, Runtimes};
use found::Found;

/// The longest source text, in bytes: the kernel takes no longer argument.
const CODE_BYTES_MAX: usize = (128 << 10) - 1;

/// Every runtime of the table that this host has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scripts(Vec<Found>);

impl Scripts {
    /// Asks all of them at once: a worker must start quickly.
    pub async fn find(search_path: &OsStr) -> Self {
        let asked = table::ROWS.iter().map(|row| Found::find(row, search_path));
        Self(futures::future::join_all(asked).await.into_iter().flatten().collect())
    }

    /// As registrations and reports list them.
    pub fn listed(&self) -> impl Iterator<Item = codegen_types::Runtime> {
        self.0.iter().map(|found| codegen_types::Runtime {
            name: found.row.name.to_owned(),
            version: found.version.clone(),
            path: found.executable.to_string_lossy().into_owned(),
        })
    }

    /// Trees that a sandbox must show beside the system's own.
    pub fn system_paths(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().filter_map(|found| found.tree.clone())
    }

    /// Directories of executables outside the system's own, for the search path of programs.
    pub fn bins(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter(|found| found.tree.is_some()).map(Found::bin)
    }

    /// The command that runs a script on one of them. A file must have been checked to be there.
    pub fn command(
        &self,
        runtime: &str,
        source: ScriptSource,
        args: Vec<String>,
        env: BTreeMap<String, String>,
    ) -> Result<Command, Failure> {
        let found = self.0.iter().find(|found| found.row.name == runtime).ok_or_else(|| self.missing(runtime))?;
        let argv = match source {
            ScriptSource::Code(code) => {
                check(&code)?;
                found.run_code(code, args)
            }
            ScriptSource::File(path) => found.run_file(path.as_str(), args),
        };
        let own = found.row.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(Command { argv, environment: Environment::new([found.bin()]).with(own).with(env) })
    }

    fn missing(&self, runtime: &str) -> Failure {
        let instead = match runtime {
            "python" | "python3" => " run_python runs Python.",
            "shell" | "bash" | "sh" => " run_shell runs command lines.",
            _ => "",
        };
        let names: Vec<&str> = self.0.iter().map(|found| found.row.name).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let shown: String = runtime.chars().take(64).collect();
        let message = format!("This worker has no runtime {shown:?}.{instead} There are: {there}.");
        Failure::new(ErrorCode::NotFound, message)
    }
}

impl Runtimes {
    /// Directories of executables that programs find beside the system's.
    pub(super) fn bins(&self) -> Vec<&Path> {
        self.python().map(super::Python::bin).into_iter().chain(self.scripts.bins()).collect()
    }
}

fn check(code: &str) -> Result<(), Failure> {
    let invalid = |message: String| Err(Failure::new(ErrorCode::InvalidArgument, message));
    if code.contains('\0') {
        return invalid("The source text holds a NUL byte.".to_owned());
    }
    if code.len() > CODE_BYTES_MAX {
        return invalid(format!(
            "The source text has {} bytes, at most {CODE_BYTES_MAX} are possible. Write it to a file and run that.",
            code.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_runtime_is_refused_with_those_that_are_there() {
        let refused = |runtime: &str| {
            let code = ScriptSource::Code("1".to_owned());
            Scripts::default().command(runtime, code, vec![], BTreeMap::new()).expect_err("there is none")
        };
        assert_eq!(refused("cobol").code, ErrorCode::NotFound);
        assert!(refused("cobol").message.ends_with("There are: none."), "{:?}", refused("cobol"));
        assert!(refused("bash").message.contains("run_shell"), "{:?}", refused("bash"));
    }
}
