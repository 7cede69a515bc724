//! The shell: `bash`, or `sh` where there is none, without any profile.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use codegen_types::{ErrorCode, Failure};

use super::find::{self, SYSTEM_PATH};

/// The longest command line, in bytes: the kernel takes no longer argument.
const COMMAND_BYTES_MAX: usize = (128 << 10) - 1;

/// A shell of the host's system directories, which every sandbox shows.
#[derive(Debug, Clone)]
pub(crate) struct Shell {
    path: PathBuf,
    version: String,
    bash: bool,
}

impl Shell {
    /// Looks for `bash`, then for `sh`.
    pub async fn find() -> Option<Self> {
        let system = OsStr::new("/usr/bin:/bin");
        if let Some(path) = find::executables(system, "bash").into_iter().next() {
            let args = ["--noprofile", "--norc", "-c", "echo $BASH_VERSION"];
            if let Ok(answer) = find::ask(&path, &args, OsStr::new(SYSTEM_PATH)).await {
                return Some(Self { path, version: answer.trim().to_owned(), bash: true });
            }
        }
        let path = find::executables(system, "sh").into_iter().next()?;
        Some(Self { path, version: "POSIX".to_owned(), bash: false })
    }

    /// As registrations and reports list it.
    pub fn listed(&self) -> codegen_types::Runtime {
        codegen_types::Runtime {
            name: "shell".to_owned(),
            version: self.version.clone(),
            path: self.path.to_string_lossy().into_owned(),
        }
    }

    /// The arguments of the program that runs a command line.
    pub fn argv(&self, command: &str) -> Vec<OsString> {
        let mut argv = vec![self.path.clone().into_os_string()];
        if self.bash {
            argv.extend(["--noprofile", "--norc"].map(OsString::from));
        }
        argv.extend(["-c", command].map(OsString::from));
        argv
    }
}

/// Checks a command line.
pub(crate) fn check(command: &str) -> Result<(), Failure> {
    let invalid = |message: String| Err(Failure::new(ErrorCode::InvalidArgument, message));
    if command.contains('\0') {
        return invalid("The command line holds a NUL byte.".to_owned());
    }
    if command.len() > COMMAND_BYTES_MAX {
        return invalid(format!(
            "The command line has {} bytes, at most {COMMAND_BYTES_MAX} are possible. Write it to a file and run that.",
            command.len()
        ));
    }
    Ok(())
}
