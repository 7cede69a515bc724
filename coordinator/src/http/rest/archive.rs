//! `/sessions/{session_id}/archive`: a directory as one tar. What is in it is found before the first byte is sent.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use codegen_types::event::{FileKind, FileStat};
use codegen_types::operation::List;
use codegen_types::{ErrorCode, OperationResult, SessionId, WorkspacePath};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Api, nothing_given};
use super::archive_body::Pieces;
use super::archive_links as links;
use super::asked::Asked;
use super::extract::{InPath, InQuery};
use super::files::FOREIGN;
use crate::http::error::ApiError;
use crate::tools::{self, Connection, Raw};

/// The most entries of an archive.
pub(super) const ENTRIES_MAX: u32 = 10_000;
/// The most that its files hold together, in bytes.
pub(super) const BYTES_MAX: u64 = 1 << 30;
/// What the product itself keeps in a workspace.
const OWN_DIRECTORY: &str = ".codegen";
/// How many things were left out.
const LEFT_OUT: HeaderName = HeaderName::from_static("x-left-out");
/// How long the next call is waited for where the caller's rate is used up just then.
const RATE_PATIENCE: Duration = Duration::from_secs(10);

/// What to put into the archive.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// The directory, relative to the workspace; left out, the workspace itself.
    path: Option<String>,
    /// How the archive is written. Default `tar`.
    #[param(inline)]
    #[serde(rename = "format")]
    _format: Option<Format>,
}

/// How an archive is written.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Tar,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(archive))
}

/// Download a directory
///
/// A tar of its files, directories and symbolic links, with paths relative to the workspace, at most 10000 entries and 1
/// GiB. A link is never followed; one that may lead out of the workspace is left out and counted in `x-left-out`. FIFOs,
/// sockets and devices are left out, and so is `.codegen` unless `path` leads there. Every file
/// is read by the way of `fs_read`: what the policy denies or wants approved is left out and counted in `x-left-out`,
/// as is what has a name that is not UTF-8. A file that goes before its turn is left out, too; one that shrinks
/// meanwhile ends in zeros, and one that grows is cut. An answer that breaks off is no whole archive.
#[utoipa::path(get, path = "/sessions/{session_id}/archive", tag = "files", operation_id = "read_archive",
    params(("session_id" = String, Path, description = "The session's handle"), Wanted),
    responses((status = 200, description = "The archive", body = Vec<u8>, content_type = "application/x-tar",
        headers(("x-left-out" = String, description = "How many files and directories were left out")))))]
async fn archive(
    State(api): State<Api>,
    asked: Asked,
    InPath(session): InPath<String>,
    InQuery(wanted): InQuery<Wanted>,
) -> Result<Response, ApiError> {
    let source = Source { connection: api.connection(&asked), api, asked, session };
    let mut found = Found::default();
    let top = source.list(wanted.path.as_deref().unwrap_or_default()).await?;
    // Whoever gets this far has a session, and a record of having asked.
    let place = source.api.place_for_archive(&source.asked.identity.principal)?;
    source.find(top, &mut found).await?;
    found.entries.sort_by(|a, b| a.path.cmp(&b.path));
    found.left_out += links::drop_what_is_below(&mut found.entries);
    let mut response = Pieces::new(source, found.entries, place).into_body().into_response();
    let headers = response.headers_mut();
    headers.extend(FOREIGN);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    let name = HeaderValue::from_static("attachment; filename=\"workspace.tar\"");
    headers.insert(header::CONTENT_DISPOSITION, name);
    headers.insert(LEFT_OUT, found.left_out.into());
    Ok(response)
}

/// What goes into an archive.
#[derive(Default)]
struct Found {
    /// Files and directories.
    entries: Vec<FileStat>,
    /// What the files hold together, in bytes.
    bytes: u64,
    left_out: u64,
}

/// A session whose files are read for somebody.
pub(super) struct Source {
    api: Api,
    asked: Asked,
    connection: Connection,
    session: String,
}

impl Source {
    /// Finds everything below a directory in which these things are.
    async fn find(&self, top: Vec<FileStat>, found: &mut Found) -> Result<(), ApiError> {
        let mut pending = Vec::new();
        self.take(top, found, &mut pending)?;
        while let Some(directory) = pending.pop() {
            match self.list(&directory).await {
                Ok(entries) => self.take(entries, found, &mut pending)?,
                Err(error) if concerns_one(error.code()) => found.left_out += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what belongs into the archive of what is in one directory.
    fn take(&self, entries: Vec<FileStat>, found: &mut Found, pending: &mut Vec<String>) -> Result<(), ApiError> {
        for entry in entries.into_iter().filter(|entry| entry.path != OWN_DIRECTORY) {
            let is_directory = match entry.kind {
                FileKind::File => false,
                FileKind::Directory => true,
                FileKind::Symlink if links::stays_inside(&entry) => false,
                FileKind::Symlink => {
                    found.left_out += 1;
                    continue;
                }
                FileKind::Other => continue,
            };
            if !self.may_take(&entry.path, is_directory) {
                found.left_out += 1;
                continue;
            }
            if is_directory {
                pending.push(entry.path.clone());
            } else if entry.kind == FileKind::File {
                found.bytes = found.bytes.saturating_add(entry.size);
            }
            found.entries.push(entry);
            if found.entries.len() > ENTRIES_MAX as usize {
                return Err(too_many());
            }
            if found.bytes > BYTES_MAX {
                return Err(too_large(format!("the files have more than {BYTES_MAX} bytes; `path` narrows it")));
            }
        }
        Ok(())
    }

    /// Whether something can be named, and the policy lets it be read without asking anybody.
    fn may_take(&self, path: &str, is_directory: bool) -> bool {
        // A name that is not UTF-8 is shown as something that it is not.
        let named = WorkspacePath::parse(path).ok().filter(|_| !path.contains('\u{fffd}'));
        named.is_some_and(|path| match is_directory {
            true => self.connection.may_list_directory(&path).is_ok(),
            false => self.connection.may_list(&path),
        })
    }

    /// What is in a directory.
    async fn list(&self, path: &str) -> Result<Vec<FileStat>, ApiError> {
        let args = json!({"session_id": self.session, "path": path});
        let result = patiently(|| self.api.call(&self.asked, "fs_list", args.clone())).await?;
        let Some(Raw::Outcome(outcome)) = result.raw else { return Err(nothing_given()) };
        match outcome.result.ok().and_then(|completed| completed.result) {
            Some(OperationResult::List { entries, truncated: false }) => Ok(entries),
            Some(OperationResult::List { .. }) => self.list_further(path).await,
            _ => Err(nothing_given()),
        }
    }

    /// What is in a directory that holds more than the tool lists.
    async fn list_further(&self, path: &str) -> Result<Vec<FileStat>, ApiError> {
        let session: SessionId = self.session.parse().map_err(|_| nothing_given())?;
        let path = WorkspacePath::parse(path).map_err(|_| nothing_given())?;
        let by = tools::Asked {
            method: "archive/list",
            scopes: self.asked.identity.scopes,
            client: self.asked.client.clone(),
            trace: self.asked.trace.clone(),
            cancel: self.api.stop(),
        };
        let listed = patiently(|| async {
            let list = List { path: path.clone(), recursive: false, pattern: None, entries_max: ENTRIES_MAX };
            let listed = self.connection.list_files(session, list, &by).await;
            listed.map_err(ApiError::from)
        });
        match listed.await? {
            (entries, false) => Ok(entries),
            (_, true) => Err(too_many()),
        }
    }

    /// A part of a file, at most so many bytes, and the file as it was then.
    ///
    /// # Errors
    /// As of `fs_read`.
    pub(super) async fn read(&self, path: &str, offset: u64, limit: u64) -> Result<(Vec<u8>, FileStat), ApiError> {
        let args = json!({
            "session_id": self.session, "path": path, "offset": offset, "limit": limit, "encoding": "base64",
        });
        let result = patiently(|| self.api.call(&self.asked, "fs_read", args.clone())).await?;
        let Some(Raw::Outcome(outcome)) = result.raw else { return Err(nothing_given()) };
        match outcome.result.ok().and_then(|completed| completed.result) {
            Some(OperationResult::Read { contents, stat }) => Ok((contents, stat)),
            _ => Err(nothing_given()),
        }
    }
}

/// Asks again while the caller's rate is used up.
pub(super) async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(ask: impl Fn() -> F) -> Result<T, ApiError> {
    let deadline = Instant::now() + RATE_PATIENCE;
    loop {
        match ask().await {
            Err(error) if error.code() == ErrorCode::RateLimited && Instant::now() < deadline => {
                tokio::time::sleep(error.retry_after()).await;
            }
            done => return done,
        }
    }
}

/// Whether a refusal is about one file or directory, so that the others can still be read.
pub(super) const fn concerns_one(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotFound
            | ErrorCode::NotADirectory
            | ErrorCode::NotAFile
            | ErrorCode::PathViolation
            | ErrorCode::PermissionDenied
            | ErrorCode::ApprovalRequired
    )
}

fn too_many() -> ApiError {
    too_large(format!("there are more than {ENTRIES_MAX} files and directories; `path` narrows it"))
}

fn too_large(message: String) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::InvalidArgument, message)
}
