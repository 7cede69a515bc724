//! A workspace in a base, something outside that must never be reached, and the session that attacks.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use codegen_types::event::{Edited, FileStat, Found};
use codegen_types::operation::{Edit, List, Move, Pictures, Read, Remove, Search, Stat, Write, WriteMode};
use codegen_types::{ErrorCode, Failure, Limits, OperationResult, SessionId, WorkspacePath};
use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};
use sandbox::files::{Workspace, WorkspaceBase};
use tempfile::TempDir;

/// The session's user when the worker is root.
pub const SESSION_UID: u32 = 64_123;
pub const SECRET: &str = "the secret outside";

pub struct Fixture {
    top: TempDir,
    pub base: WorkspaceBase,
    pub session: SessionId,
    pub workspace: Workspace,
    root: OwnedFd,
}

pub fn owner() -> Option<u32> {
    geteuid().is_root().then_some(SESSION_UID)
}

pub fn path(text: &str) -> WorkspacePath {
    WorkspacePath::parse(text).expect("a legal path")
}

impl Fixture {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let top = tempfile::tempdir().expect("a temporary directory");
        // Nothing but our own rules shall keep the session's links from working.
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let outside = top.path().join("outside");
        fs::create_dir(&outside).expect("mkdir");
        fs::write(outside.join("secret"), SECRET).expect("write");
        fs::create_dir(outside.join("deep")).expect("mkdir");
        fs::write(outside.join("deep/secret"), SECRET).expect("write");
        for open in ["", "deep", "secret", "deep/secret"] {
            fs::set_permissions(outside.join(open), fs::Permissions::from_mode(0o777)).expect("chmod");
        }
        let base = WorkspaceBase::open(&top.path().join("workspaces")).expect("a base");
        let session = SessionId::mint();
        let (root, created) = base.open_or_create(session, owner()).expect("a workspace");
        assert!(created);
        let workspace = Workspace::new(root.try_clone().expect("dup"), limits).expect("a workspace");
        Self { top, base, session, workspace, root }
    }

    pub fn outside(&self) -> PathBuf {
        self.top.path().join("outside")
    }

    pub fn base_path(&self) -> PathBuf {
        self.top.path().join("workspaces")
    }

    /// The workspace's directory by descriptor, since the session cannot pass the base.
    pub fn inside(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()))
    }

    /// Does something as the session would.
    pub fn as_session<T: Send>(&self, act: impl FnOnce(&Path) -> T + Send) -> T {
        let inside = self.inside();
        thread::scope(|scope| {
            let acting = scope.spawn(move || {
                become_session();
                act(&inside)
            });
            acting.join().expect("the session's act")
        })
    }

    pub fn read(&self, name: &str) -> Result<Vec<u8>, Failure> {
        match self.workspace.read(&Read { path: path(name), offset: 0, limit: None, pictures: Pictures::AsBytes })? {
            OperationResult::Read { contents, .. } => Ok(contents),
            other => panic!("not a reading: {other:?}"),
        }
    }

    pub fn write_as(&self, name: &str, contents: &[u8], mode: WriteMode) -> Result<FileStat, Failure> {
        self.write_if(name, contents, mode, None).map(|(stat, _)| stat)
    }

    pub fn write(&self, name: &str, contents: &[u8]) -> Result<FileStat, Failure> {
        self.write_as(name, contents, WriteMode::Overwrite)
    }

    pub fn write_if(
        &self,
        name: &str,
        contents: &[u8],
        mode: WriteMode,
        if_match: Option<&str>,
    ) -> Result<(FileStat, bool), Failure> {
        let if_match = if_match.map(str::to_owned);
        match self.workspace.write(&Write { path: path(name), contents: contents.to_vec(), mode, if_match })? {
            OperationResult::Write { stat, created } => Ok((stat, created)),
            other => panic!("not a writing: {other:?}"),
        }
    }

    pub fn stat(&self, name: &str) -> Result<FileStat, Failure> {
        match self.workspace.stat(&Stat { path: path(name) })? {
            OperationResult::Stat { stat } => Ok(stat),
            other => panic!("not a description: {other:?}"),
        }
    }

    pub fn list(&self, name: &str, recursive: bool, pattern: Option<&str>) -> Result<(Vec<String>, bool), Failure> {
        let (entries, truncated) = self.entries(name, recursive, pattern)?;
        Ok((entries.into_iter().map(|entry| entry.path).collect(), truncated))
    }

    pub fn entries(
        &self,
        name: &str,
        recursive: bool,
        pattern: Option<&str>,
    ) -> Result<(Vec<FileStat>, bool), Failure> {
        let pattern = pattern.map(str::to_owned);
        match self.workspace.list(&List { path: path(name), recursive, pattern, entries_max: 2_000 })? {
            OperationResult::List { entries, truncated } => Ok((entries, truncated)),
            other => panic!("not a listing: {other:?}"),
        }
    }

    pub fn mv(&self, from: &str, to: &str, overwrite: bool) -> Result<FileStat, Failure> {
        match self.workspace.mv(&Move { from: path(from), to: path(to), overwrite })? {
            OperationResult::Move { stat } => Ok(stat),
            other => panic!("not a move: {other:?}"),
        }
    }

    pub fn edit(&self, name: &str, old: &str, new: &str) -> Result<Edited, Failure> {
        self.edit_as(&Edit { replace_all: false, ..edit_of(name, old, new) })
    }

    pub fn edit_as(&self, edit: &Edit) -> Result<Edited, Failure> {
        match self.workspace.edit(edit)? {
            OperationResult::Edit(edited) => Ok(edited),
            other => panic!("not an edit: {other:?}"),
        }
    }

    pub fn search(&self, search: &Search) -> Result<Found, Failure> {
        match self.workspace.search(search, &Arc::default())? {
            OperationResult::Search(found) => Ok(found),
            other => panic!("not a search: {other:?}"),
        }
    }

    pub fn remove(&self, name: &str, recursive: bool) -> Result<u64, Failure> {
        match self.workspace.remove(&Remove { path: path(name), recursive })? {
            OperationResult::Remove { removed } => Ok(removed),
            other => panic!("not a removal: {other:?}"),
        }
    }

    /// Nothing outside was changed.
    pub fn assert_outside_is_whole(&self) {
        let names = |directory: &Path| -> Vec<String> {
            let entries = fs::read_dir(directory).expect("readable");
            let mut names: Vec<String> =
                entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        let outside = self.outside();
        assert_eq!(names(&outside), ["deep", "secret"]);
        assert_eq!(names(&outside.join("deep")), ["secret"]);
        for secret in ["secret", "deep/secret"] {
            assert_eq!(fs::read_to_string(outside.join(secret)).expect("readable"), SECRET);
        }
        for (name, mode) in [("", 0o777), ("deep", 0o777), ("secret", 0o777), ("deep/secret", 0o777)] {
            let found = fs::metadata(outside.join(name)).expect("there").permissions().mode();
            assert_eq!(found & 0o777, mode, "{name}");
        }
    }

    /// No temporary file was left behind.
    pub fn assert_nothing_temporary(&self) {
        let (names, _) = self.list("", true, None).expect("a listing");
        assert!(!names.iter().any(|name| name.contains(".codegen-") || name.contains(".deleting-")), "{names:?}");
    }
}

/// Replaces all, without conditions.
pub fn edit_of(name: &str, old: &str, new: &str) -> Edit {
    Edit { path: path(name), old: old.to_owned(), new: new.to_owned(), replace_all: true, if_match: None }
}

/// Searches everything for a pattern.
pub fn search_of(pattern: &str) -> Search {
    let (path, pattern) = (WorkspacePath::root(), pattern.to_owned());
    Search { path, pattern, literal: false, ignore_case: false, glob: None, context: 0, matches_max: 100 }
}

/// This thread reaches files as the session from now on.
pub fn become_session() {
    if let Some(uid) = owner() {
        setfsgid(Gid::from_raw(uid));
        setfsuid(Uid::from_raw(uid));
    }
}

pub fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> ErrorCode {
    let failure = result.expect_err("must be refused");
    assert!(failure.message.len() > 10, "says what to do: {failure}");
    failure.code
}
