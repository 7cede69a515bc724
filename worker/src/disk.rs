//! What a session takes on disk. Nothing but counting it again and again bounds the whole: while a program runs, and between
//! the session's calls as long as something of it lives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::Limits;
use sandbox::files::{Usage, Workspace};
use tokio::time::Instant;

use crate::files;

/// How often a workspace is counted while a program runs, at most.
const RUNNING_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// The same, between calls.
const RESTING_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The rest after a count is so many times as long as the count, which so never takes more than a tenth of the time.
const REST_PER_COUNT: u32 = 10;
/// How often in a row it may be that a workspace cannot be counted.
const UNREAD_MAX: u32 = 2;

/// What a session has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgrown {
    /// So many bytes in its workspace, [`u64::MAX`] when not all of it can be counted.
    Bytes(u64),
    /// Files in its workspace, or they cannot be counted.
    Files,
    /// Its temporary files, where no file system of their own bounds them.
    Scratch,
}

impl Outgrown {
    /// Why the processes of a session were ended that had too much between its calls, as a sentence goes on after a colon.
    pub fn between_calls(self) -> &'static str {
        match self {
            Self::Bytes(_) => {
                "the session's processes wrote on between calls until the workspace held more bytes than it may (DISK_LIMIT)"
            }
            Self::Files => {
                "the session's processes wrote on between calls until the workspace held more files than it may, or nested \
                 them too deep (DISK_LIMIT)"
            }
            Self::Scratch => {
                "the session's processes wrote on between calls until their temporary files were more than they may be \
                 (DISK_LIMIT)"
            }
        }
    }

    /// Whether there is still more than at the look before. What cannot be counted must not pass for no more.
    fn grew(self, before: Option<Self>) -> bool {
        match (before, self) {
            (None, _) => false,
            (Some(Self::Bytes(before)), Self::Bytes(now)) => now > before || now == u64::MAX,
            (Some(_), _) => true,
        }
    }
}

/// Temporary files that nothing but looking bounds.
#[derive(Debug, Clone)]
pub(crate) struct Scratch {
    pub directory: PathBuf,
    pub bytes_max: u64,
}

impl Scratch {
    /// As many as a file system of their own would have room for.
    const FILES_MAX: u64 = 65_536;

    fn is_outgrown(&self) -> bool {
        // One that is gone holds nothing; one that cannot be counted holds too much.
        match sandbox::files::scratch_usage(&self.directory) {
            Ok(usage) => usage.bytes > self.bytes_max || usage.files > Self::FILES_MAX || !usage.complete,
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }
}

/// Waits until a session whose program runs has too much.
pub(crate) async fn outgrown(workspace: &Arc<Workspace>, scratch: Option<Scratch>) -> Outgrown {
    let mut gauge = Gauge::every(RUNNING_INTERVAL_MIN);
    loop {
        gauge.rest().await;
        if let Some(of) = gauge.count(workspace, scratch.clone()).await {
            return of;
        }
    }
}

/// Looks at a session between its calls. One that has too much and takes no more is let be, so that a kernel whose call was
/// ended for that keeps its variables until somebody makes room.
#[derive(Debug)]
pub(crate) struct Growth {
    gauge: Gauge,
    before: Option<Outgrown>,
}

impl Growth {
    pub fn new() -> Self {
        Self { gauge: Gauge::every(RESTING_INTERVAL_MIN), before: None }
    }

    /// Waits for the next look.
    pub async fn rest(&self) {
        self.gauge.rest().await;
    }

    /// What there is too much of, and more than at the look before.
    pub async fn look(&mut self, workspace: &Arc<Workspace>, scratch: Option<Scratch>) -> Option<Outgrown> {
        let now = self.gauge.count(workspace, scratch).await;
        let before = std::mem::replace(&mut self.before, now);
        now.filter(|now| now.grew(before))
    }
}

/// Counts a workspace from time to time, more rarely the longer it takes.
#[derive(Debug)]
struct Gauge {
    interval_min: Duration,
    pause: Duration,
    unread: u32,
}

impl Gauge {
    fn every(interval_min: Duration) -> Self {
        Self { interval_min, pause: interval_min, unread: 0 }
    }

    async fn rest(&self) {
        tokio::time::sleep(self.pause).await;
    }

    async fn count(&mut self, workspace: &Arc<Workspace>, scratch: Option<Scratch>) -> Option<Outgrown> {
        let began = Instant::now();
        let found = match self.count_workspace(workspace).await {
            None => count_scratch(scratch).await,
            found => found,
        };
        self.pause = self.interval_min.max(began.elapsed() * REST_PER_COUNT);
        found
    }

    async fn count_workspace(&mut self, workspace: &Arc<Workspace>) -> Option<Outgrown> {
        let Limits { workspace_bytes, .. } = *workspace.limits();
        match files::blocking(workspace, Workspace::usage).await {
            Ok(Usage { bytes, complete, .. }) if bytes > workspace_bytes => {
                Some(Outgrown::Bytes(if complete { bytes } else { u64::MAX }))
            }
            Ok(usage) if !usage.complete => Some(Outgrown::Files),
            Ok(_) => {
                self.unread = 0;
                None
            }
            // One that cannot be read just now is looked at again, but not for ever.
            Err(_) if self.unread == UNREAD_MAX => Some(Outgrown::Files),
            Err(_) => {
                self.unread += 1;
                None
            }
        }
    }
}

async fn count_scratch(scratch: Option<Scratch>) -> Option<Outgrown> {
    let scratch = scratch?;
    let counted = tokio::task::spawn_blocking(move || scratch.is_outgrown()).await;
    counted.unwrap_or(false).then_some(Outgrown::Scratch)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn temporary_files_that_cannot_be_counted_are_too_many_and_those_that_are_gone_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = |name| Scratch { directory: directory.path().join(name), bytes_max: 1 << 20 };
        std::fs::create_dir(directory.path().join("empty")).unwrap();
        std::fs::write(directory.path().join("no-directory"), "").unwrap();
        assert!(scratch("no-directory").is_outgrown());
        assert!(!scratch("empty").is_outgrown());
        assert!(!scratch("gone").is_outgrown());
    }

    #[tokio::test]
    async fn between_calls_a_session_has_too_much_when_it_still_takes_more_or_cannot_be_counted() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { workspace_bytes: 64 << 10, ..Limits::default() };
        let workspace = Arc::new(Workspace::new(File::open(directory.path()).unwrap().into(), limits).unwrap());
        let write =
            |name: &str, kib: usize| std::fs::write(directory.path().join(name), vec![b'x'; kib << 10]).unwrap();
        let mut growth = Growth::new();
        write("within", 16);
        assert_eq!(growth.look(&workspace, None).await, None);
        write("beyond", 64);
        assert_eq!(growth.look(&workspace, None).await, None, "what it had before is not known");
        assert_eq!(growth.look(&workspace, None).await, None, "it takes no more");
        write("more", 16);
        assert!(matches!(growth.look(&workspace, None).await, Some(Outgrown::Bytes(bytes)) if bytes >= 96 << 10));
        std::fs::remove_file(directory.path().join("beyond")).unwrap();
        assert_eq!(growth.look(&workspace, None).await, None);
        std::fs::create_dir_all(directory.path().join("d/".repeat(300))).unwrap();
        assert_eq!(growth.look(&workspace, None).await, None);
        assert!(growth.look(&workspace, None).await.is_some(), "what cannot be counted does not pass for no more");
    }
}
