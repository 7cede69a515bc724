//! Installing packages: pip runs inside the session's sandbox, isolated from the workspace, and gets its connections from
//! the worker, which decides about each of them.

mod broker;
mod gate;
mod installed;
mod pinned;
mod pip;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use codegen_types::packages::{REQUIREMENTS_MAX, USER_BASE};
use codegen_types::{ErrorCode, Exit, Failure, Network, PackageAccess, Requirement, WorkspacePath};
use parking_lot::Mutex;
use sandbox::datagram::{self, AsyncSocket};
use sandbox::files::Workspace;
use sandbox::{Child, Places, Spawn};
use serde::Serialize;
use tokio::task::JoinHandle;

use broker::{Broker, Told};
use gate::Gate;
use installed::Installed;
use pinned::{Fetch, PinnedPip, Wheel};
use pip::{Pip, PipFinder};

use crate::executor::stdio::Stdio;
use crate::runtimes::{StartError, memory_file};
use crate::session::Live;

/// What is run; its own text explains it.
const SOURCE: &str = include_str!("bootstrap.py");
/// The numbers that the descriptors have inside.
const CHANNEL_FD: i32 = 3;
const JOB_FD: i32 = 4;
const CERTIFICATES_FD: i32 = 5;
const CERTIFICATES: &str = "/proc/self/fd/5";
const WHEEL_FD: i32 = 6;
const WHEEL: &str = "/proc/self/fd/6";
const SOURCE_FD: i32 = 7;
/// The longest file of certificates, in bytes.
const CERTIFICATES_BYTES_MAX: u64 = 4 << 20;
/// What is to be done when pip did not come from the index.
const NOT_FETCHED: &str = "The worker's Python has no pip, and the one that is known could not be fetched from the index, so nothing was installed; the operator installs `python3-pip`.";
/// How long what an installation said last may take to be read.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(2);

/// What installs packages on this worker.
pub(crate) struct Packages {
    access: Arc<PackageAccess>,
    pip: PipFinder,
    pinned: PinnedPip,
}

/// An installation that was checked and can be started.
pub(crate) struct Installation {
    access: Arc<PackageAccess>,
    gate: Gate,
    python: PathBuf,
    pip: Source,
    pinned: PinnedPip,
    requirements: Vec<Requirement>,
    upgrade: bool,
    certificates: Option<Vec<u8>>,
    told: Arc<Mutex<Told>>,
    broker: Mutex<Option<JoinHandle<()>>>,
    installed: Installed,
}

/// Where an installation gets pip.
enum Source {
    /// Where the interpreter finds it.
    Installed,
    /// From a wheel of the host.
    Bundled(String),
    /// From the wheel that this worker keeps or that is to be fetched.
    Pinned(Wheel),
}

/// What the bootstrap reads.
#[derive(Debug, Serialize)]
struct Job<'a> {
    args: Vec<String>,
    names: Vec<String>,
    wheel: Option<&'a str>,
    fetch: Option<Fetch<'a>>,
}

/// What an installation is asked to do.
pub(crate) struct Wanted {
    pub requirements: Vec<String>,
    pub upgrade: bool,
    pub network: Network,
    pub env: BTreeMap<String, String>,
}

impl Packages {
    /// Installs for an interpreter of the host. What is fetched for all sessions is kept beside their workspaces.
    pub fn new(access: PackageAccess, python: &Path, search_path: OsString, base_workspace: &Path) -> Self {
        let pinned = PinnedPip::below(base_workspace);
        Self { access: Arc::new(access), pip: PipFinder::new(python, search_path), pinned }
    }

    /// Checks everything again that the coordinator checked.
    pub async fn prepare(&self, workspace: &Arc<Workspace>, wanted: Wanted) -> Result<Installation, Failure> {
        let invalid = |message: String| Failure::new(ErrorCode::InvalidArgument, message);
        let Wanted { requirements, upgrade, network, env } = wanted;
        if !env.is_empty() {
            return Err(invalid("An installation takes no variables.".to_owned()));
        }
        if requirements.is_empty() || requirements.len() > REQUIREMENTS_MAX {
            return Err(invalid(format!("1 to {REQUIREMENTS_MAX} packages can be installed at once.")));
        }
        let parse = |text: &String| Requirement::parse(text).map_err(|error| invalid(format!("{text:?}: {error}.")));
        let requirements = requirements.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        for requirement in &requirements {
            if let Requirement::Wheel(path) = requirement {
                crate::files::expect_file(workspace, path).await?;
            }
        }
        let gate = Gate::of(&network, &self.access)?;
        if gate.index.is_none() && requirements.iter().any(|one| matches!(one, Requirement::Named { .. })) {
            return Err(invalid("Without network only wheels of the workspace can be installed.".to_owned()));
        }
        let (python, found) = self.pip.find().await?;
        let pip = self.source(found, &gate).await?;
        let pinned = self.pinned.clone();
        let access = Arc::clone(&self.access);
        let certificates = if gate.index.is_some() { certificates(&access).await? } else { None };
        let (told, broker) = (Arc::default(), Mutex::new(None));
        let installed = Installed::before(workspace).await;
        Ok(Installation {
            access,
            gate,
            python,
            pip,
            pinned,
            requirements,
            upgrade,
            certificates,
            told,
            broker,
            installed,
        })
    }

    async fn source(&self, found: Pip, gate: &Gate) -> Result<Source, Failure> {
        match found {
            Pip::Installed => Ok(Source::Installed),
            Pip::Bundled(wheel) => Ok(Source::Bundled(wheel)),
            Pip::Missing => {
                let wheel = self.pinned.wheel().await.map_err(|error| error.failure())?;
                if wheel.is_missing() && gate.index.is_none() {
                    return Err(no_pip());
                }
                Ok(Source::Pinned(wheel))
            }
        }
    }
}

impl Installation {
    /// Starts pip and what serves its connections.
    pub async fn start(&self, live: &Live, stdio: Stdio) -> Result<Child, StartError> {
        let (ours, theirs) = datagram::pair().map_err(StartError::Descriptors)?;
        let places = live.sandbox().places();
        let args = self.pip_arguments(&places.workspace);
        let job = Job { args, names: self.names(), wheel: self.pip.path(), fetch: self.fetch() };
        let job = serde_json::to_vec(&job).map_err(|error| StartError::Descriptors(error.into()))?;
        let mut extra =
            vec![(theirs, CHANNEL_FD), (memory_file(&job)?, JOB_FD), (memory_file(SOURCE.as_bytes())?, SOURCE_FD)];
        if let Some(certificates) = &self.certificates {
            extra.push((memory_file(certificates)?, CERTIFICATES_FD));
        }
        if let Source::Pinned(wheel) = &self.pip {
            extra.push((wheel.share().map_err(StartError::Descriptors)?, WHEEL_FD));
        }
        let Stdio { stdin, stdout, stderr } = stdio;
        let spawn = Spawn {
            argv: self.argv(),
            env: environment(places),
            cwd: WorkspacePath::root(),
            stdin,
            stdout,
            stderr,
            extra,
        };
        let channel = AsyncSocket::new(ours).map_err(StartError::Descriptors)?;
        let broker = Broker { way_out: self.access.as_ref().into(), gate: self.gate.clone(), told: self.told.clone() };
        let child = live.sandbox().spawn(spawn).await?;
        *self.broker.lock() = Some(tokio::spawn(broker.serve(channel)));
        Ok(child)
    }

    /// Says what came of it, once its program is gone.
    pub async fn tell(&self, exit: &mut Exit) {
        let broker = self.broker.lock().take();
        if let Some(mut broker) = broker
            && tokio::time::timeout(LAST_WORDS_DEADLINE, &mut broker).await.is_err()
        {
            broker.abort();
        }
        let Told { hosts, packages, reported, notes } = std::mem::take(&mut *self.told.lock());
        exit.hosts = hosts.into_iter().collect();
        // One that was ended says nothing, although some of what it was to install may be there.
        exit.packages = if reported { packages } else { self.installed.since().await };
        exit.notes.extend(notes);
        let fetched = self.keep_pip().await;
        if fetched == Some(true) {
            exit.notes.push(format!("The worker's Python has no pip, so {} was fetched and is kept.", pinned::FILE));
        }
        if exit.code.is_some_and(|code| code != 0) {
            exit.notes.push(if fetched == Some(false) { NOT_FETCHED } else { self.hint() }.to_owned());
        }
    }

    /// Keeps a pip that this installation had to fetch; says whether it came.
    async fn keep_pip(&self) -> Option<bool> {
        match &self.pip {
            Source::Pinned(wheel) if wheel.is_missing() => Some(self.pinned.keep(wheel).await),
            Source::Pinned(_) | Source::Installed | Source::Bundled(_) => None,
        }
    }

    /// Whence pip is to be fetched, if it is.
    fn fetch(&self) -> Option<Fetch<'_>> {
        match (&self.pip, &self.gate.index) {
            (Source::Pinned(wheel), Some(index)) if wheel.is_missing() => {
                Some(Fetch::from(index.as_str(), self.certificates.as_ref().map(|_| CERTIFICATES)))
            }
            _ => None,
        }
    }

    /// What is most often the matter with an installation that failed.
    fn hint(&self) -> &'static str {
        if self.gate.index.is_some() {
            "Only wheels are installed: a package that has none for this Python and machine cannot be."
        } else {
            "There was no network: what a wheel needs must lie beside it, or be named among the packages, which uses the index."
        }
    }

    /// The interpreter, isolated from the workspace, from variables and from the user's packages.
    fn argv(&self) -> Vec<OsString> {
        let boot = format!(
            "f=open({SOURCE_FD},'rb');s=f.read();f.close();exec(compile(s,'<install>','exec'),{{'__name__':'install'}})"
        );
        vec![self.python.clone().into_os_string(), "-I".into(), "-c".into(), boot.into()]
    }

    fn names(&self) -> Vec<String> {
        self.requirements.iter().map(Requirement::canonical_name).collect()
    }

    fn pip_arguments(&self, workspace: &Path) -> Vec<String> {
        let mut args: Vec<String> = [
            "install",
            "--isolated",
            "--user",
            "--no-input",
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--no-warn-script-location",
            "--no-color",
            "--progress-bar",
            "off",
            "--retries",
            "1",
            "--timeout",
            "60",
            "--only-binary",
            ":all:",
        ]
        .map(str::to_owned)
        .to_vec();
        match &self.gate.index {
            Some(index) => {
                args.extend(["--index-url".to_owned(), index.as_str().to_owned()]);
                if !index.is_encrypted() {
                    args.extend(["--trusted-host".to_owned(), index.host().to_string()]);
                }
            }
            None => args.push("--no-index".to_owned()),
        }
        if self.certificates.is_some() {
            args.extend(["--cert".to_owned(), CERTIFICATES.to_owned()]);
        }
        if self.upgrade {
            args.push("--upgrade".to_owned());
        }
        let mut places = Vec::new();
        let mut wanted = Vec::new();
        for requirement in &self.requirements {
            match requirement {
                Requirement::Named { .. } => wanted.push(requirement.to_string()),
                Requirement::Wheel(path) => {
                    let path = workspace.join(path.as_str());
                    // Wheels beside it may be what it needs.
                    let place = path.parent().unwrap_or(workspace).to_string_lossy().into_owned();
                    if self.gate.index.is_none() && !places.contains(&place) {
                        args.extend(["--find-links".to_owned(), place.clone()]);
                        places.push(place);
                    }
                    wanted.push(path.to_string_lossy().into_owned());
                }
            }
        }
        args.push("--".to_owned());
        args.extend(wanted);
        args
    }
}

impl Source {
    /// The wheel to import it from, by its path inside the sandbox.
    fn path(&self) -> Option<&str> {
        match self {
            Self::Installed => None,
            Self::Bundled(wheel) => Some(wheel),
            Self::Pinned(_) => Some(WHEEL),
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.lock().take() {
            broker.abort();
        }
    }
}

impl std::fmt::Debug for Packages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is left out may hold the password of a proxy.
        f.debug_struct("Packages").field("pip", &self.pip).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is left out may hold the password of a proxy.
        f.debug_struct("Installation").field("requirements", &self.requirements).finish_non_exhaustive()
    }
}

fn no_pip() -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        "The worker's Python has no pip, and without network none can be fetched: install something from the package index first, which fetches it, or the operator installs `python3-pip`.",
    )
}

/// Nothing that a session could have put somewhere is read: no configuration, no `.netrc`, no cache.
fn environment(places: &Places) -> Vec<(OsString, OsString)> {
    let base = places.workspace.join(USER_BASE);
    let fixed = [
        ("PATH", "/usr/bin:/bin"),
        ("HOME", "/nonexistent"),
        ("LANG", "C.UTF-8"),
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("NETRC", "/dev/null"),
        ("_PIP_USE_IMPORTLIB_METADATA", "1"),
    ];
    let places = [("TMPDIR", places.scratch.clone()), ("PYTHONUSERBASE", base)];
    let fixed = fixed.into_iter().map(|(name, value)| (name.into(), value.into()));
    fixed.chain(places.into_iter().map(|(name, value)| (name.into(), value.into_os_string()))).collect()
}

/// The certificates that the host trusts, when it says so.
async fn certificates(access: &PackageAccess) -> Result<Option<Vec<u8>>, Failure> {
    let Some(path) = access.ca_file.clone() else { return Ok(None) };
    let read = move || -> io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(CERTIFICATES_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > CERTIFICATES_BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other).and_then(|read| read);
    read.map(Some).map_err(|error| {
        tracing::error!(%error, path = ?access.ca_file, "the file of certificates cannot be read");
        Failure::new(
            ErrorCode::Internal,
            "The worker cannot read the certificates that the host trusts; nothing was run.",
        )
    })
}
