//! Which packages a session has, as the names of directories say: what is left to go by when an installation was ended
//! before it could report.

use std::collections::BTreeSet;
use std::sync::Arc;

use codegen_types::operation::List;
use codegen_types::packages::USER_BASE;
use codegen_types::{Operation, OperationResult, Package, WorkspacePath};
use sandbox::files::Workspace;

use super::broker::package;
use crate::files;

/// Entries of one directory that are looked at.
const ENTRIES_MAX: u32 = 5_000;

/// The packages that were there before an installation, to be compared with those after it.
pub(super) struct Installed {
    workspace: Arc<Workspace>,
    before: BTreeSet<(String, String)>,
}

impl Installed {
    /// Looks at what is there.
    pub async fn before(workspace: &Arc<Workspace>) -> Self {
        Self { workspace: workspace.clone(), before: look(workspace).await }
    }

    /// What is there now and was not before.
    pub async fn since(&self) -> Vec<Package> {
        let after = look(&self.workspace).await;
        let new = after.difference(&self.before).cloned();
        new.map(|(name, version)| Package { name, version }).collect()
    }
}

async fn look(workspace: &Arc<Workspace>) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let library = format!("{USER_BASE}/lib");
    for python in list(workspace, &library, "python*").await {
        for directory in list(workspace, &format!("{python}/site-packages"), "*.dist-info").await {
            let name = directory.rsplit('/').next().unwrap_or_default().trim_end_matches(".dist-info");
            let named = name.split_once('-').map(|(name, version)| (name.to_owned(), version.to_owned()));
            // Code of the session can make directories of any name.
            found.extend(named.and_then(package).map(|Package { name, version }| (name, version)));
        }
    }
    found
}

/// The paths of what a directory holds; nothing when there is none.
async fn list(workspace: &Arc<Workspace>, directory: &str, pattern: &str) -> Vec<String> {
    let Ok(path) = WorkspacePath::parse(directory) else { return Vec::new() };
    let list = List { path, recursive: false, pattern: Some(pattern.to_owned()), entries_max: ENTRIES_MAX };
    match files::perform(workspace, Operation::List(list)).await {
        Ok(OperationResult::List { entries, .. }) => entries.into_iter().map(|entry| entry.path).collect(),
        _ => Vec::new(),
    }
}
