//! What worker, launcher and init say to each other, one datagram each.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use codegen_types::{IsolationLevel, LayerReport, Limits, WorkspacePath};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use crate::backend::{Places, SandboxEnd, Spawn};
use crate::datagram::Datagram;

/// Descriptors that a program may be given beside the standard ones get numbers below this.
pub(crate) const EXTRA_NUMBERS_END: RawFd = 64;
// Each is copied above them all before it gets its number.
const _: () = assert!(Limits::OPEN_FILES_MIN >= 2 * EXTRA_NUMBERS_END as u64);
/// Arguments and environment of one program together, in bytes.
pub(crate) const SPAWN_BYTES_MAX: u64 = 2 * 1024 * 1024;
const INLINE_BYTES_MAX: usize = 32 * 1024;

/// Worker to launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LauncherRequest {
    /// Make a sandbox; the workspace's descriptor comes with it, and that of certificates for its proxy if there are some.
    Open(OpenRequest),
    /// Kill a sandbox.
    Destroy { id: u64 },
}

/// What to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OpenRequest {
    pub(crate) id: u64,
    /// The level that it must have; nothing weaker is made in its place.
    pub(crate) level: IsolationLevel,
    /// Why it is not to have a better one, for the report; absent at level full.
    pub(crate) not_better: Option<OpenFailure>,
    pub(crate) limits: Limits,
    pub(crate) system_paths: Vec<PathBuf>,
    pub(crate) uid: Option<u32>,
    /// Whether programs are to find a proxy.
    pub(crate) proxy: bool,
}

/// Launcher to worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LauncherReply {
    /// The sandbox is there, its init under this process id: init's control socket comes with it, the listener of its proxy
    /// if it has one, and the counters of memory kills and of processes that were refused, those that there are.
    Opened { id: u64, init: i32, layers: Vec<LayerReport>, places: Places, proxy: bool, counted: [bool; 2] },
    /// It could not be made; `held` is its user id when that is because processes of an earlier life do not die.
    Refused { id: u64, why: OpenFailure, held: Option<u32> },
    /// Nothing runs under a user id any more.
    Freed { uid: u32 },
    /// A sandbox is gone, with so many processes.
    Ended { id: u64, end: SandboxEnd, killed: u32 },
}

/// The step at which making a sandbox failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {why}")]
pub(crate) struct OpenFailure {
    pub(crate) step: String,
    pub(crate) why: String,
    pub(crate) remedy: Option<String>,
}

impl OpenFailure {
    /// This step failed so.
    pub(crate) fn at(step: impl Into<String>, why: impl ToString) -> Self {
        Self { step: step.into(), why: why.to_string(), remedy: None }
    }
}

/// Whether a started program is watched by a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Supervision {
    Supervised,
    Bare,
}

#[derive(Debug, Serialize, Deserialize)]
struct SpawnHeader {
    supervision: Supervision,
    cwd: WorkspacePath,
    arguments: usize,
    extra: Vec<RawFd>,
}

/// A program to start, as init receives it.
#[derive(Debug)]
pub(crate) struct SpawnOrder {
    pub(crate) supervision: Supervision,
    pub(crate) cwd: WorkspacePath,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// The supervisor's end of the task's socket.
    pub(crate) ctl: OwnedFd,
    /// Standard descriptors and extra ones, with the numbers they get.
    pub(crate) descriptors: Vec<(OwnedFd, RawFd)>,
}

/// Why an order cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidSpawn {
    #[error("the program must be named by an absolute path")]
    RelativeProgram,
    #[error("an argument or variable holds a NUL byte")]
    Nul,
    #[error("the name of a variable is empty or holds `=`")]
    VariableName,
    #[error("an extra descriptor has a number outside 3 to 63, or one that is given twice")]
    DescriptorNumber,
    #[error("arguments and environment are longer than {SPAWN_BYTES_MAX} bytes together")]
    TooLong,
    #[error("the memory file for long arguments failed: {0}")]
    MemoryFile(io::Error),
}

/// An order on its way: bytes and descriptors of the datagram.
pub(crate) struct EncodedSpawn {
    pub(crate) bytes: Vec<u8>,
    pub(crate) spill: Option<OwnedFd>,
    pub(crate) spawn: Spawn,
}

impl EncodedSpawn {
    /// Checks and encodes an order.
    pub(crate) fn new(spawn: Spawn, supervision: Supervision) -> Result<Self, InvalidSpawn> {
        check(&spawn)?;
        let header = SpawnHeader {
            supervision,
            cwd: spawn.cwd.clone(),
            arguments: spawn.argv.len(),
            extra: spawn.extra.iter().map(|(_, number)| *number).collect(),
        };
        let mut bytes = serde_json::to_vec(&header).expect("the header is plain data");
        bytes.push(b'\n');
        for argument in &spawn.argv {
            push_string(&mut bytes, &[argument])?;
        }
        for (name, value) in &spawn.env {
            push_string(&mut bytes, &[name, &OsString::from("="), value])?;
        }
        if bytes.len() as u64 > SPAWN_BYTES_MAX {
            return Err(InvalidSpawn::TooLong);
        }
        if bytes.len() <= INLINE_BYTES_MAX {
            return Ok(Self { bytes, spill: None, spawn });
        }
        let spill =
            rustix::fs::memfd_create("spawn", MemfdFlags::CLOEXEC).map_err(|e| InvalidSpawn::MemoryFile(e.into()))?;
        let mut file = File::from(spill);
        file.write_all(&bytes).map_err(InvalidSpawn::MemoryFile)?;
        Ok(Self { bytes: b"spilled".to_vec(), spill: Some(file.into()), spawn })
    }

    /// The descriptors in the order that [`SpawnOrder::decode`] expects.
    pub(crate) fn descriptors<'a>(&'a self, ctl: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
        let spawn = &self.spawn;
        let mut all: Vec<BorrowedFd<'a>> = self.spill.iter().map(AsFd::as_fd).collect();
        all.extend([ctl, spawn.stdin.as_fd(), spawn.stdout.as_fd(), spawn.stderr.as_fd()]);
        all.extend(spawn.extra.iter().map(|(fd, _)| fd.as_fd()));
        all
    }
}

fn check(spawn: &Spawn) -> Result<(), InvalidSpawn> {
    if !spawn.argv.first().is_some_and(|program| program.as_encoded_bytes().starts_with(b"/")) {
        return Err(InvalidSpawn::RelativeProgram);
    }
    if spawn.env.iter().any(|(name, _)| name.is_empty() || name.as_encoded_bytes().contains(&b'=')) {
        return Err(InvalidSpawn::VariableName);
    }
    let mut numbers: Vec<RawFd> = spawn.extra.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    let in_range = numbers.iter().all(|number| (3..EXTRA_NUMBERS_END).contains(number));
    if !in_range || numbers.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(InvalidSpawn::DescriptorNumber);
    }
    Ok(())
}

fn push_string(bytes: &mut Vec<u8>, parts: &[&OsString]) -> Result<(), InvalidSpawn> {
    for part in parts {
        if part.as_encoded_bytes().contains(&0) {
            return Err(InvalidSpawn::Nul);
        }
        bytes.extend_from_slice(part.as_encoded_bytes());
    }
    bytes.push(0);
    Ok(())
}

impl SpawnOrder {
    /// Reads an order; `None` when it is malformed, which only a fault of ours can make it.
    pub(crate) fn decode(datagram: Datagram) -> Option<Self> {
        let Datagram { mut bytes, descriptors } = datagram;
        let mut descriptors = descriptors.into_iter();
        if bytes == b"spilled" {
            bytes = read_spill(descriptors.next()?).ok()?;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let header: SpawnHeader = serde_json::from_slice(&bytes[..end]).ok()?;
        let mut strings = bytes[end + 1..].split_inclusive(|byte| *byte == 0);
        let mut next = || strings.next().map(|s| CString::from_vec_with_nul(s.to_vec()).ok());
        let argv: Vec<CString> = (0..header.arguments).map(|_| next().flatten()).collect::<Option<_>>()?;
        let env: Vec<CString> = std::iter::from_fn(next).collect::<Option<_>>()?;
        let ctl = descriptors.next()?;
        let numbers = [0, 1, 2].into_iter().chain(header.extra);
        let descriptors: Vec<_> = numbers.map(|number| Some((descriptors.next()?, number))).collect::<Option<_>>()?;
        Some(Self { supervision: header.supervision, cwd: header.cwd, argv, env, ctl, descriptors })
    }

    /// The working directory, absolute, inside a sandbox whose workspace is there.
    pub(crate) fn directory(&self, workspace: &Path) -> PathBuf {
        workspace.join(self.cwd.as_str())
    }
}

fn read_spill(file: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(file);
    let mut bytes = vec![0; file.metadata()?.len().min(SPAWN_BYTES_MAX) as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A C string of anything path-like or textual without NUL.
pub(crate) fn c_string(bytes: impl Into<OsString>) -> io::Result<CString> {
    CString::new(bytes.into().into_vec()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Reads all that a pipe holds until its writers are gone.
pub(crate) fn read_all(pipe: OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before a failure is all there is.
    let _ = File::from(pipe).read_to_end(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram;

    fn order(argument: &str) -> Spawn {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        Spawn {
            argv: vec!["/bin/echo".into(), argument.into()],
            env: vec![("A".into(), "1=2".into())],
            cwd: WorkspacePath::parse("sub").unwrap(),
            stdin: null(),
            stdout: null(),
            stderr: null(),
            extra: vec![(null(), 9)],
        }
    }

    #[test]
    fn an_order_arrives_as_it_was_given_short_or_long() {
        for argument in ["short", &"long".repeat(20_000)] {
            let (ours, theirs) = datagram::pair().unwrap();
            let encoded = EncodedSpawn::new(order(argument), Supervision::Supervised).unwrap();
            datagram::send(&ours, &encoded.bytes, &encoded.descriptors(ours.as_fd())).unwrap();
            let order = SpawnOrder::decode(datagram::recv(&theirs).unwrap().unwrap()).unwrap();
            assert_eq!(order.argv[1].to_str(), Ok(argument));
            assert_eq!(order.env[0].to_str(), Ok("A=1=2"));
            assert_eq!(order.directory(Path::new("/workspace")), PathBuf::from("/workspace/sub"));
            assert_eq!(order.descriptors.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [0, 1, 2, 9]);
        }
    }

    #[test]
    fn an_order_that_cannot_be_carried_out_is_refused() {
        let refused = |change: fn(&mut Spawn)| {
            let mut spawn = order("x");
            change(&mut spawn);
            EncodedSpawn::new(spawn, Supervision::Bare).is_err()
        };
        assert!(!refused(|_| {}));
        assert!(refused(|spawn| spawn.argv[0] = "echo".into()));
        assert!(refused(|spawn| spawn.argv.clear()));
        assert!(refused(|spawn| spawn.argv[1] = "a\0b".into()));
        assert!(refused(|spawn| spawn.env[0].0 = "A=B".into()));
        assert!(refused(|spawn| spawn.extra[0].1 = 2));
        assert!(refused(|spawn| spawn.extra[0].1 = 64));
        assert!(refused(|spawn| spawn.argv[1] = "x".repeat(3 << 20).into()));
    }
}
