//! `artifact_list`, `artifact_get`: the files below `artifacts/`, which are worth keeping.

mod get;
mod list;

pub(super) use get::{ArtifactGetInput, get};
pub(super) use list::{ArtifactListInput, ArtifactListOutput, list};

use codegen_types::WorkspacePath;

/// The directory of a workspace that holds them.
const DIRECTORY: &str = "artifacts";

fn directory() -> WorkspacePath {
    WorkspacePath::parse(DIRECTORY).expect("a constant that is a path")
}
