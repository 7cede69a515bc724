//! Python: an interpreter of the host, prepared once per sandbox, forked once per program.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use codegen_types::WorkspacePath;
use codegen_types::packages::USER_BASE;
use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::find;
use super::forked::Forked;
use super::{StartError, Stdio, memory_file};
use crate::session::Live;
use crate::tasks::Gate;

/// What an interpreter says about itself, as JSON. It must have what the template needs.
const QUESTION: &str = "import sys, json, ctypes, socket, resource; print(json.dumps({'version': list(sys.version_info[:3]), \
                        'executable': sys.executable, 'virtual': sys.prefix != sys.base_prefix, 'prefixes': sorted({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})}))";

/// The oldest version that the template runs on.
const VERSION_MIN: [u32; 3] = [3, 9, 0];

/// An interpreter of the host.
#[derive(Debug, Clone)]
pub(crate) struct Python {
    executable: PathBuf,
    version: String,
    prefixes: Vec<PathBuf>,
    /// Where packages of a session are below its workspace, when the interpreter would not look there by itself.
    unseen_packages: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    version: [u32; 3],
    executable: PathBuf,
    prefixes: Vec<PathBuf>,
    #[serde(default, rename = "virtual")]
    is_virtual: bool,
}

impl Python {
    /// The first usable `python3` on the search path; what is found may be a link or a version switcher, so it is asked
    /// for the interpreter behind it.
    pub async fn find(search_path: &OsStr) -> Option<Self> {
        for candidate in find::executables(search_path, "python3") {
            let answer = find::ask(&candidate, &["-I", "-c", QUESTION], search_path).await;
            let parsed = answer.map_err(|error| error.to_string()).and_then(|text| Self::parse(&text));
            match parsed {
                Ok(python) => return Some(python),
                Err(why) => tracing::info!(path = %candidate.display(), why, "this Python cannot be used"),
            }
        }
        None
    }

    fn parse(text: &str) -> Result<Self, String> {
        let answer: Answer = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if answer.version < VERSION_MIN {
            return Err(format!("{:?} is older than {VERSION_MIN:?}", answer.version));
        }
        // A prefix of `/` or of a whole top-level directory other than `/usr` would show the host to the sandbox; one below
        // `/tmp` would be hidden by the sandbox's own.
        let usable = |path: &Path| sandbox::may_be_shown(path) && path.components().count() > 2;
        if let Some(prefix) =
            answer.prefixes.iter().find(|prefix| !usable(prefix) && prefix.as_path() != Path::new("/usr"))
        {
            return Err(format!("its prefix {} cannot be shown in a sandbox", prefix.display()));
        }
        let [major, minor, patch] = answer.version;
        let version = format!("{major}.{minor}.{patch}");
        // One of a virtual environment sees no packages of its user.
        let packages = || format!("{USER_BASE}/lib/python{major}.{minor}/site-packages");
        let unseen_packages = answer.is_virtual.then(packages);
        Ok(Self { executable: answer.executable, version, prefixes: answer.prefixes, unseen_packages })
    }

    /// As registrations and reports list it.
    pub fn listed(&self) -> codegen_types::Runtime {
        codegen_types::Runtime {
            name: "python".to_owned(),
            version: self.version.clone(),
            path: self.executable.to_string_lossy().into_owned(),
        }
    }

    /// Trees that a sandbox must show beside the system's own.
    pub fn system_paths(&self) -> Vec<PathBuf> {
        self.prefixes.iter().filter(|prefix| !prefix.starts_with("/usr")).cloned().collect()
    }

    /// The interpreter's own path.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// The directory of the interpreter's programs.
    pub fn bin(&self) -> &Path {
        self.executable.parent().unwrap_or(Path::new("/usr/bin"))
    }

    /// The interpreter, ready to run the source on descriptor `source_fd`.
    ///
    /// `-s` leaves out what the session installed, which each program adds for itself. The environment has no other
    /// `PYTHON*` variable than the one that says where that is, and the current directory leaves `sys.path` before
    /// anything is imported, so that files of the workspace cannot take the place of the library while the interpreter
    /// is prepared.
    pub fn argv(&self, source_fd: i32) -> Vec<OsString> {
        let boot = format!(
            "import sys;sys.path[:]=[p for p in sys.path if p];f=open({source_fd},'rb');s=f.read();f.close();\
             exec(compile(s,'<template>','exec'),{{'__name__':'template'}})"
        );
        vec![self.executable.clone().into_os_string(), "-s".into(), "-c".into(), boot.into()]
    }

    /// Variables by which interpreters that a shell starts find the packages of the session, when they need any: paths
    /// below the workspace.
    pub fn variables_for_shell(&self) -> BTreeMap<String, String> {
        self.unseen_packages.iter().map(|packages| ("PYTHONPATH".to_owned(), packages.clone())).collect()
    }

    /// The environment of the prepared interpreter, and so of each program in it.
    pub fn environment(&self) -> Environment {
        Environment::new([self.bin()])
    }
}

/// A program for the prepared interpreter, as the template reads it.
#[derive(Debug, Serialize)]
pub(crate) struct Job {
    code: Option<String>,
    path: Option<String>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    kernel: bool,
    /// Whether it begins when another word comes.
    held: bool,
}

impl Job {
    /// Source text.
    pub fn code(code: String, args: Vec<String>, env: BTreeMap<String, String>) -> Self {
        Self { code: Some(code), path: None, args, env, kernel: false, held: false }
    }

    /// A file of the workspace.
    pub fn file(path: &WorkspacePath, args: Vec<String>, env: BTreeMap<String, String>) -> Self {
        let path = Some(path.as_str().to_owned());
        Self { code: None, path, args, env, kernel: false, held: false }
    }

    /// A kernel, which gets its calls through the extra descriptor.
    pub fn kernel() -> Self {
        Self { code: None, path: None, args: Vec::new(), env: BTreeMap::new(), kernel: true, held: false }
    }

    /// Lets it begin when another word comes, or at once.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether it begins when another word comes.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Whether it is a kernel.
    pub fn is_kernel(&self) -> bool {
        self.kernel
    }
}

/// The word by which a job begins that is held.
pub(super) const BEGIN: &[u8] = b"g";
/// What of a job is in a datagram, in bytes: the interpreter takes 64 KiB, of which a kernel's call has a little more.
const SENT_BYTES_MAX: usize = 60 << 10;

/// A job as it is sent to the interpreter: in the datagram, or in a file beside it when it is long.
#[derive(Debug)]
pub(super) struct SentJob {
    bytes: Vec<u8>,
    file: Option<OwnedFd>,
}

impl SentJob {
    pub fn new(job: &Job) -> Result<Self, StartError> {
        let bytes = serde_json::to_vec(job).map_err(|error| StartError::Descriptors(error.into()))?;
        if bytes.len() <= SENT_BYTES_MAX {
            return Ok(Self { bytes, file: None });
        }
        Ok(Self { file: Some(memory_file(&bytes)?), bytes: b"f".to_vec() })
    }

    /// What is in the datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is passed after everything else.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }
}

/// Starts a program in the sandbox's prepared interpreter once the gate is open, and waits until it runs. `extra` is where it
/// shows things, or where a kernel gets its calls. When the interpreter turns out to be gone before it let the program run,
/// another one is prepared and asked, once.
pub(crate) async fn start(
    live: &Live,
    job: &Job,
    stdio: Stdio,
    extra: OwnedFd,
    gate: &Gate,
) -> Result<Forked, StartError> {
    if !live.has_template() {
        gate.pass().await;
    }
    let template = live.template().await?;
    match template.fork(live.sandbox(), job, &stdio, &extra, gate).await {
        Err(StartError::InterpreterLost) => {
            gate.pass().await;
            tracing::info!("the prepared interpreter was gone; preparing another");
            live.forget_template(&template).await;
            let template = live.template().await?;
            template.fork(live.sandbox(), job, &stdio, &extra, gate).await
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_that_is_too_old_or_shows_too_much_is_refused() {
        let answer = |version: &str, prefix: &str| {
            format!(r#"{{"version":{version},"executable":"{prefix}/bin/python3","prefixes":["{prefix}"]}}"#)
        };
        assert!(Python::parse(&answer("[3,8,18]", "/usr")).is_err());
        assert!(Python::parse(&answer("[3,11,2]", "/")).is_err());
        assert!(Python::parse(&answer("[3,11,2]", "/home")).is_err());
        assert!(Python::parse(&answer("[3,11,2]", "/tmp/venv")).is_err());
        let own = Python::parse(&answer("[3,11,2]", "/opt/python")).unwrap();
        assert_eq!(own.system_paths(), [PathBuf::from("/opt/python")]);
        assert!(Python::parse(&answer("[3,11,2]", "/usr")).unwrap().system_paths().is_empty());
    }

    #[test]
    fn a_shell_is_told_of_the_sessions_packages_when_a_virtual_environment_hides_them() {
        let parse = |is_virtual: bool| {
            let text = format!(
                r#"{{"version":[3,11,2],"executable":"/opt/v/bin/python3","prefixes":["/opt/v","/usr"],"virtual":{is_virtual}}}"#
            );
            Python::parse(&text).unwrap().variables_for_shell()
        };
        let packages = ".codegen/python/lib/python3.11/site-packages".to_owned();
        assert_eq!(parse(true), BTreeMap::from([("PYTHONPATH".to_owned(), packages)]));
        assert_eq!(parse(false), BTreeMap::new());
    }
}
