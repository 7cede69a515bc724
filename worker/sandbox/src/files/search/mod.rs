//! Searching the contents of files, by descriptor and within bounds.

mod finding;

use std::ffi::CString;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use codegen_pattern::{Ended, Patience, Patient, Pattern, Wanted};
use codegen_types::event::{FileKind, FileMatches, Found, SearchCut};
use codegen_types::path::COMPONENTS_MAX;
use codegen_types::{ErrorCode, Failure, OperationResult, operation};
use globset::GlobMatcher;
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder};
use rustix::io::Errno;

use super::describe::Node;
use super::list::compile;
use super::names::OURS;
use super::walk::{Reach, walk_while};
use super::workspace::Workspace;
use super::{fault, resolve};
use finding::{Budget, Finding};

/// Things that one search looks at, whether or not they are searched.
const VISITED_MAX: usize = 100_000;
/// The longest line that is searched, in bytes.
const LINE_BYTES_MAX: usize = 4 << 20;
/// The paths that one search remembers, in bytes.
const PATHS_BYTES_MAX: usize = 16 << 20;
/// How long one search takes at most.
const TIME_MAX: Duration = Duration::from_secs(20);

impl Workspace {
    /// Searches the text files below a path, in order of their paths, until `stop` is set. Below a directory no link is
    /// followed, and at the top of the workspace `.codegen` is passed by.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a bad pattern or glob; `NOT_FOUND`, `PATH_VIOLATION`, `PERMISSION_DENIED`; for a path that
    /// names a file also `FILE_TOO_LARGE`; `TASK_CANCELLED` when it was stopped.
    pub fn search(&self, search: &operation::Search, stop: &Arc<AtomicBool>) -> Result<OperationResult, Failure> {
        let pattern = pattern(search, Patience { stop: stop.clone(), until: Instant::now() + TIME_MAX })?;
        let glob = search.glob.as_deref().map(Glob::compile).transpose()?;
        let _identity = self.assume()?;
        let fault = |errno| fault::of_errno(errno, &search.path);
        let start = resolve::for_reading(self.root(), &search.path).map_err(fault)?;
        let node = Node::of(start.as_fd()).map_err(fault)?;
        let mut work = Work::of(&pattern, search, self.limits.file_bytes);
        if node.is_directory() {
            work.directory(start.as_fd(), search, glob.as_ref())?;
        } else {
            fault::require_plain_file(&node, &search.path)?;
            if node.size > self.limits.file_bytes {
                return Err(fault::too_large(&search.path, node.size, self.limits.file_bytes));
            }
            work.file(start, search.path.as_str().to_owned())?;
        }
        let Work { mut found, budget, .. } = work;
        found.cut = found.cut.or(budget.cut);
        Ok(OperationResult::Search(found))
    }
}

/// A search under way.
struct Work<'a> {
    pattern: &'a Pattern,
    searcher: Searcher,
    file_bytes_max: u64,
    budget: Budget,
    found: Found,
}

impl<'a> Work<'a> {
    fn of(pattern: &'a Pattern, search: &operation::Search, file_bytes_max: u64) -> Self {
        let context = usize::try_from(search.context).unwrap_or(usize::MAX);
        let searcher = SearcherBuilder::new()
            .line_number(true)
            .before_context(context)
            .after_context(context)
            .binary_detection(BinaryDetection::quit(0))
            .heap_limit(Some(LINE_BYTES_MAX))
            .build();
        Self { pattern, searcher, file_bytes_max, budget: Budget::of(search.matches_max), found: Found::default() }
    }

    fn directory(
        &mut self,
        start: BorrowedFd<'_>,
        search: &operation::Search,
        glob: Option<&Glob>,
    ) -> Result<(), Failure> {
        let (paths, complete) = self.paths(start, search, glob)?;
        for path in paths {
            let below = String::from_utf8_lossy(&path).into_owned();
            let shown = if search.path.is_root() { below } else { format!("{}/{below}", search.path) };
            match self.open(start, path) {
                Some(file) => self.file(file, shown)?,
                None => continue,
            }
            if self.budget.cut.is_some() {
                return Ok(());
            }
        }
        if !complete {
            self.budget.cut = self.budget.cut.or(Some(SearchCut::Files));
        }
        Ok(())
    }

    /// The files to be searched, sorted, and whether those are all.
    fn paths(
        &mut self,
        start: BorrowedFd<'_>,
        search: &operation::Search,
        glob: Option<&Glob>,
    ) -> Result<(Vec<Vec<u8>>, bool), Failure> {
        let components_max = COMPONENTS_MAX;
        let reach = match search.path.is_root() {
            true => Reach::TreeWithout { components_max, left_out: OURS },
            false => Reach::Tree { components_max },
        };
        let (mut paths, mut room) = (Vec::new(), PATHS_BYTES_MAX);
        let patience = self.pattern.patience();
        let mut patient = Ok(());
        let complete = walk_while(start, reach, VISITED_MAX, |met| {
            patient = patience.look();
            if patient.is_err() {
                return ControlFlow::Break(());
            }
            if met.kind == FileKind::File && glob.is_none_or(|glob| glob.is_match(met.path)) {
                let Some(left) = room.checked_sub(met.path.len()) else { return ControlFlow::Break(()) };
                room = left;
                paths.push(met.path.to_vec());
            }
            ControlFlow::Continue(())
        });
        let complete = complete.map_err(|errno| fault::of_errno(errno, &search.path))?;
        match patient {
            Ok(()) => paths.sort_unstable(),
            Err(Ended::Stopped) => return Err(stopped()),
            Err(Ended::TimedOut | Ended::Broken) => {
                self.budget.cut = Some(SearchCut::Time);
                paths.clear();
            }
        }
        Ok((paths, complete))
    }

    /// Opens a file that was met, unless it is out of reach or too large, which is counted.
    fn open(&mut self, start: BorrowedFd<'_>, path: Vec<u8>) -> Option<OwnedFd> {
        let opened = CString::new(path).map_err(|_| Errno::INVAL).and_then(|name| resolve::file_in(start, &name));
        let described = opened.and_then(|file| Node::of(file.as_fd()).map(|node| (file, node)));
        match described {
            Ok((file, node)) if node.kind() == FileKind::File && node.links == 1 => {
                if node.size <= self.file_bytes_max {
                    return Some(file);
                }
                self.found.skipped.too_large += 1;
            }
            _ => self.found.skipped.unreadable += 1,
        }
        None
    }

    /// Searches a file. A failure other than of the file itself ends the whole search.
    fn file(&mut self, file: OwnedFd, path: String) -> Result<(), Failure> {
        let before = self.budget;
        let patience = self.pattern.patience();
        let mut contents = Patient { from: File::from(file), patience, failed: false };
        let mut finding = Finding { pattern: self.pattern, budget: &mut self.budget, lines: Vec::new(), binary: false };
        let searched = self.searcher.search_reader(self.pattern, &mut contents, &mut finding);
        let Finding { lines, binary, .. } = finding;
        if searched.is_err() {
            match patience.look() {
                Err(Ended::TimedOut) => self.budget.cut = Some(SearchCut::Time),
                Err(Ended::Stopped) => return Err(stopped()),
                Err(Ended::Broken) | Ok(()) if contents.failed => self.found.skipped.unreadable += 1,
                // All that is left is a line that the searcher has no room for.
                Err(Ended::Broken) | Ok(()) => self.found.skipped.too_large += 1,
            }
        } else if binary {
            self.budget = before;
            self.found.skipped.binary += 1;
            return Ok(());
        } else {
            self.found.files_searched += 1;
        }
        if !lines.is_empty() {
            self.found.files.push(FileMatches { path, lines });
        }
        Ok(())
    }
}

/// Picks files. Without a slash a glob is about names, at any depth.
struct Glob {
    matcher: GlobMatcher,
    of_name: bool,
}

impl Glob {
    fn compile(glob: &str) -> Result<Self, Failure> {
        Ok(Self { matcher: compile("glob", glob)?, of_name: !glob.contains('/') })
    }

    fn is_match(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        let name = path.rsplit('/').next().unwrap_or(&path);
        self.matcher.is_match(if self.of_name { name } else { &path })
    }
}

fn pattern(search: &operation::Search, patience: Patience) -> Result<Pattern, Failure> {
    let operation::Search { pattern, literal, ignore_case, .. } = search;
    let wanted = Wanted { pattern, literal: *literal, ignore_case: *ignore_case };
    Pattern::compile(&wanted, patience)
        .map_err(|why| Failure::new(ErrorCode::InvalidArgument, format!("`pattern`: {why}")))
}

fn stopped() -> Failure {
    Failure::new(ErrorCode::TaskCancelled, "the search was stopped")
}
