//! Landlock: files are denied unless they lie below a listed tree; signals and abstract sockets stay inside a task.
//!
//! At level full TCP is not handled, since the network namespace holds nothing but loopback, where programs may test their
//! servers. Below it, binding and connecting are denied, and the root is the host's, of which next to nothing is listed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

use crate::kernel;

/// The newest version whose rights we know; older kernels get the best they have.
const NEWEST: ABI = ABI::V7;

/// The rules for programs, held open by the kernel; nothing where it has no Landlock.
#[derive(Debug)]
pub(crate) struct Rules(Option<OwnedFd>);

impl Rules {
    /// Makes the rules. Runs in init, on the sandbox's own root.
    pub(crate) fn make(system_trees: &[PathBuf]) -> io::Result<Self> {
        Ok(Self(build(system_trees).map_err(io::Error::other)?.into()))
    }

    /// Makes the rules for a sandbox on the host's own root.
    pub(crate) fn make_on_host(shown: &OnHost<'_>) -> io::Result<Self> {
        Ok(Self(build_on_host(shown).map_err(io::Error::other)?.into()))
    }

    /// Binds this process and its descendants; `no_new_privs` must be set.
    pub(crate) fn restrict(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), kernel::landlock_restrict)
    }

    /// The descriptor that holds them.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.0.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// What of the host's root is listed.
#[derive(Debug)]
pub(crate) struct OnHost<'a> {
    /// Trees and files that may be read and run.
    pub(crate) readable: &'a [PathBuf],
    /// The session's own directories.
    pub(crate) own: [BorrowedFd<'a>; 2],
}

/// Devices that programs may use. Not zero: a shared mapping of it, which needs writing, is memory that no sample would
/// see.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/full", "/dev/random", "/dev/urandom"];

fn of_workspace() -> BitFlags<AccessFs> {
    AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock)
}

fn of_device() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev
}

fn build_on_host(shown: &OnHost<'_>) -> Result<RulesetCreated, RulesetError> {
    let read = AccessFs::from_read(NEWEST);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    for path in shown.readable {
        rules = allow(rules, path.clone(), read)?;
    }
    rules = allow(rules, "/proc".into(), AccessFs::ReadFile | AccessFs::ReadDir)?;
    rules = allow(rules, "/dev/zero".into(), AccessFs::ReadFile.into())?;
    for path in DEVICES {
        rules = allow(rules, path.into(), of_device())?;
    }
    for own in shown.own {
        rules = rules.add_rule(PathBeneath::new(own, of_workspace()))?;
    }
    Ok(rules)
}

fn build(system_trees: &[PathBuf]) -> Result<RulesetCreated, RulesetError> {
    let read = AccessFs::from_read(NEWEST);
    let all = of_workspace();
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    rules = allow(rules, "/".into(), AccessFs::ReadDir.into())?;
    for tree in system_trees {
        rules = allow(rules, tree.clone(), read)?;
    }
    for (path, access) in
        [("/etc", read), ("/proc", look), ("/dev", look), ("/workspace", all), ("/tmp", all), ("/dev/shm", all)]
    {
        rules = allow(rules, path.into(), access)?;
    }
    for path in DEVICES {
        rules = allow(rules, path.into(), of_device())?;
    }
    Ok(rules)
}

/// Takes every right to files and TCP from this thread and what it starts, as far as the kernel can; what is open stays.
///
/// # Errors
/// When the kernel refuses.
pub fn without_files() -> io::Result<()> {
    let deny = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?
            .create()?
            .restrict_self()
    };
    deny().map(drop).map_err(io::Error::other)
}

/// Adds a rule for a path; one that is not there needs none. A right that only directories have is left out of the
/// rule for a file by the library.
fn allow(rules: RulesetCreated, path: PathBuf, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(fd) => rules.add_rule(PathBeneath::new(fd, access)),
        Err(_) => Ok(rules),
    }
}
