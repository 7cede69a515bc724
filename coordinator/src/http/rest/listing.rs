//! `/sessions/{session_id}/files`: what is in a directory, in pages.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use codegen_types::event::FileStat;
use codegen_types::operation::List;
use codegen_types::{ErrorCode, OperationResult, SessionId, WorkspacePath};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Api, nothing_given};
use super::asked::Asked;
use super::extract::{InPath, InQuery};
use super::page::{self, PageQuery};
use super::sessions::in_session;
use crate::http::error::ApiError;
use crate::tools::{self, FileView, Raw};

/// The most entries among which pages are.
const ENTRIES_MAX: u32 = 10_000;

/// What to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    /// The directory, relative to the workspace; left out, the workspace itself.
    path: Option<String>,
    /// Whether to list what is in directories below, too.
    recursive: Option<bool>,
    /// A glob that the path below `path` must match.
    pattern: Option<String>,
    /// At most so many entries. Default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(max_length = 6_144)]
    cursor: Option<String>,
}

/// A page of what is in a directory.
#[derive(Debug, Serialize, ToSchema)]
struct FilePage {
    /// What was found, by path.
    entries: Vec<FileView>,
    /// Whether there is more than all pages give, which is 10000 entries; `path` and `pattern` narrow it.
    truncated: bool,
    /// Goes on after the last one; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// List files
#[utoipa::path(get, path = "/sessions/{session_id}/files", tag = "files", operation_id = "list_files",
    params(("session_id" = String, Path, description = "The session's handle"), Listing), responses(
    (status = 200, description = "A page of what is there, by path", body = FilePage, headers(("link" = String, description = "Where the next page is"))),
))]
async fn list(
    State(api): State<Api>,
    asked: Asked,
    OriginalUri(uri): OriginalUri,
    InPath(session): InPath<String>,
    InQuery(listing): InQuery<Listing>,
) -> Result<Response, ApiError> {
    let mut args = in_session(&session);
    args.extend(listing.path.as_ref().map(|path| ("path".to_owned(), json!(path))));
    args.extend(listing.recursive.map(|recursive| ("recursive".to_owned(), json!(recursive))));
    args.extend(listing.pattern.as_ref().map(|pattern| ("pattern".to_owned(), json!(pattern))));
    let Some(Raw::Outcome(outcome)) = api.call(&asked, "fs_list", Value::Object(args)).await?.raw else {
        return Err(nothing_given());
    };
    let (entries, truncated) = match outcome.result.ok().and_then(|completed| completed.result) {
        Some(OperationResult::List { entries, truncated: false }) => (entries, false),
        Some(OperationResult::List { entries, .. }) => match listing.further(&api, &asked, &session).await {
            // What was approved of was one call of the tool, and what that gave is given.
            Err(error) if error.code() == ErrorCode::ApprovalRequired => (entries, true),
            further => further?,
        },
        _ => return Err(nothing_given()),
    };
    let query = PageQuery { limit: listing.limit, cursor: listing.cursor };
    let place = |entry: &FileStat| (0, entry.path.clone());
    let (entries, next) = page::of(entries, &query, place, |one, other| one > other)?;
    let entries = entries.iter().map(|entry| json!(FileView::of(entry))).collect();
    let beside = Map::from_iter([("truncated".to_owned(), json!(truncated))]);
    Ok(page::answer_beside(beside, "entries", entries, next, &uri))
}

impl Listing {
    /// What is there where that is more than the tool lists, and whether there is more still.
    async fn further(&self, api: &Api, asked: &Asked, session: &str) -> Result<(Vec<FileStat>, bool), ApiError> {
        let session: SessionId = session.parse().map_err(|_| nothing_given())?;
        let path = WorkspacePath::parse(self.path.as_deref().unwrap_or_default()).map_err(|_| nothing_given())?;
        let (recursive, pattern) = (self.recursive.unwrap_or(false), self.pattern.clone());
        let list = List { path, recursive, pattern, entries_max: ENTRIES_MAX };
        let by = tools::Asked {
            method: "files/list",
            scopes: asked.identity.scopes,
            client: asked.client.clone(),
            trace: asked.trace.clone(),
            cancel: api.stop(),
        };
        Ok(api.connection(asked).list_files(session, list, &by).await?)
    }
}
