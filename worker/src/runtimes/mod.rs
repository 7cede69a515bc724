//! What the worker runs programs with: found once at its start, started in a session's sandbox.

mod environment;
pub(crate) mod find;
mod forked;
mod kernel;
mod lane;
mod python;
mod scripts;
mod shell;
mod template;
mod vitals;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use codegen_types::operation::ScriptSource;
use codegen_types::{ErrorCode, Failure, IsolationLevel, Network, PackageAccess, Program, WorkspacePath};
use sandbox::files::Workspace;
use sandbox::{Child, ChildEnd, Places, SandboxError, Spawn, SupervisorLost};

use crate::executor::stdio::Stdio;
use crate::packages::{Installation, Packages, Wanted};
use crate::session::Live;
use crate::tasks::Gate;
use environment::Environment;
pub(crate) use forked::Forked;
pub(crate) use kernel::{CallEnd, Kernel};
pub(crate) use python::Job;
use python::Python;
use scripts::Scripts;
use shell::Shell;
pub(crate) use template::{Template, memory_file};

/// The runtimes of this worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runtimes {
    python: Option<Python>,
    shell: Option<Shell>,
    packages: Option<Arc<Packages>>,
    scripts: Scripts,
}

/// A program that was checked and can be started.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// In the session's prepared interpreter.
    Python(Job),
    /// By the shell or another interpreter, in a process of its own.
    Command(Command),
    /// By pip, isolated from the session.
    Install(Box<Installation>),
}

impl Prepared {
    /// Lets an interpreter get ready for it where the gate is closed, and wait for another word.
    pub fn hold_at(&mut self, gate: &Gate) {
        if let Self::Python(job) = self {
            job.hold(!gate.is_open());
        }
    }
}

/// A program that runs. Dropping it ends it with all its processes.
#[derive(Debug)]
pub(crate) enum Process {
    /// In the session's prepared interpreter.
    Forked(Forked),
    /// In a process of its own.
    Supervised(Child),
}

impl Process {
    /// Waits until it and every process of it are gone, or will run no more instruction. Cancel-safe.
    pub async fn wait(&mut self) -> Result<ChildEnd, SupervisorLost> {
        match self {
            Self::Forked(program) => program.wait().await,
            Self::Supervised(child) => child.wait().await,
        }
    }

    /// Whether it is known to have begun.
    pub fn has_begun(&self) -> bool {
        match self {
            // It took its job.
            Self::Forked(_) => true,
            Self::Supervised(child) => child.pid().is_some(),
        }
    }

    /// Interrupts it.
    pub async fn interrupt(&self) {
        match self {
            Self::Forked(program) => program.interrupt().await,
            Self::Supervised(child) => child.interrupt().await,
        }
    }

    /// Kills it and every process of it.
    pub async fn kill(&self) {
        match self {
            Self::Forked(program) => program.kill().await,
            Self::Supervised(child) => child.kill().await,
        }
    }
}

/// A command line with its environment.
#[derive(Debug)]
pub(crate) struct Command {
    argv: Vec<OsString>,
    environment: Environment,
}

impl Command {
    fn spawn(&self, stdio: Stdio, places: &Places) -> Spawn {
        let Stdio { stdin, stdout, stderr } = stdio;
        let (argv, env) = (self.argv.clone(), self.environment.pairs(places));
        Spawn { argv, env, cwd: WorkspacePath::root(), stdin, stdout, stderr, extra: Vec::new() }
    }
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The sandbox did not start it.
    #[error("the sandbox did not start it")]
    Sandbox(#[from] SandboxError),
    /// The prepared interpreter could not be reached, or ended before the program ran.
    #[error("the prepared interpreter is gone")]
    InterpreterLost,
    /// The prepared interpreter could not fork.
    #[error("the prepared interpreter could not {step}")]
    Fork {
        /// What failed.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// A kernel was asked to run something else.
    #[error("a kernel runs Python only")]
    NotPython,
    /// Descriptors could not be made or passed.
    #[error("descriptors could not be passed")]
    Descriptors(#[source] io::Error),
}

impl StartError {
    /// The failure as a client may read it.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Sandbox(error) => error.failure(),
            Self::InterpreterLost => Failure::new(
                ErrorCode::Internal,
                "The session's Python interpreter ended before the program ran. Nothing was run; call again.",
            ),
            Self::Fork { source, .. } if source.raw_os_error() == Some(libc::EAGAIN) => Failure::new(
                ErrorCode::ProcessLimit,
                "The session has as many processes as it may, so nothing was run. End some of them and call again.",
            ),
            Self::Fork { source, .. } if source.raw_os_error() == Some(libc::ENOMEM) => Failure::new(
                ErrorCode::MemoryLimit,
                "The session has no memory left for another process, so nothing was run. End some and call again.",
            ),
            Self::Fork { .. } | Self::Descriptors(_) | Self::NotPython => {
                Failure::new(ErrorCode::Internal, "The worker could not start the program; nothing was run.")
            }
        }
    }
}

impl Runtimes {
    /// Looks for interpreters: those of scripts on `search_path`, the shell where the system has it.
    pub async fn find(search_path: &OsStr) -> Self {
        let (python, shell, scripts) =
            tokio::join!(Python::find(search_path), Shell::find(), Scripts::find(search_path));
        if python.is_none() {
            tracing::warn!(?search_path, "no usable Python: run_python will be refused");
        }
        Self { python, shell, scripts, packages: None }
    }

    /// Those that sessions can run: a user id of their own on the host's root passes no closed directory.
    #[must_use]
    pub async fn for_sessions_at(self, level: IsolationLevel, search_path: &OsStr) -> Self {
        if level != IsolationLevel::Portable {
            return self;
        }
        let passable = find::open_to_everybody(search_path);
        if passable == search_path { self } else { Self::find(&passable).await }
    }

    /// The same, able to install packages for its Python.
    #[must_use]
    pub fn with_packages(self, access: PackageAccess, search_path: &OsStr, base_workspace: &Path) -> Self {
        let packages = self
            .python
            .as_ref()
            .map(|python| Packages::new(access, python.executable(), search_path.into(), base_workspace));
        Self { packages: packages.map(Arc::new), ..self }
    }

    /// Each runtime as registrations and reports list it.
    pub fn listed(&self) -> Vec<codegen_types::Runtime> {
        let python = self.python.iter().map(Python::listed);
        python.chain(self.shell.iter().map(Shell::listed)).chain(self.scripts.listed()).collect()
    }

    /// Trees that a sandbox must show beside the system's own.
    pub fn system_paths(&self) -> Vec<PathBuf> {
        self.python.iter().flat_map(Python::system_paths).chain(self.scripts.system_paths()).collect()
    }

    /// The prepared interpreter's program, if there is a Python.
    pub fn python(&self) -> Option<&Python> {
        self.python.as_ref()
    }

    /// Checks a program before anything is started.
    pub async fn prepare(
        &self,
        workspace: &Arc<Workspace>,
        program: Program,
        env: BTreeMap<String, String>,
        network: Network,
    ) -> Result<Prepared, Failure> {
        environment::check(&env)?;
        if network != Network::None && !matches!(program, Program::Install { .. }) {
            return Err(Failure::new(ErrorCode::InvalidArgument, "Only installations reach the network."));
        }
        match program {
            Program::PythonCode { code, args } => {
                self.python.as_ref().ok_or_else(no_python)?;
                Ok(Prepared::Python(Job::code(code, args, env)))
            }
            Program::PythonFile { path, args } => {
                self.python.as_ref().ok_or_else(no_python)?;
                crate::files::expect_file(workspace, &path).await?;
                Ok(Prepared::Python(Job::file(&path, args, env)))
            }
            Program::Shell { command } => {
                let missing = || Failure::new(ErrorCode::NotFound, "This worker has no shell.");
                let shell = self.shell.clone().ok_or_else(missing)?;
                shell::check(&command)?;
                let packages = self.python.as_ref().map(Python::variables_for_shell).unwrap_or_default();
                let environment = Environment::new(self.bins()).with_below_workspace(packages).with(env);
                Ok(Prepared::Command(Command { argv: shell.argv(&command), environment }))
            }
            Program::Script { runtime, source, args } => {
                if let ScriptSource::File(path) = &source {
                    crate::files::expect_file(workspace, path).await?;
                }
                self.scripts.command(&runtime, source, args, env).map(Prepared::Command)
            }
            Program::Install { requirements, upgrade } => {
                let packages = self.packages.as_ref().ok_or_else(no_python)?;
                let wanted = Wanted { requirements, upgrade, network, env };
                Ok(Prepared::Install(Box::new(packages.prepare(workspace, wanted).await?)))
            }
        }
    }

    /// Starts a program once the gate is open, and waits until it runs. An error means that nothing was run. `shown` is where
    /// a Python program shows things.
    pub async fn start(
        &self,
        live: &Live,
        prepared: &Prepared,
        stdio: Stdio,
        shown: OwnedFd,
        gate: &Gate,
    ) -> Result<Process, StartError> {
        Ok(match prepared {
            Prepared::Python(job) => Process::Forked(python::start(live, job, stdio, shown, gate).await?),
            Prepared::Command(command) => {
                gate.pass().await;
                let spawn = command.spawn(stdio, live.sandbox().places());
                Process::Supervised(live.sandbox().spawn(spawn).await?)
            }
            Prepared::Install(installation) => {
                gate.pass().await;
                Process::Supervised(installation.start(live, stdio).await?)
            }
        })
    }
}

fn no_python() -> Failure {
    Failure::new(ErrorCode::NotFound, "This worker found no Python 3.9 or later; see `coordinator doctor`.")
}
