//! The state directory: who may use it, what is where, and the one lock that says whose it is at present.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::front::handover::VERSION;

/// The directory of the audit log, below the state directory.
pub const AUDIT_DIR: &str = "audit";

/// The longest path of a Unix socket, in bytes, its final NUL not counted.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How the names of private directories of standalone processes begin.
const STANDALONE: &str = "standalone-";

/// How many private directories a standalone process tries, one after the other.
const STANDALONE_DIRS_MAX: u32 = 64;

/// What lets every user pass a directory, to what is theirs below it.
const PASSABLE: Mode = Mode::XGRP.union(Mode::XOTH);

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made or opened.
    #[error("the state directory {path} cannot be used")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could change what is in it.
    #[error("the state directory {path} is refused: {why}")]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// Another process has it.
    #[error("the state directory {path} is in use by {holder}")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as its lock file says.
        holder: String,
    },
}

/// A state directory that belongs to this user alone.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    fd: OwnedFd,
}

/// The tree that every session is shown in which a directory lies, if it lies in one.
fn shown_tree(path: &Path) -> io::Result<Option<PathBuf>> {
    let place = fs::canonicalize(path)?;
    let mut trees = codegen_types::isolation::SYSTEM_TREES.iter().filter_map(|tree| fs::canonicalize(tree).ok());
    Ok(trees.find(|tree| place.starts_with(tree)))
}

impl StateDir {
    /// Opens the directory, and makes it first if it is not there.
    pub fn open_or_create(path: &Path) -> Result<Self, StateDirError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| StateDirError::Unusable { path: path.to_owned(), source })?;
        let dir = Self::open(path)?;
        // Readable by others is harmless with every file 0600, but the promise is 0700: 0711 where root's worker lets sessions pass.
        let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode());
        let passed = rustix::process::geteuid().is_root() && mode & 0o777 == 0o711;
        let tightened = rustix::fs::fchmod(&dir.fd, if passed { Mode::RWXU | PASSABLE } else { Mode::RWXU });
        tightened.map_err(|errno| StateDirError::Unusable { path: path.to_owned(), source: errno.into() })?;
        Ok(dir)
    }

    /// Opens the directory as it is, and checks whose it is.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let unusable = |source| StateDirError::Unusable { path: path.to_owned(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| unusable(errno.into()))?;
        let metadata = File::from(fd.try_clone().map_err(unusable)?).metadata().map_err(unusable)?;
        let uid = rustix::process::geteuid().as_raw();
        let untrusted = |why| Err(StateDirError::Untrusted { path: path.to_owned(), why });
        if let Some(shown) = shown_tree(path).map_err(unusable)? {
            let why = format!("every session is shown {}; name another place (CODEGEN_STATE_DIR)", shown.display());
            return untrusted(why);
        }
        if metadata.uid() != uid {
            return untrusted(format!("it belongs to user id {}, not to {uid}", metadata.uid()));
        }
        if metadata.permissions().mode() & 0o022 != 0 {
            return untrusted(format!("others may write to it; `chmod 700 {}`", path.display()));
        }
        Ok(Self { path: path.to_owned(), fd })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the audit log is.
    pub fn audit_dir(&self) -> PathBuf {
        self.path.join(AUDIT_DIR)
    }

    /// Where sessions and tasks are stored.
    pub fn database(&self) -> PathBuf {
        self.path.join("state.db")
    }

    /// Where diagnostics are written.
    pub fn logs_dir(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Where the embedded worker keeps workspaces unless told otherwise.
    pub fn workspaces_dir(&self) -> PathBuf {
        self.path.join("workspaces")
    }

    /// Where fronts find the server.
    pub fn front_socket(&self) -> PathBuf {
        self.socket("server.sock")
    }

    /// Where the operator's commands find the server.
    pub fn control_socket(&self) -> PathBuf {
        self.socket("control.sock")
    }

    /// Where this process listens for the embedded worker.
    pub fn worker_socket(&self) -> PathBuf {
        self.socket("worker.sock")
    }

    /// Where the embedded worker finds the server: the same place, as a child of this process reaches it.
    pub fn worker_socket_for_child(&self) -> PathBuf {
        match self.worker_socket().strip_prefix("/proc/self") {
            Ok(rest) => PathBuf::from(format!("/proc/{}", std::process::id())).join(rest),
            Err(_) => self.worker_socket(),
        }
    }

    /// A path short enough for a socket address: through our descriptor of the directory when the real one is not.
    fn socket(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return path;
        }
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }

    /// Takes the lock that makes this process the server here. `patience` is how long a server that is just ending is
    /// waited for.
    pub async fn lock(self, patience: Duration) -> Result<LockedStateDir, StateDirError> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut file = self.open_lock_file("server.lock")?;
        while !self.try_lock(&file)? {
            if tokio::time::Instant::now() >= deadline {
                return Err(StateDirError::InUse { holder: holder_of(&mut file), path: self.path });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let unusable = |source| StateDirError::Unusable { path: self.path.clone(), source };
        write_holder(&mut file).map_err(unusable)?;
        Ok(LockedStateDir { dir: self, lock: file })
    }

    /// Takes the lock that lets one front at a time start a server.
    pub async fn lock_starting(&self, patience: Duration) -> Result<File, StateDirError> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut file = self.open_lock_file("start.lock")?;
        while !self.try_lock(&file)? {
            if tokio::time::Instant::now() >= deadline {
                return Err(StateDirError::InUse { holder: holder_of(&mut file), path: self.path.clone() });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(file)
    }

    /// Who holds the server's lock now; `None` when nobody does. Changes nothing, and never holds the lock itself.
    pub fn running_server(&self) -> Result<Option<String>, StateDirError> {
        let path = self.path.join("server.lock");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateDirError::Unusable { path, source }),
        };
        // A shared lock for an instant could make a starting server believe that another one runs, so the kernel's
        // own list of locks is read instead.
        let metadata = file.metadata().map_err(|source| StateDirError::Unusable { path, source })?;
        if is_locked(metadata.ino()) { Ok(Some(holder_of(&mut file))) } else { Ok(None) }
    }

    fn open_lock_file(&self, name: &str) -> Result<File, StateDirError> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let path = self.path.join(name);
        options.open(&path).map_err(|source| StateDirError::Unusable { path, source })
    }

    fn try_lock(&self, file: &File) -> Result<bool, StateDirError> {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(StateDirError::Unusable { path: self.path.clone(), source: errno.into() }),
        }
    }
}

/// A state directory that this process has to itself until it drops this.
#[derive(Debug)]
pub struct LockedStateDir {
    dir: StateDir,
    lock: File,
}

impl LockedStateDir {
    /// The closed directories on the way to the workspaces, where these are below: this one, and the one that a process
    /// which serves alone has it in.
    pub fn above(&self, workspaces: &Path) -> Vec<PathBuf> {
        if !workspaces.starts_with(self.path()) {
            return Vec::new();
        }
        let is_private = self.path().file_name().is_some_and(|name| name.to_string_lossy().starts_with(STANDALONE));
        let above = self.path().parent().filter(|_| is_private);
        [Some(self.path()), above].into_iter().flatten().map(Path::to_owned).collect()
    }

    /// Closes the directory to everybody else, which an earlier life may have let sessions pass.
    pub fn close(&self) -> Result<(), StateDirError> {
        rustix::fs::fchmod(&self.dir.fd, Mode::RWXU)
            .map_err(|errno| StateDirError::Unusable { path: self.path().to_owned(), source: errno.into() })
    }

    /// A state directory for a process that serves alone: the one asked for when it is free, else the first free one
    /// of `standalone-1`, `standalone-2` … below it. The second value tells which it was.
    pub async fn standalone(path: &Path) -> Result<(Self, StandaloneAs), StateDirError> {
        let taken = match StateDir::open_or_create(path)?.lock(Duration::ZERO).await {
            Err(error @ StateDirError::InUse { .. }) => error,
            locked => return Ok((locked?, StandaloneAs::Asked)),
        };
        for number in 1..=STANDALONE_DIRS_MAX {
            let private = path.join(format!("{STANDALONE}{number}"));
            match StateDir::open_or_create(&private)?.lock(Duration::ZERO).await {
                Err(StateDirError::InUse { .. }) => {}
                locked => return Ok((locked?, StandaloneAs::Private { why: taken.to_string() })),
            }
        }
        Err(taken)
    }

    /// Removes the sockets. Done while the lock is held, so that those of the next server are never hit.
    pub fn remove_sockets(&self) {
        for socket in [self.dir.front_socket(), self.dir.control_socket(), self.dir.worker_socket()] {
            match fs::remove_file(&socket) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(socket = %socket.display(), %error, "a socket could not be removed"),
            }
        }
    }
}

/// Gives the directory up, also at a forced end: sockets first, then the lock.
impl Drop for LockedStateDir {
    fn drop(&mut self) {
        self.remove_sockets();
        // An empty lock file says that its last holder ended in order.
        if let Err(error) = self.lock.set_len(0).and_then(|()| self.lock.rewind()) {
            tracing::debug!(%error, "the lock file could not be emptied");
        }
    }
}

impl std::ops::Deref for LockedStateDir {
    type Target = StateDir;

    fn deref(&self) -> &StateDir {
        &self.dir
    }
}

/// Which directory a standalone process got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandaloneAs {
    /// The one asked for.
    Asked,
    /// One of its own, because the one asked for is taken.
    Private {
        /// Who has it.
        why: String,
    },
}

/// Whether some process holds a `flock` on the file with this inode number, by the kernel's list.
fn is_locked(inode: u64) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let of_file = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let place = fields.iter().find(|field| field.matches(':').count() == 2);
        fields.contains(&"FLOCK") && place.is_some_and(|place| place.ends_with(&format!(":{inode}")))
    };
    locks.lines().any(of_file)
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "process {}, version {VERSION}", std::process::id())
}

fn holder_of(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(200).read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), holder) if !holder.is_empty() => holder.to_owned(),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_has_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open_or_create(dir.path()).unwrap().lock(Duration::ZERO).await.unwrap();
        let error = StateDir::open(dir.path()).unwrap().lock(Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        let running = StateDir::open(dir.path()).unwrap().running_server().unwrap();
        assert!(running.is_some_and(|holder| holder.contains("version")));
        drop(first);
        assert_eq!(StateDir::open(dir.path()).unwrap().running_server().unwrap(), None);
        assert!(StateDir::open(dir.path()).unwrap().lock(Duration::ZERO).await.is_ok());
    }

    #[tokio::test]
    async fn a_standalone_process_beside_a_server_gets_a_directory_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (_server, how) = LockedStateDir::standalone(dir.path()).await.unwrap();
        assert_eq!(how, StandaloneAs::Asked);
        for name in ["standalone-1", "standalone-2"] {
            let (locked, how) = LockedStateDir::standalone(dir.path()).await.unwrap();
            assert_eq!(locked.path(), dir.path().join(name));
            assert!(matches!(how, StandaloneAs::Private { .. }));
            std::mem::forget(locked);
        }
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = StateDir::open_or_create(dir.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_directory_that_every_session_is_shown_is_refused() {
        let error = StateDir::open(Path::new("/usr/share")).unwrap_err();
        assert!(error.to_string().contains("every session is shown /usr"), "{error}");
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let path = if rustix::process::geteuid().is_root() {
            let dir = tempfile::tempdir().unwrap().keep();
            std::os::unix::fs::chown(&dir, Some(12_345), None).unwrap();
            dir
        } else {
            PathBuf::from("/")
        };
        assert!(matches!(StateDir::open(&path), Err(StateDirError::Untrusted { .. })));
    }

    #[test]
    fn the_directory_is_private_and_its_sockets_have_short_paths() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        let state = StateDir::open_or_create(&long).unwrap();
        assert_eq!(fs::metadata(&long).unwrap().permissions().mode() & 0o777, 0o700);
        let _listener = std::os::unix::net::UnixListener::bind(state.front_socket()).unwrap();
        assert!(long.join("server.sock").exists());
    }
}
