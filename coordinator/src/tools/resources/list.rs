//! Listing the files of the sessions that a connection uses, page by page.

use codegen_types::event::{FileKind, FileStat};
use codegen_types::operation::List;
use codegen_types::{ErrorCode, Failure, Operation, OperationResult, SessionId, WorkspacePath};

use super::{Asked, another_result};
use crate::tools::connection::Connection;
use crate::tools::media;
use crate::tools::resource_uri::WorkspaceUri;

/// Files on one page.
const PAGE: usize = 250;
/// Files of one session that are listed; the others can be read all the same.
const FILES_MAX: usize = 1_000;
/// Files and directories that one look asks for.
const ENTRIES_MAX: u32 = 5_000;
/// Everything but what is hidden at the top: the files of tools, such as `.git`, can be many.
const NOT_HIDDEN: &str = "{[!.]*,[!.]*/**}";

/// A file that can be read as a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceFile {
    /// Its address.
    pub uri: WorkspaceUri,
    /// Its media type by its name, when that tells.
    pub media: Option<&'static str>,
    /// Its size, in bytes.
    pub size: u64,
    /// When its contents last changed, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// Some of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourcePage {
    /// In order of session and path.
    pub files: Vec<ResourceFile>,
    /// Whether there are more after the last of them.
    pub has_more: bool,
}

/// Whether a failure is one of the request, and not of the session that was looked at.
const fn ends_the_listing(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::AuditUnavailable | ErrorCode::PermissionDenied | ErrorCode::RateLimited)
}

impl Connection {
    /// The files after an address, in the sessions that this connection uses: not those whose path has a hidden part
    /// (`.git`) or `__pycache__`, and no more than the first thousand of a session.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`; `RATE_LIMITED`; `AUDIT_UNAVAILABLE`. A session that cannot be looked at just now is left out.
    pub async fn list_resources(&self, after: Option<&WorkspaceUri>, asked: &Asked) -> Result<ResourcePage, Failure> {
        let mut page = ResourcePage::default();
        let mut sessions = self.sessions_in_use();
        sessions.sort_unstable();
        for session in sessions.into_iter().filter(|session| after.is_none_or(|after| *session >= after.session)) {
            let files = match self.files_of(session, asked).await {
                Err(failure) if ends_the_listing(failure.code) => return Err(failure),
                Err(failure) => {
                    tracing::debug!(%session, %failure, "a session's files are not listed");
                    continue;
                }
                Ok(files) => files,
            };
            let path = after.filter(|after| after.session == session).map(|after| after.path.as_str());
            let files = files.into_iter().filter(|file| path.is_none_or(|path| file.uri.path.as_str() > path));
            for file in files {
                if page.files.len() == PAGE {
                    page.has_more = true;
                    return Ok(page);
                }
                page.files.push(file);
            }
        }
        Ok(page)
    }

    /// What is in a directory, and whether there is more than was asked for.
    ///
    /// # Errors
    /// As of `fs_list`; `APPROVAL_REQUIRED` when only a call of that can be approved.
    pub(crate) async fn list_files(
        &self,
        session: SessionId,
        list: List,
        asked: &Asked,
    ) -> Result<(Vec<FileStat>, bool), Failure> {
        let address = WorkspaceUri { session, path: list.path.clone() };
        match self.look(asked, &address, &address.to_string(), Operation::List(list)).await? {
            OperationResult::List { entries, truncated } => Ok((entries, truncated)),
            _ => Err(another_result()),
        }
    }

    async fn files_of(&self, session: SessionId, asked: &Asked) -> Result<Vec<ResourceFile>, Failure> {
        let address = WorkspaceUri { session, path: WorkspacePath::root() };
        let pattern = Some(NOT_HIDDEN.to_owned());
        let list = List { path: WorkspacePath::root(), recursive: true, pattern, entries_max: ENTRIES_MAX };
        let OperationResult::List { entries, .. } =
            self.look(asked, &address, &address.to_string(), Operation::List(list)).await?
        else {
            return Err(another_result());
        };
        let files = entries.into_iter().filter(|entry| entry.kind == FileKind::File).filter_map(|entry| {
            // A name that is not UTF-8 is shown as something that it is not.
            let path = WorkspacePath::parse(&entry.path).ok().filter(|_| !entry.path.contains('\u{fffd}'))?;
            let hidden = path.components().any(|part| part.starts_with('.') || part == "__pycache__");
            let shown = !hidden && self.may_list(&path);
            let media = media::by_name(&entry.path);
            let uri = WorkspaceUri { session, path };
            shown.then_some(ResourceFile { uri, media, size: entry.size, modified_ms: entry.modified_ms })
        });
        Ok(files.take(FILES_MAX).collect())
    }
}
