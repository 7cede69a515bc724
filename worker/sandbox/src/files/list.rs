//! Listing directories, by descriptor and within bounds.

use std::os::fd::AsFd;

use codegen_types::event::FileStat;
use codegen_types::operation;
use codegen_types::path::COMPONENTS_MAX;
use codegen_types::{ErrorCode, Failure, OperationResult};
use globset::{GlobBuilder, GlobMatcher};

use super::walk::{Reach, walk};
use super::workspace::Workspace;
use super::{fault, resolve};

/// Things that one listing looks at, whether or not they match.
const VISITED_MAX: usize = 50_000;
/// What one listing reads of where links lead, all together, in bytes; of further links it is not said.
const TARGETS_BYTES_MAX: usize = 4 << 20;
/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;

impl Workspace {
    /// Lists a directory, sorted by path. Links are named, never followed below `path`.
    ///
    /// # Errors
    /// `NOT_FOUND`, `NOT_A_DIRECTORY`, `PATH_VIOLATION`, `PERMISSION_DENIED`; `INVALID_ARGUMENT` for a bad pattern.
    pub fn list(&self, list: &operation::List) -> Result<OperationResult, Failure> {
        let matcher = list.pattern.as_deref().map(|pattern| compile("pattern", pattern)).transpose()?;
        let _identity = self.assume()?;
        let fault = |errno| fault::of_errno(errno, &list.path);
        let start = resolve::directory(self.root(), &list.path).map_err(fault)?;
        let reach = if list.recursive { Reach::Tree { components_max: COMPONENTS_MAX } } else { Reach::Entries };
        let mut entries: Vec<FileStat> = Vec::new();
        let mut targets_left = TARGETS_BYTES_MAX;
        let complete = walk(start.as_fd(), reach, VISITED_MAX, |met| {
            let below = String::from_utf8_lossy(met.path);
            if matcher.as_ref().is_some_and(|matcher| !matcher.is_match(below.as_ref())) {
                return;
            }
            if let Some(node) = met.node() {
                let path = if list.path.is_root() { below.into_owned() } else { format!("{}/{below}", list.path) };
                let target = met.target().filter(|target| target.len() <= targets_left);
                targets_left -= target.as_ref().map_or(0, String::len);
                entries.push(FileStat { target, ..node.stat(path) });
            }
        });
        let complete = complete.map_err(fault)?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let entries_max = usize::try_from(list.entries_max).unwrap_or(usize::MAX);
        let truncated = !complete || entries.len() > entries_max;
        entries.truncate(entries_max);
        Ok(OperationResult::List { entries, truncated })
    }
}

/// Compiles a glob, in which `*` does not cross a slash.
pub(super) fn compile(field: &str, pattern: &str) -> Result<GlobMatcher, Failure> {
    let refuse = |why: String| Failure::new(ErrorCode::InvalidArgument, format!("`{field}` is no glob: {why}"));
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(refuse(format!("it is longer than {PATTERN_BYTES_MAX} bytes")));
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| refuse(error.kind().to_string()))
}
